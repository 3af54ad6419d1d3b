"""Every formulation of the 3-D convolution against a plain numpy one, values and gradients."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vididi_jax.errors import UserError
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


def problem(kernel, channels, frames=5):
    rng = np.random.default_rng(0)
    return rng.normal(size=(2, frames, 8, 7, channels)), rng.normal(size=(*kernel, channels, 4))


@pytest.mark.parametrize('impl', IMPLEMENTATIONS)
@pytest.mark.parametrize(('kernel', 'stride'), SHAPES)
def test_values_equal_numpys(impl, kernel, stride):
    padding = tuple(k // 2 for k in kernel)
    for channels, frames in ((3, 5), (6, 4), (6, 1)):
        x, w = problem(kernel, channels, frames)
        with jax.enable_x64(True):
            y = jax.jit(partial(conv3d, stride=stride, padding=padding, impl=impl))(x, w)
        np.testing.assert_allclose(y, numpy_conv3d(x, w, stride, padding), atol=1e-10)


@pytest.mark.parametrize('impl', ['xla', 'taps'])
@pytest.mark.parametrize(('kernel', 'stride'), SHAPES)
def test_gradients_are_equal(kernel, stride, impl):
    """The convolution is linear in each argument, so <gradient, v> = <conv(v), cotangent> for every v."""
    padding = tuple(k // 2 for k in kernel)
    x, w = problem(kernel, 6)
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
