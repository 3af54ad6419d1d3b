"""3-D convolution in several formulations, equal in value and gradient; which one is fast depends on the backend."""

import jax
import jax.numpy as jnp
from jax import lax

from vididi_jax.errors import UserError

IMPLEMENTATIONS = ('auto', 'xla', 'taps')
Triple = tuple[int, int, int]


def check_implementation(impl: str) -> None:
    """Raises `UserError` for an unknown name."""
    if impl not in IMPLEMENTATIONS:
        raise UserError(f'conv_impl is {impl!r}: choose one of {", ".join(IMPLEMENTATIONS)}.')


def conv3d(x: jax.Array, w: jax.Array, stride: Triple, padding: Triple, impl: str = 'auto') -> jax.Array:
    """Cross-correlation over time, height and width, with zero padding.

    `y[b, t, i, j, o] = sum_{d, u, v, c} x[b, t s_t + d - p_t, i s_h + u - p_h, j s_w + v - p_w, c] w[d, u, v, c, o]`

    Args:
      x: (B, T, H, W, C).
      w: (kt, kh, kw, C, O), same dtype as `x`.
      stride: (s_t, s_h, s_w).
      padding: (p_t, p_h, p_w), on both sides of each axis.
      impl: 'xla' is one convolution of three spatial dimensions; 'taps' is a sum over temporal taps of 2-D
        convolutions, because XLA sends 3-D convolutions on a CPU to a slow generic kernel; 'auto' is 'taps' on a CPU
        and 'xla' elsewhere.

    Returns:
      (B, T', H', W', O).
    """
    check_implementation(impl)
    if impl == 'auto':
        impl = 'taps' if jax.default_backend() == 'cpu' else 'xla'
    if impl == 'xla':
        return lax.conv_general_dilated(
            x, w, stride, [(p, p) for p in padding], dimension_numbers=('NDHWC', 'DHWIO', 'NDHWC'))
    return _taps(x, w, stride, padding)


def _taps(x: jax.Array, w: jax.Array, stride: Triple, padding: Triple) -> jax.Array:
    """3-D convolution as 2-D convolutions on (batch x time), or matrix products where the kernel is 1 x 1 in space."""
    taps, (time_stride, *space_stride), (time_padding, *space_padding) = w.shape[0], stride, padding
    batch, time = x.shape[:2]
    out_time = (time + 2 * time_padding - taps) // time_stride + 1

    def frames(tap: int) -> tuple[jax.Array, int, int] | None:
        """The input frames that this tap sees, and how many output frames before and after them it does not reach."""
        first = max(-(-(time_padding - tap) // time_stride), 0)  # smallest output frame whose input frame exists
        last = min((time - 1 + time_padding - tap) // time_stride, out_time - 1)
        if last < first:
            return None
        start = first * time_stride + tap - time_padding
        seen = lax.slice_in_dim(x, start, start + (last - first) * time_stride + 1, time_stride, axis=1)
        return seen, first, out_time - 1 - last

    seen = [(tap, *found) for tap in range(taps) if (found := frames(tap)) is not None]
    if x.shape[-1] <= 3 and taps > 1:  # few channels: fold the taps into them, for one convolution instead of many
        whole = [jnp.pad(part, [(0, 0), (before, after), (0, 0), (0, 0), (0, 0)]) for _, part, before, after in seen]
        kernel = jnp.concatenate([w[tap] for tap, *_ in seen], axis=2)
        return _per_frame(jnp.concatenate(whole, axis=-1), kernel, space_stride, space_padding)
    total = None
    for tap, part, before, after in seen:
        y = _per_frame(part, w[tap], space_stride, space_padding)
        y = jnp.pad(y, [(0, 0), (before, after), (0, 0), (0, 0), (0, 0)]) if before or after else y
        total = y if total is None else total + y
    return total


def _per_frame(x: jax.Array, w: jax.Array, stride: list[int], padding: list[int]) -> jax.Array:
    """2-D convolution (kh, kw, C, O) of every frame of (B, T, H, W, C)."""
    if w.shape[:2] == (1, 1) and not any(padding):
        return jnp.einsum('bthwc,co->bthwo', x[:, :, :: stride[0], :: stride[1]], w[0, 0])
    flat = x.reshape(-1, *x.shape[2:])
    y = lax.conv_general_dilated(
        flat, w, stride, [(p, p) for p in padding], dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
    return y.reshape(*x.shape[:2], *y.shape[1:])
