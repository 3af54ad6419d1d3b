"""Drawn `Augmentation`s and clips of every kind of content, for the property that no program changes a pixel."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import HealthCheck, Phase, example, given, seed, settings
from hypothesis import strategies as st

from tests.compiled import plain
from vididi_jax.pixels.augment import PER_FRAME, Augmentation, augment
from vididi_jax.train import mesh as meshes

HEIGHT, WIDTH, FRAMES = 40, 56, 4
# In float32 the weights of a resize are exact to 4e-6, for they are differences of places up to 56, once an axis;
# colours and the normalisation multiply that by up to 20. A pixel of another hue differs by 0.01 to 4.
TOLERANCE = 1e-3


def pair(low, high):
    return st.tuples(*[st.floats(low, high, allow_nan=False)] * 2).map(sorted).map(tuple)


def share():
    return st.floats(0, 1)


AUGMENTATIONS = st.builds(
    Augmentation, size=st.sampled_from([16, 24, 40]), crop=st.just('random_resized'), area=pair(0.02, 1),
    aspect=pair(0.3, 3), flip=share(), shift=st.integers(0, 16), blur=share(), blur_kernel=st.sampled_from([1, 3, 5]),
    blur_sigma=pair(0.05, 3), jitter=st.floats(0.5, 1) | share(), brightness=share(), contrast=share(),
    saturation=share(), hue=st.floats(0, 0.5), gray=st.just(0.0) | share(),
    gray_mode=st.sampled_from(['channel', 'luminance']), gain=st.just((1, 1)) | pair(0.5, 1.5),
    tint=st.just((1, 1)) | pair(0.5, 1.5), std=st.tuples(*[st.floats(0.2, 1)] * 3), frame_consistent=st.booleans(),
    per_frame=st.sets(st.sampled_from(PER_FRAME)).map(sorted).map(tuple))
UNCROPPED = st.builds(lambda spec: Augmentation(**vars(spec) | {'crop': 'none', 'size': HEIGHT}), AUGMENTATIONS)


# Nothing after colour jitter to set a compiler's cuts between fusions: with it the largest channel was once mistaken.
COLOURFUL = Augmentation(size=32, jitter=1.0, gray=0.0, hue=0.3)


def contents(seed):
    """uint8 (8, T, H, W, 3): flat, saturated, gray and noisy clips, and smooth ones, whose pixels nearly are equal."""
    rng = np.random.default_rng(seed)
    shape = (FRAMES, HEIGHT, WIDTH)
    y, x = np.mgrid[:HEIGHT, :WIDTH] / HEIGHT
    time = np.arange(FRAMES)[:, None, None]

    def smooth():
        a, b, p, q = rng.uniform(-3, 3, (4, 3, 1, 1, 1))
        return np.moveaxis(127 + 120 * np.sin(a * x + b * y + p + 0.1 * time) * np.cos(q), 0, -1)

    return np.stack([
        np.broadcast_to(rng.integers(0, 256, 3), (*shape, 3)),
        rng.integers(0, 2, (*shape, 3)) * 255,
        np.repeat(rng.integers(0, 256, (*shape, 1)), 3, -1),
        np.repeat(smooth()[..., :1], 3, -1),
        rng.integers(0, 256, (*shape, 3)),
        rng.integers(0, 256) + rng.integers(0, 2, (*shape, 3)) * rng.integers(-1, 2),
        smooth(), smooth()]).clip(0, 255).astype(np.uint8)


def differences(spec, number, placements):
    """Of each placement, the absolute difference of every element from float64: (B, T, size, size, 3)."""
    rng = np.random.default_rng(number)
    clips, key = contents(number), jax.random.key(number)
    sizes = np.full((8, 2), HEIGHT)
    if spec.crop != 'none':
        sizes = np.stack([rng.integers(20, HEIGHT + 1, 8), rng.integers(20, WIDTH + 1, 8)], 1)
    else:
        clips = clips[:, :, :, :HEIGHT]
    sizes = sizes.astype(np.int32)
    wanted = plain.augment(key, clips, sizes, spec)
    return {name: np.abs(np.asarray(augment(key, *place((jnp.asarray(clips), jnp.asarray(sizes))), spec)) - wanted)
            for name, place in placements.items()}


def measure(count: int, devices: int) -> bool:
    """Whether all pixels of two given and `count` drawn augmentations are within `TOLERANCE`; prints figures."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:devices]), ('data',))
    split = meshes.split_over_batch(mesh)
    placements = {'1 device': lambda tree: tree, f'{devices} devices': lambda tree: jax.device_put(tree, split)}
    found, drawn = {name: [0, 0, 0.0] for name in placements}, set()

    def report():
        for name, (pixels, beyond, largest) in found.items():
            print(f'{len(drawn)} augmentations, {name}: {beyond} of {pixels:,} pixels differ by more than {TOLERANCE}; '
                  f'largest {largest:.2e}', flush=True)

    @seed(0)
    @settings(max_examples=max(count, 1), deadline=None, database=None, suppress_health_check=list(HealthCheck),
              phases=[Phase.explicit, *([Phase.generate] if count else [])])
    @given(AUGMENTATIONS | UNCROPPED, st.integers(0, 2**31))
    @example(COLOURFUL, 0)
    @example(replace(COLOURFUL, frame_consistent=False), 0)
    def look(spec, number):
        drawn.add(spec)
        for name, difference in differences(spec, number, placements).items():
            worst = np.where(np.isnan(difference), np.inf, difference).max(-1)  # of each pixel
            beyond = int((worst > TOLERANCE).sum())
            found[name] = [found[name][0] + worst.size, found[name][1] + beyond, max(found[name][2], worst.max())]
            if beyond:
                print(f'{name}: {beyond} pixels by up to {worst.max():.2e}, {spec}, number {number}', flush=True)
        if len(drawn) % 20 == 0:
            jax.clear_caches()
            report()

    look()
    report()
    return not any(beyond for _, beyond, _ in found.values())
