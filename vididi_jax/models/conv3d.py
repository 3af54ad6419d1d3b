"""3-D convolution in several formulations, equal in value and gradient; which one is fast depends on the backend."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from vididi_jax.errors import UserError
from vididi_jax.models import winograd

ON_CPUS = ('taps', 'winograd', 'by_layer')  # XLA's compiler for GPUs aborts on them, on TPUs they move more memory
IMPLEMENTATIONS = ('auto', 'xla', *ON_CPUS)
Triple = tuple[int, int, int]
FRAMES = ('NHWC', 'HWIO', 'NHWC')
# Measured with benchmarks/conv3d.py on a CPU:
MIN_TILES, MIN_CHANNELS = 256, 32  # below, Winograd's transforms cost more than they save
MIN_OUTPUTS = 16  # output channels that fill the vector units of a 2-D convolution


def choose_implementation(impl: str, platform: str | None = None) -> str:
    """What 'auto' stands for where the program will run: 'by_layer' on a CPU, 'xla' elsewhere, where nothing else does.

    Args:
      impl: one of `IMPLEMENTATIONS`.
      platform: of the devices, 'cpu', 'gpu' or 'tpu'; None is JAX's default here.

    Raises:
      UserError: an unknown name, or one that is not for that platform.
    """
    _check_name(impl)
    platform = platform or jax.default_backend()
    if impl in ON_CPUS and platform != 'cpu':
        raise UserError(f'conv_impl is {impl!r}, for CPUs alone, and devices are of platform {platform!r}: set it to '
                        'auto.')
    if impl != 'auto':
        return impl
    return 'by_layer' if platform == 'cpu' else 'xla'


def _check_name(impl: str) -> None:
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
        convolutions, because XLA sends 3-D convolutions on a CPU to a slow generic kernel; 'winograd' needs a quarter
        of the multiplications where the kernel is 3x3 in space with stride 1 and padding 1, and is 'taps' elsewhere;
        'by_layer' is 'winograd' for layers of many pixels and 'taps' for the others, what is fast on a CPU; 'auto' is
        that on a CPU and 'xla' elsewhere, by JAX's default platform: see `choose_implementation` for another.

    Returns:
      (B, T', H', W', O), dtype of `x`, with `T' = (T + 2 p_t - kt) // s_t + 1` and H', W' likewise.

    Raises:
      UserError: an unknown `impl`, or a kernel larger than the padded input.

    Reference: torch.nn.functional.conv3d, without bias, dilation and groups.
    """
    _check_name(impl)  # whether it runs on the devices, which need not be these, is asked where an encoder is made
    impl = choose_implementation(impl) if impl == 'auto' else impl
    if min(_output_size(x, w, stride, padding)) < 1:
        raise UserError(f'a kernel of {_text(w.shape[:3])} does not fit into clips of {_text(x.shape[1:4])} padded by '
                        f'{_text(padding)} (frames x height x width): give longer or larger clips.')
    if impl == 'by_layer':
        impl = _best_on_cpu(x, w)
    if impl == 'xla':
        if w.shape[:3] == (1, 1, 1) and not any(padding):  # the gradient of a slice costs less than that of a stride
            x, stride = x[:, :: stride[0], :: stride[1], :: stride[2]], (1, 1, 1)
        return lax.conv_general_dilated(
            x, w, stride, [(p, p) for p in padding], dimension_numbers=('NDHWC', 'DHWIO', 'NDHWC'))
    if impl == 'winograd' and w.shape[1:3] == (3, 3) and stride == (1, 1, 1) and padding[1:] == (1, 1):
        return winograd.convolve(x, w, padding[0])
    return _taps(x, w, stride, padding)


def _output_size(x: jax.Array, w: jax.Array, stride: Triple, padding: Triple) -> list[int]:
    """[T', H', W']."""
    sizes = zip(x.shape[1:4], w.shape[:3], stride, padding, strict=True)
    return [(size + 2 * p - k) // s + 1 for size, k, s, p in sizes]


def _text(sizes: Sequence[int]) -> str:
    return ' x '.join(map(str, sizes))


def _best_on_cpu(x: jax.Array, w: jax.Array) -> str:
    """Winograd's filtering where its transforms pay off; not in bfloat16, whose error it multiplies by seven."""
    large = winograd.tiles(x.shape) >= MIN_TILES and min(x.shape[2:4]) >= winograd.TILE
    return 'winograd' if large and min(w.shape[3:]) >= MIN_CHANNELS and x.dtype != jnp.bfloat16 else 'taps'


def _taps(x: jax.Array, w: jax.Array, stride: Triple, padding: Triple) -> jax.Array:
    """3-D convolution as 2-D convolutions on (batch x time), or matrix products where the kernel is 1 x 1 in space."""
    taps, (time_stride, *space_stride), (time_padding, *space_padding) = w.shape[0], stride, padding
    time = x.shape[1]
    out_time, *out_space = _output_size(x, w, stride, padding)

    def frames(tap: int) -> tuple[jax.Array, int, int] | None:
        """The input frames that this tap sees, and how many output frames before and after them it does not reach."""
        first = max(-(-(time_padding - tap) // time_stride), 0)  # smallest output frame whose input frame exists
        last = min((time - 1 + time_padding - tap) // time_stride, out_time - 1)
        if last < first:
            return None
        start = first * time_stride + tap - time_padding
        seen = lax.slice_in_dim(x, start, start + (last - first) * time_stride + 1, time_stride, axis=1)
        return seen, first, out_time - 1 - last

    if taps > 1 and (w.shape[-1] <= MIN_OUTPUTS or x.shape[-1] <= 3):
        return _folded(x, w, stride, padding)
    seen = [(tap, *found) for tap in range(taps) if (found := frames(tap)) is not None]
    total = None
    for tap, part, before, after in seen:
        y = _per_frame(part, w[tap], space_stride, space_padding)
        y = jnp.pad(y, [(0, 0), (before, after), (0, 0), (0, 0), (0, 0)]) if before or after else y
        total = y if total is None else total + y
    if total is None:  # every output frame sees padding alone
        return jnp.zeros((x.shape[0], out_time, *out_space, w.shape[-1]), x.dtype)
    return total


def _folded(x: jax.Array, w: jax.Array, stride: Triple, padding: Triple) -> jax.Array:
    """3-D convolution of few channels as one 2-D convolution, whose channels are those of several frames.

    `block` output frames are computed from the `span` input frames that they see, with a kernel that is zero where an
    output frame does not see an input frame.
    """
    taps, height, width, channels, outputs = w.shape
    batch, time = x.shape[:2]
    step = stride[0]
    out_time = _output_size(x, w, stride, padding)[0]
    wanted = (2 if channels <= 3 else 1) * MIN_OUTPUTS
    block = min(-(-wanted // outputs), out_time)
    span = (block - 1) * step + taps
    blocks = -(-out_time // block)
    after = max((blocks - 1) * block * step + span - padding[0] - time, 0)
    x = jnp.pad(x, [(0, 0), (padding[0], after), (0, 0), (0, 0), (0, 0)])
    starts = (blocks - 1) * block * step + 1
    x = jnp.concatenate([x[:, i : i + starts : block * step] for i in range(span)], axis=-1)
    shifted = [jnp.pad(w, [(i * step, span - taps - i * step)] + [(0, 0)] * 4) for i in range(block)]
    kernel = jnp.stack(shifted, axis=4).transpose(1, 2, 0, 3, 4, 5)  # (kh, kw, span, C, block, O)
    y = _per_frame(x, kernel.reshape(height, width, span * channels, block * outputs), stride[1:], padding[1:])
    y = jnp.moveaxis(y.reshape(*y.shape[:-1], block, outputs), 4, 2)
    return y.reshape(batch, blocks * block, *y.shape[3:])[:, :out_time]


def _per_frame(x: jax.Array, w: jax.Array, stride: list[int], padding: list[int]) -> jax.Array:
    """2-D convolution (kh, kw, C, O) of every frame of (B, T, H, W, C)."""
    if w.shape[:2] == (1, 1) and not any(padding):
        return jnp.einsum('bthwc,co->bthwo', x[:, :, :: stride[0], :: stride[1]], w[0, 0])
    out = _output_size(x, w[None], (1, *stride), (0, *padding))[1:]
    taps = w.shape[0] * w.shape[1]
    if x.shape[2] * x.shape[3] <= taps and out[0] * out[1] < taps:
        return _whole_frames(x, w, stride, padding, out)
    flat = x.reshape(-1, *x.shape[2:])
    if all(s == 1 for s in stride):
        y = _conv2d(flat, w, tuple(padding))
    else:
        y = lax.conv_general_dilated(flat, w, stride, [(p, p) for p in padding], dimension_numbers=FRAMES)
    return y.reshape(*x.shape[:2], *y.shape[1:])


def _whole_frames(
    x: jax.Array, w: jax.Array, stride: list[int], padding: list[int], out: list[int],
) -> jax.Array:
    """`_per_frame` of frames that are no larger than the kernel, as one matrix product: all pixels by all `out` pixels.

    It multiplies no more than the kernel would. XLA slides such a frame over the kernel instead, which is slow.
    """
    size = x.shape[2:4]
    # Output pixel i sees what lies below the kernel's rows from p - i s on.
    below = [[p - i * s for i in range(n)] for n, s, p in zip(out, stride, padding, strict=True)]
    edges = [(max(-starts[-1], 0), max(starts[0] + n - k, 0))
             for starts, n, k in zip(below, size, w.shape[:2], strict=True)]
    w = jnp.pad(w, [*edges, (0, 0), (0, 0)])
    pieces = [lax.slice(w, (i + edges[0][0], j + edges[1][0], 0, 0),
                        (i + edges[0][0] + size[0], j + edges[1][0] + size[1], *w.shape[2:]))
              for i in below[0] for j in below[1]]
    matrix = jnp.stack(pieces, axis=3).reshape(-1, len(pieces) * w.shape[3])
    y = x.reshape(*x.shape[:2], -1) @ matrix
    return y.reshape(*x.shape[:2], *out, w.shape[3])


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv2d(x: jax.Array, w: jax.Array, padding: tuple[int, int]) -> jax.Array:
    """2-D convolution (N, H, W, C), (kh, kw, C, O) with stride 1, whose gradient by the kernel is the fast one.

    That gradient correlates `x` with the cotangent. XLA slides the cotangent over `x`; sliding `x` over the cotangent,
    which has fewer channels, gives the same, flipped, and moves less memory.
    """
    return lax.conv_general_dilated(x, w, (1, 1), [(p, p) for p in padding], dimension_numbers=FRAMES)


def _conv2d_forward(x, w, padding):
    return _conv2d(x, w, padding), (x, w)


def _conv2d_backward(padding, saved, y):
    x, w = saved
    full = [(k - 1 - p, k - 1 - p) for k, p in zip(w.shape[:2], padding, strict=True)]
    flipped = jnp.flip(w, (0, 1)).swapaxes(2, 3)
    dx = lax.conv_general_dilated(y, flipped, (1, 1), full, dimension_numbers=FRAMES)
    dw = lax.conv_general_dilated(y, x, (1, 1), full, dimension_numbers=('CHWN', 'IHWO', 'HWNC'))
    return dx, jnp.flip(dw, (0, 1)).swapaxes(2, 3)


_conv2d.defvjp(_conv2d_forward, _conv2d_backward)
