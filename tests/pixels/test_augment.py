"""Augmentation against Pillow, colorsys and plain numpy (torchvision's documented formulas)."""

import colorsys
import json
from dataclasses import asdict

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from tests.compiled import plain
from vididi_jax.errors import UserError
from vididi_jax.pixels import augment as A
from vididi_jax.pixels import colours, operations
from vididi_jax.pixels.crops import centre_crop

GRAY = np.array([0.2989, 0.587, 0.114])  # of torchvision on tensors
RAW = dict(size=8, crop='none', flip=0, blur=0, jitter=0, gray=0, mean=(0, 0, 0), std=(1, 1, 1))


def random_clips(seed=0, shape=(3, 4, 20, 27, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def full_sizes(clips):
    return np.tile(np.array(clips.shape[2:4], np.int32), (len(clips), 1))


def image(seed=0, shape=(9, 11, 3)):
    return np.random.default_rng(seed).uniform(size=shape)


@pytest.mark.parametrize('box', [(0, 0, 40, 53), (5, 7, 30, 21), (3, 2, 12, 9), (10, 20, 16, 16)])
def test_resized_crop_equals_pillow(box):
    """Pillow crops, then resizes with an antialiased triangle filter, as torchvision does on tensors."""
    top, left, height, width = box
    source = random_clips(1, (40, 53, 3)).astype(np.float32)
    got = operations.resized_crop(jnp.asarray(source), top, left, height, width, 16)
    for channel in range(3):
        cut = source[top : top + height, left : left + width, channel]
        expected = Image.fromarray(cut, mode='F').resize((16, 16), Image.Resampling.BILINEAR)
        np.testing.assert_allclose(got[..., channel], expected, atol=2e-3)  # of 255, float32 weights on both sides


def test_resized_crop_at_the_same_size_is_the_crop():
    source = random_clips(2, (40, 53, 3)).astype(np.float32)
    got = operations.resized_crop(jnp.asarray(source), 4, 9, 16, 16, 16)
    np.testing.assert_allclose(got, source[4:20, 9:25], atol=1e-4)


def coloured(function, x, *arguments):
    """A function of `colours` on an image."""
    return colours.merge(function(colours.spread(jnp.asarray(x)), *arguments))


@pytest.mark.parametrize('factor', [0.0, 0.8, 1.0, 1.2])
def test_brightness_contrast_saturation(factor):
    x = image()
    luminance = x @ GRAY
    with jax.enable_x64(True):
        mean = colours.mean_luminance(colours.spread(jnp.asarray(x)), (-3, -2))
        for function, given, value in (
                (colours.adjust_brightness, (factor,), factor * x),
                (colours.adjust_contrast, (factor, mean), factor * x + (1 - factor) * luminance.mean()),
                (colours.adjust_saturation, (factor,), factor * x + (1 - factor) * luminance[..., None])):
            np.testing.assert_allclose(coloured(function, x, *given), np.clip(value, 0, 1), atol=1e-12)


@pytest.mark.parametrize('shift', [-0.5, -0.05, 0.0, 0.03, 0.4])
def test_hue_equals_colorsys(shift):
    x = image(3)
    x[0, 0] = 0.4  # gray pixels have no hue
    expected = np.empty_like(x)
    for index in np.ndindex(*x.shape[:2]):
        h, s, v = colorsys.rgb_to_hsv(*x[index])
        expected[index] = colorsys.hsv_to_rgb((h + shift) % 1, s, v)
    with jax.enable_x64(True):
        np.testing.assert_allclose(coloured(colours.adjust_hue, x, shift), expected, atol=1e-12)


@pytest.mark.parametrize('sigma', [0.125, 0.75, 2.0])  # of float32, in which it is drawn
def test_blur_is_a_reflected_gaussian(sigma):
    clips = random_clips(4, (1, 1, 9, 9, 3))
    x, spec = clips[0, 0] / 255, A.Augmentation(**RAW | dict(size=9, blur=1, blur_sigma=(sigma, sigma)))
    kernel = np.exp(-0.5 * (np.arange(-1, 2) / sigma) ** 2)
    kernel = np.outer(kernel, kernel) / kernel.sum() ** 2
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)), mode='reflect')
    expected = sum(kernel[i, j] * padded[i : i + 9, j : j + 9] for i in range(3) for j in range(3))
    with jax.enable_x64(True):
        got = A.augment(jax.random.key(0), clips, full_sizes(clips), spec, jnp.float64)
    np.testing.assert_allclose(got[0, 0], expected, atol=1e-12)


def test_gray():
    x = image(5)
    with jax.enable_x64(True):
        expected = np.repeat((x @ GRAY)[..., None], 3, -1)
        np.testing.assert_allclose(coloured(colours.to_gray, x), expected, atol=1e-12)
        np.testing.assert_array_equal(coloured(colours.to_gray, x, 1), np.repeat(x[..., 1:2], 3, -1))


def numpy_random_box(rng, height, width, area, aspect):
    """torchvision's RandomResizedCrop, as documented: ten tries, then the largest centred box of an allowed aspect."""
    for _ in range(10):
        target = height * width * rng.uniform(*area)
        ratio = np.exp(rng.uniform(*np.log(aspect)))
        w, h = round(np.sqrt(target * ratio)), round(np.sqrt(target / ratio))
        if 0 < w <= width and 0 < h <= height:
            return rng.integers(0, height - h + 1), rng.integers(0, width - w + 1), h, w
    h, w = min(height, round(width / aspect[0])), min(width, round(height * aspect[1]))
    return (height - h) // 2, (width - w) // 2, h, w


@pytest.mark.parametrize(('height', 'width', 'area'), [(128, 171, (0.08, 1.0)), (60, 20, (0.5, 1.0))])
def test_random_boxes_are_distributed_as_torchvisions(height, width, area):
    """Two-sample Kolmogorov-Smirnov on each coordinate; in the second, narrow frame the fallback is frequent."""
    aspect, count = (3 / 4, 4 / 3), 3000
    draw = jax.jit(jax.vmap(lambda key: A.random_box(key, height, width, area, aspect)))
    got = np.stack(draw(jax.random.split(jax.random.key(0), count)), axis=1)
    top, left, h, w = got.T
    assert (got >= 0).all() and (got[:, 2:] > 0).all()
    assert (top + h <= height).all() and (left + w <= width).all()
    rng = np.random.default_rng(0)
    expected = np.array([numpy_random_box(rng, height, width, area, aspect) for _ in range(count)])
    for column in range(4):
        values = np.arange(max(height, width) + 1)
        share = [np.searchsorted(np.sort(x[:, column]), values, side='right') / count for x in (got, expected)]
        assert np.abs(share[0] - share[1]).max() < 1.95 * np.sqrt(2 / count)  # exceeded once in 1,000


def test_a_box_that_never_fits_falls_back_to_the_centre():
    """Of a 10 x 100 frame no box of the whole area has an aspect up to 4/3: the largest centred one is taken."""
    box = A.random_box(jax.random.key(0), 10, 100, (1.0, 1.0), (3 / 4, 4 / 3))
    assert [int(x) for x in box] == [0, 43, 10, 13]
    for aspect, thin in (((50.0, 100.0), [12, 0, 1, 24]), ((0.01, 0.02), [0, 12, 24, 1])):  # a pixel at least
        drawn = A.random_box(jax.random.key(0), 24, 24, (1.0, 1.0), aspect)
        np.testing.assert_allclose(drawn[:2], thin[:2], atol=1)  # the middle lies between two pixels
        assert [int(x) for x in drawn[2:]] == thin[2:]


def test_a_box_is_the_same_in_every_program():
    """Compiled, compiled with float64 at hand, and as products of float32 in numpy: every one of 300 boxes, exactly."""
    spec = A.Augmentation()
    heights, widths = np.random.default_rng(0).integers(64, 2200, (2, 300)).astype(np.int32)
    keys = jax.random.split(jax.random.key(0), 300)
    draw = jax.vmap(lambda key, height, width: A.random_box(key, height, width, spec.area, spec.aspect))
    got = np.stack(jax.jit(draw)(keys, heights, widths), 1)
    with jax.enable_x64(True):
        np.testing.assert_array_equal(np.stack(jax.jit(draw)(keys, heights, widths), 1), got)
    expected = [plain.random_box(*given, spec) for given in zip(keys, heights.tolist(), widths.tolist(), strict=True)]
    np.testing.assert_array_equal(got, expected)


def test_a_centre_crop_has_one_side_in_every_precision():
    """0.7 x 45 is 31.5 in float32 and less in float64, which would round to another square."""
    clips = random_clips(15, (2, 2, 45, 45, 3))
    spec = A.Augmentation(size=16, centre_fraction=0.7)
    single = centre_crop(clips, full_sizes(clips), spec)
    with jax.enable_x64(True):
        double = centre_crop(clips, full_sizes(clips), spec, jnp.float64)
    np.testing.assert_allclose(single, double, atol=1e-4)  # float32


def test_precision_changes_rounding_only():
    """The same key draws the same parameters in float32 and float64."""
    clips = random_clips(15)
    spec = A.Augmentation(size=16)
    single = np.asarray(A.augment(jax.random.key(5), clips, full_sizes(clips), spec))
    with jax.enable_x64(True):
        double = A.augment(jax.random.key(5), clips, full_sizes(clips), spec, jnp.float64)
        assert double.dtype == jnp.float64
    np.testing.assert_allclose(single, double, atol=1e-3)  # the hue of nearly gray pixels multiplies float32 rounding


@pytest.mark.parametrize('function', [A.augment, centre_crop])
def test_padding_never_reaches_the_output(function):
    clips = random_clips(7, (6, 2, 30, 40, 3))
    sizes = np.array([[30, 40], [20, 40], [30, 24], [18, 18], [25, 31], [30, 40]], np.int32)
    outputs = []
    for filler in (0, 255):
        padded = clips.copy()
        for clip, (height, width) in zip(padded, sizes, strict=True):
            clip[:, height:], clip[:, :, width:] = filler, filler
        spec = A.Augmentation(size=16)
        key = (jax.random.key(2),) if function is A.augment else ()
        outputs.append(np.asarray(function(*key, padded, sizes, spec)))
    assert np.isfinite(outputs[0]).all()
    np.testing.assert_array_equal(*outputs)


def test_a_clip_depends_on_its_own_row_only():
    clips = random_clips(8)
    spec = A.Augmentation(size=16)
    every = A.augment(jax.random.key(3), clips, full_sizes(clips), spec)
    first = A.augment(jax.random.key(3), clips[:1], full_sizes(clips)[:1], spec)
    np.testing.assert_allclose(every[:1], first, atol=1e-5)  # another batch size may sum in another order
    assert np.abs(every - A.augment(jax.random.key(4), clips, full_sizes(clips), spec)).max() > 0.1


def test_nothing_switched_on_only_normalises():
    clips = random_clips(9, (2, 3, 16, 16, 3))
    spec = A.Augmentation(size=16, crop='none', flip=0, blur=0, jitter=0, gray=0)
    with jax.enable_x64(True):
        got = A.augment(jax.random.key(0), clips, full_sizes(clips), spec, jnp.float64)
    expected = (clips / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(got, expected, atol=1e-12)


def test_flip_and_wrapped_shift():
    clips = random_clips(10, (16, 2, 16, 16, 3))
    plain = dict(size=16, crop='none', blur=0, jitter=0, gray=0, mean=(0, 0, 0), std=(1, 1, 1))
    flipped = A.augment(jax.random.key(0), clips, full_sizes(clips), A.Augmentation(flip=1, **plain))
    np.testing.assert_allclose(flipped, clips[:, :, :, ::-1] / 255, atol=1e-6)
    shifted = A.augment(jax.random.key(0), clips, full_sizes(clips), A.Augmentation(flip=0, shift=3, **plain))
    found = set()
    for got, clip in zip(np.asarray(shifted), clips / 255, strict=True):
        matches = [(dy, dx) for dy in range(-3, 4) for dx in range(-3, 4)
                   if np.allclose(got, np.roll(clip, (dy, dx), (1, 2)), atol=1e-6)]
        assert len(matches) == 1
        found.add(matches[0])
    assert len(found) > 8


def test_shifts_are_all_whole_numbers_up_to_the_largest():
    clips = random_clips(10, (128, 1, 8, 8, 3))
    shifted = np.asarray(A.augment(jax.random.key(0), clips, full_sizes(clips), A.Augmentation(**RAW | dict(shift=2))))
    distances = {(dy, dx): np.abs(np.roll(clips / 255, (dy, dx), (2, 3)) - shifted).max((1, 2, 3, 4))
                 for dy in range(-2, 3) for dx in range(-2, 3)}
    found = {place for place, distance in distances.items() if distance.min() < 1e-6}
    assert found == set(distances)  # of 25, of which each is left out once in 190 times


@pytest.mark.parametrize('fields', [
    dict(flip=0.5, shift=0), dict(flip=0.5, shift=5), dict(flip=0.5, shift=5, blur_kernel=7),
    dict(flip=0.5, shift=3, frame_consistent=False, per_frame=('blur',)),
    dict(flip=0.5, shift=3, frame_consistent=False, per_frame=('crop', 'flip', 'blur'))])
def test_what_is_done_to_the_matrices_of_a_resize_is_as_if_done_to_pixels(fields):
    """In float64, against crop, flip, shift and blur of the pixels, one after the other."""
    clips = random_clips(19, (8, 3, 30, 41, 3))
    spec = A.Augmentation(size=16, blur=0.7, blur_sigma=(0.75, 0.75), jitter=0, gray=0, **fields)
    with jax.enable_x64(True):
        got = A.augment(jax.random.key(0), clips, full_sizes(clips), spec, jnp.float64)
    expected = plain.augment(jax.random.key(0), clips, full_sizes(clips), spec)
    np.testing.assert_allclose(got, expected, atol=1e-12)


@pytest.mark.parametrize('fields', [{}, dict(frame_consistent=False), dict(
    frame_consistent=False, per_frame=('crop', 'flip', 'blur', 'jitter', 'gray'), gain=(0.5, 1.5), tint=(0.6, 1.4))])
def test_no_key_is_drawn_from_twice(fields):
    clips, spec = random_clips(), A.Augmentation(size=8, shift=2, **fields)
    with jax.debug_key_reuse(True):
        jax.eval_shape(lambda key: A.augment(key, clips, full_sizes(clips), spec), jax.random.key(0))


def test_jitter_factors_lie_in_their_range():
    clips = random_clips(16, (32, 2, 8, 8, 3)) // 4 * 2 + 16  # dark enough for 1.5 times to stay below 1
    spec = A.Augmentation(**RAW | dict(jitter=1, brightness=0.5, contrast=0, saturation=0, hue=0))
    factor = np.asarray(A.augment(jax.random.key(0), clips, full_sizes(clips), spec)) / (clips / 255)
    np.testing.assert_allclose(factor, np.broadcast_to(factor[:, :1, :1, :1, :1], factor.shape), rtol=1e-5)  # float32
    factor = factor[:, 0, 0, 0, 0]
    assert 0.5 <= factor.min() < 0.7 and 1.3 < factor.max() <= 1.5


@pytest.mark.parametrize('mode', ['channel', 'luminance'])
def test_gray_modes(mode):
    clips = random_clips(17, (32, 2, 8, 8, 3))
    spec = A.Augmentation(**RAW | dict(gray=1, gray_mode=mode))
    got = np.asarray(A.augment(jax.random.key(0), clips, full_sizes(clips), spec))
    assert (got[..., :1] == got).all()
    sources = clips / 255 if mode == 'channel' else (clips / 255) @ GRAY[:, None]
    same = np.abs(got[..., :1] - sources).max((1, 2, 3)) < 1e-6  # of each clip, to each channel
    assert (same.sum(1) == 1).all()
    assert same.any(0).all()


def test_frames_of_another_size_than_an_uncropped_clip_needs():
    """On the host a sentence; on the device NaN, never padding."""
    clips = random_clips(18, (2, 2, 8, 8, 3))
    spec = A.Augmentation(**RAW)
    got = np.asarray(A.augment(jax.random.key(0), clips, np.array([[8, 8], [8, 7]], np.int32), spec))
    np.testing.assert_allclose(got[0], clips[0] / 255, atol=1e-6)
    assert np.isnan(got[1]).all()
    spec.check_frames([8, 8], [8, 8])
    A.Augmentation(size=8).check_frames([8, 6], [8, 7])
    with pytest.raises(UserError, match='8 x 7'):
        spec.check_frames([8, 8], [8, 7])


def test_a_spec_from_a_file_equals_one_from_code():
    """Lists, as json has them, become tuples: a spec must be hashable to be static under jit."""
    spec = A.Augmentation(**json.loads(json.dumps(asdict(A.Augmentation(gain=(0.5, 1.5))))))
    assert spec == A.Augmentation(gain=(0.5, 1.5))
    assert hash(spec) == hash(A.Augmentation(gain=(0.5, 1.5)))


def test_gain_and_tint_scale_channels():
    clips = random_clips(11, (32, 2, 8, 8, 3))
    spec = A.Augmentation(size=8, crop='none', flip=0, blur=0, jitter=0, gray=0, mean=(0, 0, 0), std=(1, 1, 1),
                          gain=(0.5, 1.5), tint=(0.9, 1.1))
    scaled = np.asarray(A.augment(jax.random.key(0), clips, full_sizes(clips), spec))
    ratio = scaled.sum((1, 2, 3)) / (clips / 255).sum((1, 2, 3))
    assert 0.45 <= ratio.min() < 0.8 and 1.2 < ratio.max() <= 1.65
    assert 0.1 < np.ptp(ratio / ratio.mean(1, keepdims=True), axis=1).max() < 0.25


def test_what_is_drawn_for_one_colour_operation_tells_nothing_about_another():
    """Of one clip by 400 keys: its factors, the turn of its hue, its channel, and whether; all pairs of these."""
    clips = np.repeat(random_clips(21, (1, 1, 8, 8, 3)) // 3 + 80, 400, 0)  # so that nothing is clamped

    def run(**fields):
        spec = A.Augmentation(**RAW | dict(brightness=0, contrast=0, saturation=0, hue=0) | fields)
        return np.asarray(A.augment(jax.random.key(1), clips, full_sizes(clips), spec))[:, 0]

    def is_changed(out):
        return np.abs(out - clips[:, 0] / 255).max((1, 2, 3)) > 1e-3

    out = run(jitter=1, brightness=0.2, contrast=0.2, saturation=0.2)
    luminance, chroma = out @ GRAY, out[..., 0] - out[..., 1]
    brightness, spread, colour = luminance.mean((1, 2)), luminance.std((1, 2)), chroma.std((1, 2))
    hue = np.array([colorsys.rgb_to_hsv(*pixel)[0] for pixel in run(jitter=1, hue=0.05)[:, 2, 3].astype(float)])
    turn = (hue - colorsys.rgb_to_hsv(*clips[0, 0, 2, 3] / 255)[0] + 0.5) % 1 - 0.5
    assert -0.05 <= turn.min() < -0.04 and 0.04 < turn.max() <= 0.05
    numbers = [brightness, spread / brightness, colour / spread, turn, run(gray=1).mean((1, 2, 3)),
               is_changed(run(jitter=0.5, brightness=0.2)), is_changed(run(gray=0.5))]
    correlation = np.corrcoef(numbers) - np.eye(len(numbers))
    assert np.abs(correlation).max() < 5 / np.sqrt(400)  # five standard deviations


@pytest.mark.parametrize('name', ['flip', 'blur', 'jitter', 'gray'])
def test_probabilities_are_probabilities(name):
    clips = random_clips(12, (200, 1, 8, 8, 3))
    off = dict(size=8, crop='none', flip=0, blur=0, jitter=0, gray=0)
    before = A.augment(jax.random.key(0), clips, full_sizes(clips), A.Augmentation(**off))
    after = A.augment(jax.random.key(0), clips, full_sizes(clips), A.Augmentation(**off | {name: 0.3}))
    changed = np.abs(np.asarray(after - before)).max((1, 2, 3, 4)) > 1e-4
    assert 0.15 < changed.mean() < 0.45  # 0.3, with 4.6 standard deviations to each side
    if name == 'blur':  # of any strength, whatever decides on whether: the variance that three weights leave of noise
        left = after.var((1, 2, 3, 4))[changed] / before.var((1, 2, 3, 4))[changed]
        assert left.min() < 0.15 and left.max() > 0.9  # of sigmas of 2 and of 0.1; 0.195 of 0.67


def test_centre_crop_of_stored_frames_is_not_resampled():
    clips = random_clips(13, (2, 2, 128, 171, 3))
    got = centre_crop(clips, full_sizes(clips), A.Augmentation())
    expected = (clips[:, :, 8:120, 29:141] / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(got, expected, atol=1e-5)  # float32


def test_the_side_of_a_centre_crop_is_rounded():
    clips = random_clips(13, (1, 1, 50, 60, 3))  # 0.875 x 50 is 43.75
    got = centre_crop(clips, full_sizes(clips), A.Augmentation(size=44, mean=(0, 0, 0), std=(1, 1, 1)))
    np.testing.assert_allclose(got, clips[:, :, 3:47, 8:52] / 255, atol=1e-5)  # float32


@pytest.mark.parametrize('fields', [
    dict(crop='center'), dict(per_frame=('tint',)), dict(area=(0.5, 0.1)), dict(blur_kernel=4), dict(std=(1, 1, 0)),
    dict(shift=200)])
def test_wrong_fields_are_refused(fields):
    with pytest.raises(UserError, match=f'augment.{next(iter(fields))}'):
        A.Augmentation(**fields)


def test_wrong_clips_are_refused():
    clips = random_clips(14, (1, 2, 8, 9, 3))
    with pytest.raises(ValueError, match='uint8'):
        A.augment(jax.random.key(0), clips.astype(np.float32), full_sizes(clips), A.Augmentation())
    with pytest.raises(ValueError, match='float32 or float64'):
        A.augment(jax.random.key(0), clips, full_sizes(clips), A.Augmentation(), jnp.bfloat16)
    with pytest.raises(UserError, match='8 x 9'):
        A.augment(jax.random.key(0), clips, full_sizes(clips), A.Augmentation(crop='none', size=8))
