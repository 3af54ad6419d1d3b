"""Every formulation of the 3-D convolution against a plain numpy one, values and gradients."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vididi_jax.errors import UserError
from vididi_jax.models.conv3d import IMPLEMENTATIONS, choose_implementation, conv3d

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


def numpy_gradients(x, w, cotangent, stride, padding):
    """Of `(numpy_conv3d(x, w) * cotangent).sum()` by x and w, tap by tap."""
    padded = np.pad(x, [(0, 0), *[(p, p) for p in padding], (0, 0)])
    dx, dw = np.zeros_like(padded), np.zeros_like(w)
    for tap in np.ndindex(*w.shape[:3]):
        seen = (slice(None), *(slice(t, t + (n - 1) * s + 1, s)
                               for t, n, s in zip(tap, cotangent.shape[1:4], stride, strict=True)))
        dx[seen] += cotangent @ w[tap].T
        dw[tap] = np.tensordot(padded[seen], cotangent, ((0, 1, 2, 3),) * 2)
    inside = (slice(None), *(slice(p, p + n) for p, n in zip(padding, x.shape[1:4], strict=True)))
    return dx[inside], dw


def check(cases, stride, impl, dtype):
    """Value and both gradients of (input, kernel, padding) cases, every element, relative to the largest."""
    rng = np.random.default_rng(0)
    inputs, expected = [], []
    for shape, kernel, padding in cases:
        x, w = rng.normal(size=shape), rng.normal(size=kernel)
        y = numpy_conv3d(x, w, stride, padding)
        cotangent = rng.normal(size=y.shape)
        inputs.append([a.astype(dtype) for a in (x, w, cotangent)])
        expected.append((y, *numpy_gradients(x, w, cotangent, stride, padding)))

    @jax.jit  # of all cases at once: compiling is what takes time here
    def run(inputs):
        found = []
        for (_, _, padding), (x, w, cotangent) in zip(cases, inputs, strict=True):
            y, back = jax.vjp(lambda x, w, padding=padding: conv3d(x, w, stride, padding, impl), x, w)
            found.append((y, *back(cotangent)))
        return found

    with jax.enable_x64(dtype == np.float64):
        found = run(inputs)
    for case, arrays, truth in zip(cases, found, expected, strict=True):
        for what, a, b in zip(('value', 'gradient by x', 'gradient by w'), arrays, truth, strict=True):
            assert a.dtype == dtype
            tolerance = (1e-10 if dtype == np.float64 else 1e-4) * np.abs(b).max()
            np.testing.assert_allclose(a, b, rtol=0, atol=tolerance, err_msg=f'{what} of {case}')


@pytest.mark.parametrize('impl', ['xla', 'taps'])
@pytest.mark.parametrize(('kernel', 'stride'), SHAPES)
@pytest.mark.parametrize('dtype', [np.float64, np.float32])
def test_values_and_gradients_equal_numpys(impl, kernel, stride, dtype):
    """Few and many channels take different ways, and so do single frames and the padding of the encoders."""
    half = tuple(k // 2 for k in kernel)
    cases = [(half, 5, 6, 20), ((2, 2, 2), 6, 6, 20), ((1, 2, 0), 5, 6, 4)]  # padding, frames, channels, outputs
    if dtype == np.float64:
        cases += [(half, 5, 3, 4), (half, 1, 6, 4), ((0, 0, 0), 5, 6, 4), ((0, 0, 0), 6, 6, 20), ((2, 2, 2), 5, 6, 4),
                  ((1, 2, 0), 6, 6, 20)]
    check([((2, frames, 8, 7, channels), (*kernel, channels, outputs), padding)
           for padding, frames, channels, outputs in cases], stride, impl, dtype)


@pytest.mark.parametrize('dtype', [np.float64, np.float32])
@pytest.mark.parametrize('stride', [(1, 1, 1), (2, 2, 2), (1, 3, 1)])
def test_frames_that_are_no_larger_than_the_kernel(stride, dtype):
    """Their convolution is one matrix product; padding from none to more than the kernel's half."""
    cases = [((2, 3, height, width, 6), (3, *kernel, 6, 20), (1, *padding)) for height, width, kernel, padding in (
        (2, 2, (3, 3), (1, 1)), (3, 3, (3, 3), (1, 1)), (1, 2, (3, 3), (1, 1)), (3, 3, (3, 3), (0, 0)),
        (1, 5, (5, 3), (3, 2)), (4, 3, (7, 7), (3, 3)), (2, 1, (1, 3), (0, 2)))]
    check(cases, stride, 'taps', dtype)


@pytest.mark.parametrize('dtype', [np.float64, np.float32])
@pytest.mark.parametrize(('taps', 'height', 'width'), [(3, 3, 9), (1, 12, 5), (2, 4, 8)])
def test_winograds_filtering_takes_any_time_padding_and_image_size(taps, height, width, dtype):
    """Also more padding in time than the kernel has taps besides its first, and a single frame."""
    cases = [((2, frames, height, width, 5), (taps, 3, 3, 5, 6), (padding, 1, 1))
             for frames, padding in ((4, 0), (1, 1), (4, 2))]
    check(cases, (1, 1, 1), 'winograd', dtype)


@pytest.mark.parametrize(('impl', 'error'), [('xla', 4e-3), ('taps', 4e-3), ('winograd', 1.6e-2)])
def test_the_error_of_bfloat16(impl, error):
    """Of values and gradients, relative and root mean square; Winograd's would be 2.5e-2 with transforms as coarse."""
    rng = np.random.default_rng(0)
    x, w, cotangent = (jnp.asarray(rng.normal(size=size), jnp.bfloat16)
                       for size in ((1, 3, 8, 8, 16), (3, 3, 3, 16, 16), (1, 3, 8, 8, 16)))

    @jax.jit
    def run(x, w, cotangent):
        y, back = jax.vjp(partial(conv3d, stride=(1, 1, 1), padding=(1, 1, 1), impl=impl), x, w)
        return y, *back(cotangent)

    exact = [np.asarray(a, np.float64) for a in (x, w, cotangent)]
    expected = (numpy_conv3d(*exact[:2], (1, 1, 1), (1, 1, 1)), *numpy_gradients(*exact, (1, 1, 1), (1, 1, 1)))
    for a, b in zip(run(x, w, cotangent), expected, strict=True):
        assert a.dtype == jnp.bfloat16
        assert np.linalg.norm(np.asarray(a, np.float64) - b) <= error * np.linalg.norm(b)


def test_an_unknown_formulation_is_refused():
    with pytest.raises(UserError, match='taps'):
        conv3d(jnp.zeros((1, 2, 2, 2, 1)), jnp.zeros((1, 1, 1, 1, 1)), (1, 1, 1), (0, 0, 0), 'cudnn')


@pytest.mark.parametrize('platform', ['gpu', 'tpu'])
def test_what_is_for_cpus_is_refused_elsewhere(platform):
    assert {choose_implementation(impl, platform) for impl in ('auto', 'xla')} == {'xla'}
    for impl in ('taps', 'winograd', 'by_layer'):
        assert choose_implementation(impl, 'cpu') == impl
        with pytest.raises(UserError, match=f'{impl}.*for CPUs.*{platform}'):
            choose_implementation(impl, platform)


@pytest.mark.parametrize('impl', ['xla', 'taps', 'winograd'])
def test_output_frames_that_see_padding_alone_are_zero(impl):
    x, w = jnp.ones((2, 1, 3, 4, 5)), jnp.ones((1, 1, 1, 5, 6))
    y, back = jax.vjp(lambda x, w: conv3d(x, w, (2, 1, 1), (1, 0, 0), impl), x, w)
    assert y.shape == (2, 2, 3, 4, 6) and y.dtype == x.dtype
    assert not y.any()
    assert not any(gradient.any() for gradient in back(jnp.ones(y.shape)))


@pytest.mark.parametrize('impl', IMPLEMENTATIONS)
@pytest.mark.parametrize('shape', [(1, 2, 8, 8, 1), (1, 3, 2, 8, 1), (1, 3, 8, 2, 1)])
def test_a_kernel_larger_than_the_clip_is_refused(impl, shape):
    with pytest.raises(UserError, match='3 x 3 x 3 does not fit'):
        conv3d(jnp.zeros(shape), jnp.zeros((3, 3, 3, 1, 1)), (1, 1, 1), (0, 0, 0), impl)


def test_the_automatic_choice_on_a_cpu_is_winograds_filtering_for_layers_of_many_pixels():
    for frames, dtype, stride, named in (
            (4, jnp.float32, 1, 'winograd'), (1, jnp.float32, 1, 'taps'), (4, jnp.bfloat16, 1, 'taps'),
            (4, jnp.float32, 2, 'taps')):
        x, w = jnp.zeros((1, frames, 32, 32, 32), dtype), jnp.zeros((1, 3, 3, 32, 32), dtype)
        program = {impl: str(jax.make_jaxpr(partial(
            conv3d, stride=(1, stride, stride), padding=(0, 1, 1), impl=impl))(x, w)) for impl in IMPLEMENTATIONS}
        assert program['auto'] == program['by_layer'] == program[named]
        assert program['auto'] != program['taps' if named == 'winograd' else 'xla']
