"""Temporal derivatives of video clips by finite differences, and the Taylor series that they make.

Imports nothing but JAX and numpy: copy this file, or `from vididi_jax.derivatives import time_derivative`.

Reference: Chen et al., "Enhancing Video Representation Learning with Temporal Differentiation", CPAL 2025, section 3.
"""

from collections.abc import Sequence
from functools import partial
from math import comb

import jax
import jax.numpy as jnp
import numpy as np

METHODS = ('forward', 'central')


def _check(clip, order: int, axis: int) -> None:
    if not hasattr(clip, 'dtype') or not hasattr(clip, 'shape'):
        raise TypeError(f'clip must be a numpy or JAX array, not {type(clip).__name__}.')
    if not jnp.issubdtype(clip.dtype, jnp.inexact):
        raise TypeError(
            f'clip has dtype {clip.dtype}: convert it to float first, because differences of integers such as uint8 '
            'wrap around instead of becoming negative.'
        )
    if isinstance(clip, np.ndarray) and jax.dtypes.canonicalize_dtype(clip.dtype) != clip.dtype:
        raise TypeError(f'clip has dtype {clip.dtype}, which JAX would cast to '
                        f'{jax.dtypes.canonicalize_dtype(clip.dtype)}: cast it yourself, or enable jax_enable_x64.')
    if not isinstance(order, int) or isinstance(order, bool) or order < 0:
        raise ValueError(f'order must be an integer of at least 0, not {order!r}.')
    if not -clip.ndim <= axis < clip.ndim:
        raise ValueError(f'axis {axis} does not exist in a clip of shape {clip.shape}.')


def time_derivative(clip: jax.Array, order: int = 1, *, axis: int = -4, method: str = 'forward') -> jax.Array:
    """Finite difference of a clip over time, per frame step, without rescaling.

    'forward': `D V[n] = V[n+1] - V[n]`, and order k by repetition: `D^k V[n] = sum_j (-1)^(k-j) C(k, j) V[n+j]`.
    'central': `(V[n+1] - V[n-1]) / 2` for order 1, `V[n+1] - 2 V[n] + V[n-1]` for order 2; both have T - 2 frames.

    A clip that does not move has a derivative of exactly zero.

    Args:
      clip: (..., T, H, W, C), floating point, any dtype.
      order: 0 is the identity; 1 velocity; 2 acceleration; any order with 'forward'.
      axis: of time.
      method: 'forward' or 'central'.

    Returns:
      (..., T - order, H, W, C) for 'forward', (..., T - 2, H, W, C) for 'central', dtype of `clip`.

    Raises:
      TypeError: integer clips (their differences would wrap around), or float64 numpy input without x64.
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
    _check(clip, order, axis)
    if method not in METHODS:
        raise ValueError(f'method must be one of {METHODS}, not {method!r}.')
    if method == 'central' and order > 2:
        raise ValueError(f"method 'central' has orders 0, 1 and 2, not {order}: use 'forward'.")
    lost = 2 if method == 'central' and order else order
    if clip.shape[axis] <= lost:
        raise ValueError(f'order {order} ({method}) needs at least {lost + 1} frames; the clip of shape {clip.shape} '
                         f'has {clip.shape[axis]} on axis {axis}.')
    return _time_derivative(clip, order=order, axis=axis, method=method)


@partial(jax.jit, static_argnames=('order', 'axis', 'method'))
def _time_derivative(clip: jax.Array, *, order: int, axis: int, method: str) -> jax.Array:
    frames = clip.shape[axis]
    cut = partial(jax.lax.slice_in_dim, clip, axis=axis)
    if method == 'central' and order == 1:
        return (cut(2, frames) - cut(0, frames - 2)) / 2
    if method == 'central' and order == 2:
        # As a difference of differences: what does not move becomes exactly zero, also in low precision.
        return (cut(2, frames) - cut(1, frames - 1)) - (cut(1, frames - 1) - cut(0, frames - 2))
    return jnp.diff(clip, n=order, axis=axis)


def derivative_stack(clip: jax.Array, max_order: int, *, axis: int = -4) -> tuple[jax.Array, ...]:
    """Forward differences of order 0 to `max_order`, all cut to their first T - `max_order` frames.

    Args:
      clip: (..., T, H, W, C), floating point.
      max_order: highest order.
      axis: of time.

    Returns:
      Tuple of `max_order + 1` arrays (..., T - max_order, H, W, C).

    Raises:
      TypeError, ValueError: as `time_derivative`.

    Example:
      >>> import numpy as np
      >>> clip = np.arange(5, dtype=np.float32).reshape(5, 1, 1, 1) ** 2
      >>> [d.ravel().tolist() for d in derivative_stack(clip, 2)]
      [[0.0, 1.0, 4.0], [1.0, 3.0, 5.0], [2.0, 2.0, 2.0]]
    """
    _check(clip, max_order, axis)
    length = clip.shape[axis] - max_order
    return tuple(jax.lax.slice_in_dim(time_derivative(clip, order, axis=axis), 0, length, axis=axis)
                 for order in range(max_order, -1, -1))[::-1]


def taylor_expand(derivatives: Sequence[jax.Array], steps: int) -> jax.Array:
    """A frame from the derivatives at frame 0: the discrete Taylor (Newton) series.

    `V[steps] = sum_k C(steps, k) D^k V[0]`, with forward differences `D^k`. Exact where there are more derivatives
    than `steps`; with fewer it extrapolates as if all higher derivatives were zero: one derivative repeats the frame,
    two continue at constant velocity, three at constant acceleration.

    Args:
      derivatives: `[V[0], D V[0], D^2 V[0], ...]`, one frame each, all of one shape.
      steps: frames ahead, at least 0.

    Returns:
      The frame, shape and dtype of the derivatives.

    Raises:
      TypeError: integer frames.
      ValueError: no derivatives, different shapes, negative `steps`.

    Example:
      >>> import numpy as np
      >>> clip = np.arange(6, dtype=np.float32).reshape(6, 1, 1, 1) ** 2
      >>> now = [d[0] for d in derivative_stack(clip[:3], 2)]
      >>> float(taylor_expand(now, 5)[0, 0, 0])
      25.0

    Reference: Chen et al., CPAL 2025, section 3; Newton's forward difference formula.
    """
    if not len(derivatives):
        raise ValueError('derivatives must hold at least V[0].')
    if len({d.shape for d in derivatives}) > 1:
        raise ValueError(f'derivatives must have one shape, not {[d.shape for d in derivatives]}.')
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 0:
        raise ValueError(f'steps must be an integer of at least 0, not {steps!r}.')
    for d in derivatives:
        _check(jnp.atleast_1d(d) if not d.ndim else d, 0, 0)
    used = derivatives[: steps + 1]  # C(steps, k) is zero beyond
    return sum((comb(steps, k) * d for k, d in enumerate(used[1:], 1)), start=jnp.asarray(used[0]))
