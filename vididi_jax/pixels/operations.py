"""Crop, resize, blur and normalise: pure functions on float clips (..., H, W, C); `colours` has those of colours.

They agree, to rounding, with what torchvision does to float tensors (its antialiased `resize`, `gaussian_blur` and
`normalize`), and treat every frame alike: equal frames stay equal to the last bit.

Reference: torchvision.transforms.functional.
"""

import jax
import jax.numpy as jnp
from jax import lax


def resize_weights(start, extent, inputs: int, outputs: int, dtype) -> jax.Array:
    """Antialiased bilinear resampling of `[start, start + extent)` to `outputs` samples, as a matrix.

    Row o is a triangle around `start + (o + 1/2) s`, s = extent / outputs, of half-width max(s, 1), cut to the source
    interval and normalised: pixels outside of it never count. As torchvision's `resize(antialias=True)` after a crop.

    Args:
      start, extent: scalars, pixels; may be traced.
      inputs, outputs: number of pixels.

    Returns:
      (outputs, inputs).
    """
    start, extent = jnp.asarray(start, dtype), jnp.asarray(extent, dtype)
    scale = extent / outputs
    centres = start + (jnp.arange(outputs, dtype=dtype) + 0.5) * scale
    pixels = jnp.arange(inputs, dtype=dtype) + 0.5
    weights = jnp.maximum(1 - jnp.abs(pixels - centres[:, None]) / jnp.maximum(scale, 1), 0)
    weights = jnp.where((pixels > start) & (pixels < start + extent), weights, 0)
    return weights / weights.sum(1, keepdims=True)


def resized_crop(clip: jax.Array, top, left, height, width, size: int) -> jax.Array:
    """Crop (..., H, W, C) to a box, and resize it to `size` x `size` (antialiased bilinear).

    Args:
      clip: floating point.
      top, left, height, width: integers, the box in pixels; may be traced.
      size: output height and width.

    Returns:
      (..., size, size, C).
    """
    dtype = clip.dtype
    rows = resize_weights(top, height, clip.shape[-3], size, dtype)
    columns = resize_weights(left, width, clip.shape[-2], size, dtype)
    return resample(clip, rows, columns)


def letterbox(clip: jax.Array, height, width, size: int) -> tuple[jax.Array, jax.Array]:
    """Resize frames, aspect kept, so that the longer side fills a square, with nothing below or to their right.

    Args:
      clip: floating point (..., H, W, C), of which the top left `height` x `width` are pixels (may be traced).
      size: output height and width.

    Returns:
      (..., size, size, C), 0 beyond the frames; and bool (size, size), which of the output's pixels have their centre
      in the frames.
    """
    side = jnp.maximum(height, width)

    def along(length, inputs):
        inside = (2 * jnp.arange(size) + 1) * side < 2 * size * length  # in whole numbers: centres do fall on borders
        weights = resize_weights(0, side, inputs, size, clip.dtype)
        weights = jnp.where(inside[:, None] & (jnp.arange(inputs) < length), weights, 0)  # no padding of the canvas
        return weights / jnp.where(inside, weights.sum(1), 1)[:, None], inside

    (rows, below), (columns, right) = along(height, clip.shape[-3]), along(width, clip.shape[-2])
    return resample(clip, rows, columns), below[:, None] & right


def resample(clip: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """`y[..., i, j, c] = sum_{h, w} rows[i, h] columns[j, w] clip[..., h, w, c]`."""
    frames = clip.reshape(-1, *clip.shape[-3:])
    # One product a frame: inside one large product equal frames would be summed in different orders.
    rows, columns = (jnp.broadcast_to(weights, (len(frames), *weights.shape)) for weights in (rows, columns))
    frames = jnp.einsum('nhwc,njw->nhcj', frames, columns, precision=lax.Precision.HIGHEST)
    # Each channel is a product of its own: colours are computed of three, and to part them is another pass over memory.
    planes = [jnp.einsum('nih,nhj->nij', rows, frames[:, :, c], precision=lax.Precision.HIGHEST)
              for c in range(clip.shape[-1])]
    return jnp.stack(planes, -1).reshape(*clip.shape[:-3], *planes[0].shape[1:], -1)


def gaussian(sigma, kernel: int, dtype) -> jax.Array:
    """`exp(-x^2 / (2 sigma^2))` at `kernel` (odd) whole places around 0, normalised."""
    weights = jnp.exp(-0.5 * (jnp.arange(-(kernel // 2), kernel // 2 + 1, dtype=dtype) / sigma) ** 2)
    return weights / weights.sum()


def smooth(x: jax.Array, weights: jax.Array, axis: int) -> jax.Array:
    """`y[i] = sum_k weights[k] x[i + k - half]` along an axis, half = len(weights) // 2, with reflected borders."""
    half = len(weights) // 2
    padding = [(0, 0)] * x.ndim
    padding[axis] = (half, half)
    padded = jnp.pad(x, padding, mode='reflect')
    return sum(weights[i] * lax.slice_in_dim(padded, i, i + x.shape[axis], axis=axis) for i in range(len(weights)))


def normalise(clip: jax.Array, mean, std) -> jax.Array:
    """`(x - mean) / std` per channel."""
    return (clip - jnp.asarray(mean, clip.dtype)) / jnp.asarray(std, clip.dtype)
