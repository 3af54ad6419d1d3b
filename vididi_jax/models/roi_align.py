"""RoIAlign: features of boxes, by bilinear interpolation at regular points of each box."""

import jax
import jax.numpy as jnp
from jax import lax

from vididi_jax.errors import UserError


def axis_weights(
    start: jax.Array, stop: jax.Array, inputs: int, outputs: int, samples: int, *, aligned: bool
) -> jax.Array:
    """Along one axis: the weight of each input in each output of an interval, a mean over sample points.

    The interval is cut into `outputs` bins and the points are the centres of a bin's `samples` equal parts. A point p
    weighs input j by `max(0, 1 - |clip(p, 0, inputs - 1) - j|)`; beyond [-1, inputs] by 0, for all j.

    Args:
      start, stop: (...), in units of the inputs, input j standing at j + 1/2 (`aligned`) or at j.
      inputs, outputs, samples: numbers.
      aligned: see `roi_align`.

    Returns:
      (..., outputs, inputs).
    """
    start = start - 0.5 if aligned else start
    extent = stop - 0.5 - start if aligned else jnp.maximum(stop - start, 1)
    size = extent[..., None, None] / outputs
    bins, parts = (jnp.arange(n, dtype=start.dtype) for n in (outputs, samples))
    points = start[..., None, None] + bins[:, None] * size + (parts + 0.5) * size / samples
    seen = (points >= -1) & (points <= inputs)
    distance = jnp.abs(jnp.clip(points, 0, inputs - 1)[..., None] - jnp.arange(inputs, dtype=start.dtype))
    return jnp.where(seen[..., None], jnp.maximum(1 - distance, 0), 0).mean(-2)


def roi_align(
    features: jax.Array, boxes: jax.Array, *, output_size: int | tuple[int, int], spatial_scale: float = 1.0,
    sampling_ratio: int, aligned: bool = True,
) -> jax.Array:
    """Cut each box out of a map and resample it to a fixed size, as torchvision.ops.roi_align.

    Interpolation is separable, and so is the rule on points outside of the map, so that a box needs one matrix an axis:
    `y[b, m, i, j, c] = sum_{h, w} R[b, m, i, h] C[b, m, j, w] features[b, h, w, c]`, with R and C of `axis_weights`.

    Args:
      features: (B, H, W, C), floating point.
      boxes: (B, M, 4), x1, y1, x2, y2 in pixels of the encoder's input; may reach beyond it.
      output_size: (oh, ow), or one number for both.
      spatial_scale: what takes input pixels to cells of the map: 1 / stride.
      sampling_ratio: points a bin along each axis, at least 1.
      aligned: pixel j has its centre at j + 1/2 (True), or at j with boxes of at least one cell (False), as the first
        implementations had it.

    Returns:
      (B, M, oh, ow, C), computed in, and of, at least float32.

    Raises:
      UserError: a size or `sampling_ratio` below 1; an adaptive ratio (-1) would give shapes that depend on the boxes.

    Reference: He et al., "Mask R-CNN", ICCV 2017, section 3; the rules at the borders are those of torchvision 0.29.1.
    """
    height, width = (output_size,) * 2 if isinstance(output_size, int) else output_size
    if sampling_ratio < 1:
        raise UserError(f'sampling_ratio is {sampling_ratio}: it must be at least 1, because with adaptive sampling '
                        'shapes would depend on the boxes.')
    if min(height, width) < 1:
        raise UserError(f'output_size is {height} x {width}: both must be at least 1.')
    dtype = jnp.promote_types(features.dtype, jnp.float32)
    x1, y1, x2, y2 = jnp.moveaxis(boxes.astype(dtype) * spatial_scale, -1, 0)
    rows = axis_weights(y1, y2, features.shape[1], height, sampling_ratio, aligned=aligned)
    columns = axis_weights(x1, x2, features.shape[2], width, sampling_ratio, aligned=aligned)
    exact = lax.Precision.HIGHEST
    found = jnp.einsum('bmih,bhwc->bmiwc', rows, features.astype(dtype), precision=exact)
    return jnp.einsum('bmjw,bmiwc->bmijc', columns, found, precision=exact)
