"""Saliency and moving pixels against plain numpy, in float64 where differences are taken."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vididi_jax.saliency import MOVES, moving, saliency, share_on


@pytest.fixture
def clips():
    return np.random.default_rng(0).random((3, 4, 2, 5, 3))


def test_saliency_is_input_times_gradient_by_differences(clips):
    """Of tanh of a linear map, with what the features are measured from held where it was."""
    weights = np.random.default_rng(1).normal(size=(clips[0].size, 6)) / 10
    with jax.enable_x64(True):
        encode = lambda x: jnp.tanh(x.reshape(len(x), -1) @ weights)  # noqa: E731
        found = np.asarray(saliency(encode, jnp.asarray(clips)))
    f = np.tanh(clips.reshape(3, -1) @ weights)
    own, step = f - f.mean(0), 1e-6
    for b, t, h, w in ((0, 0, 0, 0), (1, 3, 1, 4), (2, 2, 0, 3)):
        expected = 0
        for c in range(3):
            ends = []
            for sign in (1, -1):
                moved = clips.copy()
                moved[b, t, h, w, c] += sign * step
                ends.append((np.tanh(moved.reshape(3, -1) @ weights) * own).sum())
            expected += clips[b, t, h, w, c] * (ends[0] - ends[1]) / (2 * step)
        assert found[b, t, h, w] == pytest.approx(abs(expected), rel=1e-6)
    assert found.shape == clips.shape[:-1] and (found >= 0).all()


def test_moving_pixels_are_those_that_differ_from_a_neighbouring_frame(clips):
    pixels = np.round(clips * 4) * 0.0505  # steps of 0.0505: some changes are below MOVES, and none is near it
    expected = np.zeros(pixels.shape[:-1], bool)
    for b, t, h, w in np.ndindex(expected.shape):
        for other in (t - 1, t + 1):
            if 0 <= other < pixels.shape[1]:
                expected[b, t, h, w] |= (np.abs(pixels[b, t, h, w] - pixels[b, other, h, w]) > MOVES).any()
    found = np.asarray(moving(jnp.asarray(pixels, jnp.float32)))
    np.testing.assert_array_equal(found, expected)
    assert 0 < found.mean() < 1
    assert not moving(jnp.ones((1, 3, 2, 2, 3))).any()


def test_the_share_of_an_even_saliency_is_that_of_the_mask():
    mask = np.zeros((2, 3, 4, 4), bool)
    mask[0, 1, :2] = mask[1, 0, 0, 0] = True
    share = share_on(jnp.asarray(mask), jnp.ones(mask.shape))
    np.testing.assert_allclose(share, mask.mean((1, 2, 3)), rtol=1e-6)  # float32
    assert share_on(jnp.asarray(mask), jnp.asarray(mask, jnp.float32)).tolist() == [1, 1]
