"""Temporal derivatives of video clips by finite differences, and the Taylor series that they make.

Imports nothing but JAX and numpy: copy this file, or `from vididi_jax.derivatives import time_derivative`.

Reference: Chen et al., "Enhancing Video Representation Learning with Temporal Differentiation", CPAL 2025, section 3.
"""

import operator
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from math import comb

import jax
import jax.numpy as jnp
import numpy as np

METHODS = ('forward', 'central')


def time_derivative(clip: jax.Array, order: int = 1, *, axis: int = -4, method: str = 'forward') -> jax.Array:
    """Finite difference of a clip over time, per frame step, without rescaling.

    'forward': `D V[n] = V[n+1] - V[n]`, and order k by repetition: `D^k V[n] = sum_j (-1)^(k-j) C(k, j) V[n+j]`.
    'central': `(V[n+1] - V[n-1]) / 2` for order 1, `V[n+1] - 2 V[n] + V[n-1]` for order 2; both have T - 2 frames.

    A clip that does not move has a derivative of exactly zero.

    Args:
      clip: (..., T, H, W, C), floating point, a JAX or numpy array. float64 stays float64, with and without
        `jax_enable_x64`; an array that enters a `jax.jit` of yours without it is float32 by the time it gets here.
      order: 0 is the identity; 1 velocity; 2 acceleration; any order with 'forward'.
      axis: of time.
      method: 'forward' or 'central'.

    Returns:
      (..., T - order, H, W, C) for 'forward'; (..., T - 2, H, W, C) for orders 1 and 2 of 'central'; dtype of `clip`.

    Raises:
      TypeError: not an array, or not of floating point: differences of integers would wrap around; or an `order` that
        is traced, as by `jax.jit(time_derivative)(clip, 2)` without `static_argnames='order'`.
      ValueError: too few frames, an unknown method, an order that 'central' does not have.

    Example:
      >>> import numpy as np
      >>> clip = np.array([0., 1., 4., 9., 16.], np.float32).reshape(5, 1, 1, 1)
      >>> time_derivative(clip).ravel()
      Array([1., 3., 5., 7.], dtype=float32)
      >>> time_derivative(clip, 2).ravel()
      Array([2., 2., 2.], dtype=float32)

    Reference: Chen et al., CPAL 2025, section 3 (forward differences).
    """
    _check_floating(clip)
    order, axis = _natural(order, 'order'), operator.index(axis)
    if method not in METHODS:
        raise ValueError(f'method must be one of {METHODS}, not {method!r}.')
    if method == 'central' and order > 2:
        raise ValueError(f"method 'central' has orders 0, 1 and 2, not {order}: use 'forward'.")
    if not -clip.ndim <= axis < clip.ndim:
        raise ValueError(f'axis {axis} does not exist in a clip of shape {clip.shape}.')
    lost = 2 if method == 'central' and order else order
    if clip.shape[axis] <= lost:
        raise ValueError(
            f'order {order} ({method}) needs at least {lost + 1} frames; the clip of shape {clip.shape} has '
            f'{clip.shape[axis]} on axis {axis}.'
        )
    with _keeping(clip.dtype):
        return _differentiate(clip, order=order, axis=axis, method=method)


@partial(jax.jit, static_argnames=('order', 'axis', 'method'))
def _differentiate(clip: jax.Array, *, order: int, axis: int, method: str) -> jax.Array:
    if method == 'forward' or order == 0:
        return jnp.diff(clip, n=order, axis=axis)
    frames = clip.shape[axis]
    before, here, after = (jax.lax.slice_in_dim(clip, n, frames - 2 + n, axis=axis) for n in range(3))
    return (after - before) / 2 if order == 1 else (after - here) - (here - before)


def derivative_stack(clip: jax.Array, max_order: int, *, axis: int = -4) -> tuple[jax.Array, ...]:
    """Forward differences of order 0 to `max_order`, all cut to their first T - `max_order` frames.

    `result[k][n] = D^k V[n]`, as in `time_derivative`, for n < T - max_order.

    Args:
      clip: (..., T, H, W, C), floating point, a JAX or numpy array.
      max_order: highest order.
      axis: of time.

    Returns:
      Tuple of `max_order + 1` arrays (..., T - max_order, H, W, C), dtype of `clip`.

    Raises:
      TypeError, ValueError: as `time_derivative`.

    Example:
      >>> import numpy as np
      >>> clip = np.arange(5, dtype=np.float32).reshape(5, 1, 1, 1) ** 2
      >>> [d.ravel().tolist() for d in derivative_stack(clip, 2)]
      [[0.0, 1.0, 4.0], [1.0, 3.0, 5.0], [2.0, 2.0, 2.0]]

    Reference: Chen et al., CPAL 2025, section 3.
    """
    highest = time_derivative(clip, max_order, axis=axis)
    length = highest.shape[axis]
    lower = (time_derivative(clip, order, axis=axis) for order in range(max_order))
    return (*(jax.lax.slice_in_dim(d, 0, length, axis=axis) for d in lower), highest)


def taylor_expand(derivatives: Sequence[jax.Array], steps: int) -> jax.Array:
    """A frame from the derivatives at frame 0: the discrete Taylor (Newton) series.

    `V[steps] = sum_k C(steps, k) D^k V[0]`, with forward differences `D^k`. Exact where there are more derivatives
    than `steps`; with fewer it extrapolates as if all higher derivatives were zero: one derivative repeats the frame,
    two continue at constant velocity, three at constant acceleration.

    Args:
      derivatives: `[V[0], D V[0], D^2 V[0], ...]`, one frame each, floating point, all of one shape and dtype.
      steps: frames ahead, at least 0.

    Returns:
      The frame, shape and dtype of the derivatives.

    Raises:
      TypeError: not arrays, or not of floating point.
      ValueError: no derivatives, different shapes or dtypes, negative `steps`.

    Example:
      From the first three frames of an accelerating clip, frame 5 (counted from 0), which was not seen:

      >>> import numpy as np
      >>> clip = np.arange(6, dtype=np.float32).reshape(6, 1, 1, 1) ** 2
      >>> now = [d[0] for d in derivative_stack(clip[:3], 2)]
      >>> float(taylor_expand(now, 5)[0, 0, 0])
      25.0

    Reference: Chen et al., CPAL 2025, section 3; Newton's forward difference formula.
    """
    steps = _natural(steps, 'steps')
    for derivative in derivatives:
        _check_floating(derivative)
    kinds = {(d.shape, str(d.dtype)) for d in derivatives}
    if len(kinds) != 1:
        raise ValueError(f'derivatives must hold V[0] and have one shape and dtype, not {sorted(kinds)}.')
    with _keeping(derivatives[0].dtype):
        # C(steps, k) is zero beyond k = steps.
        return sum((float(comb(steps, k)) * d for k, d in enumerate(derivatives[: steps + 1])),
                   start=jnp.zeros_like(derivatives[0]))


def _check_floating(clip) -> None:
    if not isinstance(clip, np.ndarray | jax.Array):
        raise TypeError(f'a clip must be a numpy or JAX array, not {type(clip).__name__}.')
    if not jnp.issubdtype(clip.dtype, jnp.floating):
        raise TypeError(
            f'a clip must be of floating point, not {clip.dtype}: convert it first, because differences of integers '
            'such as uint8 wrap around instead of becoming negative.'
        )


def _natural(value, name: str) -> int:
    """`value` as an int of at least 0."""
    if isinstance(value, jax.core.Tracer):
        raise TypeError(f'{name} must be known when jax.jit traces a function: name it in its static_argnames.')
    if isinstance(value, bool) or not hasattr(value, '__index__') or value < 0:
        raise ValueError(f'{name} must be an integer of at least 0, not {value!r}.')
    return operator.index(value)


def _keeping(dtype) -> AbstractContextManager:
    """Where float64 input stays float64; JAX's default would cast it to float32."""
    return jax.enable_x64(True) if dtype == np.float64 else nullcontext()
