"""Augmentation against Pillow, colorsys and plain numpy (torchvision's documented formulas)."""

import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from vididi_jax import augment as A
from vididi_jax.derivatives import time_derivative
from vididi_jax.errors import UserError

GRAY = np.array([0.2989, 0.587, 0.114])


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
    got = A.resized_crop(jnp.asarray(source), top, left, height, width, 16)
    for channel in range(3):
        cut = source[top : top + height, left : left + width, channel]
        expected = Image.fromarray(cut, mode='F').resize((16, 16), Image.Resampling.BILINEAR)
        np.testing.assert_allclose(got[..., channel], expected, atol=2e-3)  # of 255, float32 weights on both sides


def test_resized_crop_at_the_same_size_is_the_crop():
    source = random_clips(2, (40, 53, 3)).astype(np.float32)
    got = A.resized_crop(jnp.asarray(source), 4, 9, 16, 16, 16)
    np.testing.assert_allclose(got, source[4:20, 9:25], atol=1e-4)
    flipped = A.resized_crop(jnp.asarray(source), 4, 9, 16, 16, 16, flip=True)
    np.testing.assert_allclose(flipped, source[4:20, 9:25][:, ::-1], atol=1e-4)


@pytest.mark.parametrize('factor', [0.0, 0.8, 1.0, 1.2])
def test_brightness_contrast_saturation(factor):
    x = image()
    luminance = x @ GRAY
    expected = {
        A.adjust_brightness: factor * x,
        A.adjust_contrast: factor * x + (1 - factor) * luminance.mean(),
        A.adjust_saturation: factor * x + (1 - factor) * luminance[..., None],
    }
    with jax.enable_x64(True):
        for function, value in expected.items():
            np.testing.assert_allclose(function(jnp.asarray(x), factor), np.clip(value, 0, 1), atol=1e-12)


@pytest.mark.parametrize('shift', [-0.5, -0.05, 0.0, 0.03, 0.4])
def test_hue_equals_colorsys(shift):
    x = image(3)
    x[0, 0] = 0.4  # gray pixels have no hue
    expected = np.empty_like(x)
    for index in np.ndindex(*x.shape[:2]):
        h, s, v = colorsys.rgb_to_hsv(*x[index])
        expected[index] = colorsys.hsv_to_rgb((h + shift) % 1, s, v)
    with jax.enable_x64(True):
        np.testing.assert_allclose(A.adjust_hue(jnp.asarray(x), shift), expected, atol=1e-12)


@pytest.mark.parametrize('sigma', [0.1, 0.7, 2.0])
def test_blur_is_a_reflected_gaussian(sigma):
    x = image(4)
    kernel = np.exp(-0.5 * (np.arange(-1, 2) / sigma) ** 2)
    kernel = np.outer(kernel, kernel) / kernel.sum() ** 2
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)), mode='reflect')
    expected = sum(kernel[i, j] * padded[i : i + 9, j : j + 11] for i in range(3) for j in range(3))
    with jax.enable_x64(True):
        np.testing.assert_allclose(A.gaussian_blur(jnp.asarray(x), sigma), expected, atol=1e-12)


def test_gray():
    x = image(5)
    with jax.enable_x64(True):
        np.testing.assert_allclose(A.to_gray(jnp.asarray(x)), np.repeat((x @ GRAY)[..., None], 3, -1), atol=1e-12)
        np.testing.assert_array_equal(A.to_gray(jnp.asarray(x), 1), np.repeat(x[..., 1:2], 3, -1))


def test_random_boxes_lie_inside_and_have_the_area_and_aspect():
    keys = jax.random.split(jax.random.key(0), 500)
    top, left, h, w = (np.asarray(x) for x in jax.vmap(lambda k: A.random_box(k, 128, 171, (0.08, 1.0), (3 / 4, 4 / 3)))(keys))
    assert (top >= 0).all() and (left >= 0).all() and (top + h <= 128).all() and (left + w <= 171).all()
    area, aspect = h * w / (128 * 171), w / h
    assert 0.07 < area.min() and area.max() <= 1  # whole pixels move the smallest boxes a little
    assert 0.70 < aspect.min() and aspect.max() < 1.40
    assert 0.40 < area.mean() < 0.55  # uniform in 0.08-1 is 0.54; large boxes of extreme aspect do not fit


def test_a_box_that_never_fits_falls_back_to_the_centre():
    """Of a 10 x 100 frame no box of the whole area has an aspect up to 4/3: the largest centred one is taken."""
    box = A.random_box(jax.random.key(0), 10, 100, (1.0, 1.0), (3 / 4, 4 / 3))
    assert [int(x) for x in box] == [0, 43, 10, 13]


def test_static_clips_have_no_derivative():
    """Exactly none on the concrete clip; the default augmentation is the same for all frames."""
    clips = np.repeat(random_clips(6, (8, 1, 40, 53, 3)), 5, axis=1)
    spec = A.Augmentation(size=32)
    normalised = A.augment(jax.random.key(1), clips, full_sizes(clips), spec)
    assert normalised.shape == (8, 5, 32, 32, 3)
    assert not np.asarray(time_derivative(normalised)).any()
    fused = jax.jit(lambda key: time_derivative(A.augment(key, clips, full_sizes(clips), spec)))(jax.random.key(1))
    assert np.abs(fused).max() <= 1e-6


def test_per_frame_colour_breaks_that():
    clips = np.repeat(random_clips(6, (4, 1, 40, 53, 3)), 5, axis=1)
    spec = A.Augmentation(size=32, frame_consistent=False, jitter=1.0)
    normalised = A.augment(jax.random.key(1), clips, full_sizes(clips), spec)
    assert np.abs(time_derivative(normalised)).max() > 0.01


@pytest.mark.parametrize('function', ['augment', 'centre_crop'])
def test_padding_never_reaches_the_output(function):
    clips = random_clips(7, (6, 2, 30, 40, 3))
    sizes = np.array([[30, 40], [20, 40], [30, 24], [18, 18], [25, 31], [30, 40]], np.int32)
    outputs = []
    for filler in (0, 255):
        padded = clips.copy()
        for clip, (height, width) in zip(padded, sizes, strict=True):
            clip[:, height:], clip[:, :, width:] = filler, filler
        spec = A.Augmentation(size=16)
        key = (jax.random.key(2),) if function == 'augment' else ()
        outputs.append(np.asarray(getattr(A, function)(*key, padded, sizes, spec)))
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
    shifted = np.asarray(A.augment(jax.random.key(0), clips, full_sizes(clips), A.Augmentation(flip=0, shift=3, **plain)))
    found = set()
    for got, clip in zip(shifted, clips / 255, strict=True):
        matches = [(dy, dx) for dy in range(-3, 4) for dx in range(-3, 4)
                   if np.allclose(got, np.roll(clip, (dy, dx), (1, 2)), atol=1e-6)]
        assert len(matches) == 1
        found.add(matches[0])
    assert len(found) > 8


def test_gain_and_tint_scale_channels():
    clips = random_clips(11, (32, 2, 8, 8, 3))
    spec = A.Augmentation(size=8, crop='none', flip=0, blur=0, jitter=0, gray=0, mean=(0, 0, 0), std=(1, 1, 1),
                          gain=(0.5, 1.5), tint=(0.9, 1.1))
    ratio = np.asarray(A.augment(jax.random.key(0), clips, full_sizes(clips), spec)).sum((1, 2, 3)) / (clips / 255).sum((1, 2, 3))
    assert 0.45 <= ratio.min() < 0.8 and 1.2 < ratio.max() <= 1.65
    assert 0 < np.ptp(ratio / ratio.mean(1, keepdims=True), axis=1).max() < 0.25


@pytest.mark.parametrize('name', ['flip', 'blur', 'jitter', 'gray'])
def test_probabilities_are_probabilities(name):
    clips = random_clips(12, (200, 1, 8, 8, 3))
    off = dict(size=8, crop='none', flip=0, blur=0, jitter=0, gray=0)
    before = A.augment(jax.random.key(0), clips, full_sizes(clips), A.Augmentation(**off))
    after = A.augment(jax.random.key(0), clips, full_sizes(clips), A.Augmentation(**off | {name: 0.3}))
    changed = np.abs(np.asarray(after - before)).max((1, 2, 3, 4)) > 1e-4
    assert 0.15 < changed.mean() < 0.45  # 0.3, with 4.6 standard deviations to each side


def test_centre_crop_of_stored_frames_is_not_resampled():
    clips = random_clips(13, (2, 2, 128, 171, 3))
    got = A.centre_crop(clips, full_sizes(clips), A.Augmentation())
    expected = (clips[:, :, 8:120, 29:141] / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(got, expected, atol=1e-5)  # float32


@pytest.mark.parametrize('fields', [dict(crop='center'), dict(gray_mode='red'), dict(flip=1.5), dict(gray=-0.1)])
def test_wrong_fields_are_refused(fields):
    with pytest.raises(UserError, match=f'augment.{next(iter(fields))}'):
        A.Augmentation(**fields)


def test_wrong_clips_are_refused():
    clips = random_clips(14, (1, 2, 8, 9, 3))
    with pytest.raises(ValueError, match='uint8'):
        A.augment(jax.random.key(0), clips.astype(np.float32), full_sizes(clips), A.Augmentation())
    with pytest.raises(UserError, match='8 x 9'):
        A.augment(jax.random.key(0), clips, full_sizes(clips), A.Augmentation(crop='none', size=8))
