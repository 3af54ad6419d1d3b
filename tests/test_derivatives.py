"""Derivatives against Newton's identity and plain numpy."""

import subprocess
import sys
from math import comb

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vididi_jax.derivatives import derivative_stack, taylor_expand, time_derivative


def random_clip(seed, shape, dtype=np.float64):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), order=st.integers(0, 5), axis=st.integers(-4, 3), extra=st.integers(1, 3))
def test_newtons_identity_holds_along_every_axis(seed, order, axis, extra):
    """V[n] = sum_k C(n, k) D^k V[0], to 1e-12 of the largest value: float64 with sums of at most 2^5 terms."""
    shape = [3, 2, 4, 3]
    shape[axis] = order + extra
    clip = random_clip(seed, shape)
    with jax.enable_x64(True):
        first = [np.take(np.asarray(time_derivative(clip, k, axis=axis)), 0, axis=axis) for k in range(order + 1)]
        for n in range(order + 1):
            expected = np.take(clip, n, axis=axis)
            series = sum(comb(n, k) * first[k] for k in range(n + 1))
            assert np.abs(series - expected).max() <= 1e-12 * np.abs(clip).max()
            assert np.abs(np.asarray(taylor_expand(first, n)) - expected).max() <= 1e-12 * np.abs(clip).max()


@pytest.mark.parametrize('order', range(6))
def test_forward_differences_equal_numpys(order):
    clip = random_clip(order, (2, 8, 5, 4, 3))
    with jax.enable_x64(True):
        got = np.asarray(time_derivative(clip, order))
    np.testing.assert_allclose(got, np.diff(clip, n=order, axis=1), rtol=0, atol=1e-13)  # same sums, same order


def test_central_differences():
    clip = random_clip(1, (2, 8, 5, 4, 3))
    with jax.enable_x64(True):
        first, second = (np.asarray(time_derivative(clip, order, method='central')) for order in (1, 2))
    np.testing.assert_allclose(first, (clip[:, 2:] - clip[:, :-2]) / 2, atol=1e-14)
    np.testing.assert_allclose(second, clip[:, 2:] - 2 * clip[:, 1:-1] + clip[:, :-2], atol=1e-14)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize(('order', 'method'), [
    (1, 'forward'), (2, 'forward'), (3, 'forward'), (1, 'central'), (2, 'central')])
def test_a_static_clip_has_a_derivative_of_exactly_zero(dtype, order, method):
    clip = jnp.repeat(jnp.asarray(random_clip(2, (2, 1, 4, 4, 3)), dtype), 8, axis=1)
    got = time_derivative(clip, order, method=method)
    assert got.dtype == dtype
    assert not np.asarray(got, np.float32).any()


def test_works_under_jit_vmap_and_grad():
    clip = jnp.asarray(random_clip(3, (2, 6, 4, 4, 3), np.float32))
    expected = time_derivative(clip, 2)
    np.testing.assert_array_equal(jax.jit(lambda c: time_derivative(c, 2))(clip), expected)
    np.testing.assert_array_equal(jax.vmap(lambda c: time_derivative(c, 2))(clip), expected)
    gradient = jax.grad(lambda c: time_derivative(c).sum())(clip)  # telescopes: last frame minus first
    np.testing.assert_array_equal(gradient[:, 0], -np.ones((2, 4, 4, 3)))
    np.testing.assert_array_equal(gradient[:, -1], np.ones((2, 4, 4, 3)))
    assert not np.asarray(gradient[:, 1:-1]).any()


def test_jit_is_told_what_it_must_not_trace():
    clip = jnp.asarray(random_clip(3, (2, 6, 4, 4, 3), np.float32))
    assert jax.jit(time_derivative, static_argnames='order')(clip, order=2).shape == (2, 4, 4, 4, 3)
    for call, name in ((lambda: jax.jit(time_derivative)(clip, order=2), 'order'),
                       (lambda: jax.jit(taylor_expand)([clip], 2), 'steps')):
        with pytest.raises(TypeError, match=f'^{name} must be known when jax.jit traces .* in its static_argnames'):
            call()


def test_stack_is_cut_to_the_shortest():
    clip = random_clip(4, (7, 2, 2, 3), np.float32)
    stack = derivative_stack(clip, 2)
    assert [d.shape for d in stack] == [(5, 2, 2, 3)] * 3
    assert [d.shape for d in derivative_stack(clip, 1, axis=-1)] == [(7, 2, 2, 2)] * 2
    with pytest.raises(ValueError, match='at least 8 frames'):
        derivative_stack(clip, 7)
    for order, d in enumerate(stack):
        np.testing.assert_array_equal(d, np.diff(clip, n=order, axis=0)[:5])


def test_taylor_extrapolates_polynomials_exactly():
    """A clip quadratic in time is continued exactly by its derivatives up to order 2."""
    t = np.arange(10, dtype=np.float64).reshape(-1, 1, 1, 1)
    clip = 3 + 2 * t + 0.5 * t**2
    with jax.enable_x64(True):
        now = [np.asarray(d)[0] for d in derivative_stack(clip[:3], 2)]
        np.testing.assert_allclose(taylor_expand(now, 9), clip[9], rtol=1e-14)


@pytest.mark.parametrize('dtype', [np.uint8, np.int32, bool])
def test_integers_are_refused_with_the_reason(dtype):
    with pytest.raises(TypeError, match='wrap around'):
        time_derivative(np.zeros((4, 2, 2, 3), dtype))


@pytest.mark.parametrize('method', ['forward', 'central'])
def test_float64_numpy_stays_float64_without_x64(method):
    clip = random_clip(5, (6, 2, 2, 3))
    got = time_derivative(clip, method=method)
    expected = np.diff(clip, axis=0) if method == 'forward' else (clip[2:] - clip[:-2]) / 2
    assert got.dtype == np.float64
    np.testing.assert_allclose(np.asarray(got), expected, rtol=0, atol=1e-15)
    assert taylor_expand([clip[0], clip[1]], 3).dtype == np.float64
    assert jax.jit(lambda clip: time_derivative(clip, method=method))(clip).dtype == np.float32  # as documented


@pytest.mark.parametrize('clip', [[1.0, 2.0, 4.0], 1.0, None])
def test_what_is_no_array_is_refused(clip):
    with pytest.raises(TypeError, match='array'):
        time_derivative(clip, axis=0)


def test_order_zero_is_the_identity():
    clip = random_clip(6, (3, 2, 2, 3), np.float32)
    for method in ('forward', 'central'):
        got = time_derivative(clip, 0, method=method)
        assert isinstance(got, jax.Array)
        np.testing.assert_array_equal(got, clip)
        np.testing.assert_array_equal(time_derivative(clip[:1], 0, method=method), clip[:1])


@pytest.mark.parametrize('dtype', [jnp.float16, jnp.bfloat16, jnp.float32])
def test_taylor_keeps_the_dtype(dtype):
    frames = [jnp.full((2, 2, 3), value, dtype) for value in (1, 2, 3)]
    for steps, expected in enumerate((1, 3, 8, 16)):  # 1 + 2 n + 3 n (n - 1) / 2
        got = taylor_expand(frames, steps)
        assert got.dtype == dtype
        np.testing.assert_array_equal(np.asarray(got, np.float32), expected)


@pytest.mark.parametrize(('arguments', 'message'), [
    (dict(order=4), 'at least 5 frames'), (dict(order=-1), 'order'), (dict(order=1.0), 'order'),
    (dict(order=True), 'order'),
    (dict(order=3, method='central'), 'central'), (dict(method='backward'), 'method'), (dict(axis=4), 'axis'),
])
def test_misuse_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        time_derivative(np.zeros((4, 2, 2, 3), np.float32), **arguments)


def test_taylor_refuses_misuse():
    frame = np.zeros((2, 2, 3), np.float32)
    other = frame.astype(np.float16)
    for derivatives, steps in (([], 1), ([frame, frame[:1]], 1), ([frame, other], 1), ([frame], -1), ([frame], 0.5)):
        with pytest.raises(ValueError):
            taylor_expand(derivatives, steps)
    with pytest.raises(TypeError, match='wrap around'):
        taylor_expand([frame.astype(np.uint8)], 1)


def test_import_is_light():
    code = ("import vididi_jax.derivatives, sys; "
            "assert not {'flax', 'grain', 'orbax', 'tensorflow_datasets'} & set(sys.modules)")
    subprocess.run([sys.executable, '-c', code], check=True)


@pytest.mark.parametrize('dtype', ['bfloat16', 'float32'])
def test_derivatives_serve_programs_that_allow_no_implicit_promotion(dtype):
    clip = jnp.asarray(random_clip(0, (2, 6, 3, 3, 1)), dtype)
    with jax.numpy_rank_promotion('raise'), jax.numpy_dtype_promotion('strict'):
        for order, method in ((0, 'forward'), (2, 'forward'), (1, 'central'), (2, 'central')):
            assert time_derivative(clip, order, method=method).dtype == dtype
        stack = derivative_stack(clip, 2)
        assert taylor_expand([derivative[:, 0] for derivative in stack], 5).dtype == dtype
