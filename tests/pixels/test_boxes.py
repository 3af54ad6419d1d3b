"""Boxes move with the pixels: a white rectangle on black is found again where its box went."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vididi_jax.errors import UserError
from vididi_jax.pixels.augment import Augmentation, augment
from vididi_jax.pixels.boxes import augment_with_boxes, whole_frames

PLAIN = dict(blur=0.0, jitter=0.0, gray=0.0, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def painted(rng, sizes, canvas):
    """Clips (B, 1, H, W, 3) of a rectangle each, and its box in pixels (B, 4); noise beyond the frames."""
    clips = rng.integers(0, 256, (len(sizes), 1, *canvas, 3), dtype=np.uint8)
    boxes = np.zeros((len(sizes), 4), int)
    for clip, (height, width), box in zip(clips, sizes, boxes, strict=True):
        x1, y1 = rng.integers(0, width - 12), rng.integers(0, height - 12)
        box[:] = x1, y1, x1 + rng.integers(8, 13), y1 + rng.integers(8, 13)
        clip[:, :height, :width] = 0
        clip[:, box[1] : box[3], box[0] : box[2]] = 255
    return clips, boxes


def shares(boxes, sizes):
    return (boxes / np.tile(sizes[:, ::-1], 2))[:, None].astype(np.float32)


def edges(frame):
    """x1, y1, x2, y2 of what is brighter than half, in pixels."""
    rows, columns = (np.flatnonzero((frame[..., 0] > 0.5).any(axis)) for axis in (1, 0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


@pytest.mark.parametrize('spec', [
    Augmentation(size=48, area=(0.3, 1.0), flip=0.5, **PLAIN), Augmentation(size=48, crop='none', flip=0.5, **PLAIN)])
def test_augmentation_moves_boxes_with_the_pixels(spec):
    rng = np.random.default_rng(0)
    sizes = np.full((32, 2), 48) if spec.crop == 'none' else rng.integers(30, 49, (32, 2))
    clips, boxes = painted(rng, sizes, (48, 48))
    mask = np.arange(32)[:, None] > 0
    key, given = jax.random.key(1), (jnp.asarray(clips), jnp.asarray(sizes))
    pixels, moved, seen = jax.device_get(augment_with_boxes(key, *given, shares(boxes, sizes), mask, spec))
    np.testing.assert_array_equal(pixels, augment(key, *given, spec))
    assert not seen[0].any()  # a box that is not there does not come into being
    assert moved.min() >= 0 and moved.max() <= 1
    assert seen.sum() == 31 if spec.crop == 'none' else 15 < seen.sum() < 31
    for frame, box in zip(pixels[seen[:, 0], 0], moved[seen[:, 0], 0], strict=True):
        # Half of an edge's light is where the edge is: within a pixel, and a source pixel enlarged is up to three.
        np.testing.assert_allclose(edges(frame), 48 * box, atol=1.6)


def test_a_box_whose_centre_left_the_crop_is_gone_and_others_are_cut():
    spec = Augmentation(size=32, area=(0.25, 0.25), aspect=(1.0, 1.0), flip=0.0, **PLAIN)  # a quarter of the frame
    boxes = np.array([[0.0, 0.0, 0.4, 0.4], [0.0, 0.0, 1.0, 1.0], [0.45, 0.45, 0.55, 0.55], [0.6, 0.6, 1.0, 1.0]])
    given = np.broadcast_to(boxes, (64, 4, 4)).astype(np.float32)
    clips, sizes = jnp.zeros((64, 1, 32, 32, 3), jnp.uint8), jnp.full((64, 2), 32)
    _, moved, seen = jax.device_get(augment_with_boxes(jax.random.key(0), clips, sizes, given, np.ones((64, 4), bool),
                                                       spec))
    assert seen[:, 1:3].all()  # such a crop holds the middle of the frame
    assert seen.any(0).all() and not seen[:, (0, 3)].all(0).any() and not (seen[:, 0] & seen[:, 3]).any()
    np.testing.assert_array_equal(moved[:, 1], np.broadcast_to([0, 0, 1, 1], (64, 4)))  # it covers every crop
    sides = moved[..., 2:] - moved[..., :2]
    assert (sides[seen] >= 0.1 - 1e-6).all()  # half of 0.1 of the frame, twice enlarged


@pytest.mark.parametrize('size', [24, 48, 96])
def test_evaluation_shows_whole_frames_and_maps_every_box(size):
    rng = np.random.default_rng(1)
    sizes = np.array([[48, 48], [48, 30], [25, 48], [20, 20], [41, 37]])
    clips, boxes = painted(rng, sizes, (48, 48))
    spec = Augmentation(size=size, **PLAIN | {'mean': (0.5, 0.5, 0.5)})
    pixels, moved = jax.device_get(whole_frames(jnp.asarray(clips), jnp.asarray(sizes), shares(boxes, sizes), spec))
    for frame, box, (height, width) in zip(pixels[:, 0], moved[:, 0], sizes, strict=True):
        scale = size / max(height, width)
        np.testing.assert_allclose(edges(frame + 0.5), size * box, atol=0.5 + 0.5 * scale)
        inside = np.zeros((size, size), bool)
        inside[: round(height * scale), : round(width * scale)] = True
        assert not frame[~inside].any()  # 0 after normalisation
        assert (np.abs(np.abs(frame[inside]) - 0.5) < 1e-5).mean() > 0.6  # black or white, but for blurred edges


def test_frames_of_the_views_size_are_not_resampled():
    clips = jnp.asarray(np.random.default_rng(2).integers(0, 256, (1, 2, 16, 16, 3)), jnp.uint8)
    boxes = jnp.array([[[-0.1, 0.2, 0.5, 1.1]]])  # a detector's may reach beyond the frame
    pixels, moved = whole_frames(clips, jnp.full((1, 2), 16), boxes, Augmentation(size=16, **PLAIN))
    np.testing.assert_allclose(pixels, clips / 255, atol=1e-6)
    np.testing.assert_array_equal(moved, boxes)


@pytest.mark.parametrize(('fields', 'message'), [
    (dict(shift=2), 'augment.shift is 2'), (dict(frame_consistent=False, per_frame=('flip',)), 'augment.per_frame')])
def test_what_tears_boxes_off_their_pixels_is_refused(fields, message):
    spec = Augmentation(size=16, crop='none', **PLAIN | fields)
    with pytest.raises(UserError, match=message):
        augment_with_boxes(jax.random.key(0), jnp.zeros((1, 1, 16, 16, 3), jnp.uint8), jnp.full((1, 2), 16),
                           jnp.zeros((1, 1, 4)), jnp.ones((1, 1), bool), spec)
