"""Every formulation of the 3-D convolution against a plain numpy one, values and gradients."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vididi_jax.errors import UserError
from vididi_jax.models.conv3d import IMPLEMENTATIONS, conv3d

KERNELS = [(3, 3, 3), (1, 3, 3), (3, 1, 1), (1, 1, 1), (3, 7, 7), (5, 3, 1)]
STRIDES = [(1, 1, 1), (2, 2, 2), (1, 2, 2), (2, 1, 1)]


def numpy_conv3d(x, w, stride, padding):
    x = np.pad(x, [(0, 0), *[(p, p) for p in padding], (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[:3], axis=(1, 2, 3))
    windows = windows[:, :: stride[0], :: stride[1], :: stride[2]]
    return np.einsum('btijcduv,duvco->btijo', windows, w)


def problem(kernel, channels, frames=5):
    rng = np.random.default_rng(0)
    return rng.normal(size=(2, frames, 8, 7, channels)), rng.normal(size=(*kernel, channels, 4))


@pytest.mark.parametrize('impl', IMPLEMENTATIONS)
@pytest.mark.parametrize(('kernel', 'stride'), itertools.product(KERNELS, STRIDES))
def test_values_equal_numpys(impl, kernel, stride):
    padding = tuple(k // 2 for k in kernel)
    for channels, frames in ((3, 5), (6, 4), (6, 1)):
        x, w = problem(kernel, channels, frames)
        expected = numpy_conv3d(x, w, stride, padding)
        with jax.enable_x64(True):
            np.testing.assert_allclose(conv3d(jnp.asarray(x), jnp.asarray(w), stride, padding, impl), expected, atol=1e-10)


@pytest.mark.parametrize(('kernel', 'stride'), itertools.product(KERNELS, STRIDES))
def test_gradients_are_equal(kernel, stride):
    """The convolution is linear in each argument, so its gradient is fixed by <grad, v> = conv(v) . cotangent, for random v."""
    padding = tuple(k // 2 for k in kernel)
    x, w = problem(kernel, 6)
    rng = np.random.default_rng(1)
    vx, vw = rng.normal(size=x.shape), rng.normal(size=w.shape)
    cotangent = rng.normal(size=numpy_conv3d(x, w, stride, padding).shape)
    along = [(numpy_conv3d(vx, w, stride, padding) * cotangent).sum(), (numpy_conv3d(x, vw, stride, padding) * cotangent).sum()]
    for impl, (dtype, tolerance) in itertools.product(('xla', 'taps'), ((np.float64, 1e-10), (np.float32, 1e-4))):
        with jax.enable_x64(dtype == np.float64):
            gx, gw = jax.grad(lambda x, w: (conv3d(x, w, stride, padding, impl) * cotangent.astype(dtype)).sum(), argnums=(0, 1))(  # noqa: B023
                jnp.asarray(x.astype(dtype)), jnp.asarray(w.astype(dtype)))
        for gradient, v, expected in ((gx, vx, along[0]), (gw, vw, along[1])):
            scale = np.linalg.norm(gradient) * np.linalg.norm(v)
            assert abs((np.asarray(gradient, np.float64) * v).sum() - expected) <= tolerance * scale


def test_an_unknown_formulation_is_refused():
    with pytest.raises(UserError, match='taps'):
        conv3d(jnp.zeros((1, 2, 2, 2, 1)), jnp.zeros((1, 1, 1, 1, 1)), (1, 1, 1), (0, 0, 0), 'cudnn')
