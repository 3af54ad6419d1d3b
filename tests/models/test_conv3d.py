"""Every formulation of the 3-D convolution against a plain numpy one, values and gradients."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vididi_jax.errors import UserError
from vididi_jax.models import winograd
from vididi_jax.models.conv3d import IMPLEMENTATIONS, conv3d

# (kernel, stride): those of the four encoders, and a few that no encoder has
SHAPES = [
    ((3, 3, 3), (1, 1, 1)), ((3, 3, 3), (2, 2, 2)), ((3, 3, 3), (1, 2, 2)), ((1, 3, 3), (1, 2, 2)),
    ((3, 1, 1), (2, 1, 1)), ((1, 1, 1), (2, 2, 2)), ((3, 7, 7), (1, 2, 2)), ((5, 3, 1), (2, 1, 2)),
]


def numpy_conv3d(x, w, stride, padding):
    x = np.pad(x, [(0, 0), *[(p, p) for p in padding], (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[:3], axis=(1, 2, 3))
    windows = windows[:, :: stride[0], :: stride[1], :: stride[2]]
    return np.einsum('btijcduv,duvco->btijo', windows, w, optimize=True)


def problem(kernel, channels, frames=5, outputs=4):
    rng = np.random.default_rng(0)
    return rng.normal(size=(2, frames, 8, 7, channels)), rng.normal(size=(*kernel, channels, outputs))


@pytest.mark.parametrize('impl', IMPLEMENTATIONS)
@pytest.mark.parametrize(('kernel', 'stride'), SHAPES)
def test_values_equal_numpys(impl, kernel, stride):
    padding = tuple(k // 2 for k in kernel)
    for channels, frames, outputs in ((3, 5, 4), (6, 4, 20), (6, 1, 4)):  # few and many channels take different ways
        x, w = problem(kernel, channels, frames, outputs)
        with jax.enable_x64(True):
            y = jax.jit(partial(conv3d, stride=stride, padding=padding, impl=impl))(x, w)
        np.testing.assert_allclose(y, numpy_conv3d(x, w, stride, padding), atol=1e-10)


@pytest.mark.parametrize('impl', ['xla', 'taps', 'winograd'])
@pytest.mark.parametrize(('kernel', 'stride'), SHAPES)
@pytest.mark.parametrize('outputs', [4, 20])
def test_gradients_are_equal(kernel, stride, impl, outputs):
    """The convolution is linear in each argument, so <gradient, v> = <conv(v), cotangent> for every v."""
    padding = tuple(k // 2 for k in kernel)
    x, w = problem(kernel, 6, outputs=outputs)
    rng = np.random.default_rng(1)
    vx, vw = rng.normal(size=x.shape), rng.normal(size=w.shape)
    along_x, along_w = (numpy_conv3d(*pair, stride, padding) for pair in ((vx, w), (x, vw)))
    cotangent = rng.normal(size=along_x.shape)
    for dtype, tolerance in ((np.float64, 1e-10), (np.float32, 1e-4)):
        c = cotangent.astype(dtype)

        def loss(x, w, c=c):
            return (conv3d(x, w, stride, padding, impl) * c).sum()

        with jax.enable_x64(dtype == np.float64):
            gradients = jax.jit(jax.grad(loss, argnums=(0, 1)))(x.astype(dtype), w.astype(dtype))
        for gradient, v, along in zip(gradients, (vx, vw), (along_x, along_w), strict=True):
            scale = np.linalg.norm(gradient) * np.linalg.norm(v)
            assert abs((np.asarray(gradient, np.float64) * v).sum() - (along * cotangent).sum()) <= tolerance * scale


def test_an_unknown_formulation_is_refused():
    with pytest.raises(UserError, match='taps'):
        conv3d(jnp.zeros((1, 2, 2, 2, 1)), jnp.zeros((1, 1, 1, 1, 1)), (1, 1, 1), (0, 0, 0), 'cudnn')


@pytest.mark.parametrize('time_padding', [0, 1, 2])
def test_winograds_filtering_takes_any_time_padding_and_image_size(time_padding):
    rng = np.random.default_rng(0)
    for height, width, taps in ((3, 9, 3), (12, 5, 1), (4, 8, 2)):
        x, w = rng.normal(size=(2, 4, height, width, 5)), rng.normal(size=(taps, 3, 3, 5, 6))
        with jax.enable_x64(True):
            y = winograd.convolve(jnp.asarray(x), jnp.asarray(w), time_padding)
        np.testing.assert_allclose(y, numpy_conv3d(x, w, (1, 1, 1), (time_padding, 1, 1)), atol=1e-10)
