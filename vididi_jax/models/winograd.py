"""Winograd's minimal filtering: convolutions with 3x3 kernels in space, in a quarter of the multiplications.

An output tile of 4x4 pixels is `A^T [(G w G^T) * (B^T x B)] A`, with `x` its 6x6 window of the input, `w` the 3x3
kernel and `*` the elementwise product. Summed over channels, that product is a matrix product at each of 36 positions.

References: Winograd, "Arithmetic Complexity of Computations", SIAM 1980; Lavin and Gray, "Fast Algorithms for
Convolutional Neural Networks", CVPR 2016. On the choice of points: Barabasz et al., "Error Analysis and Improving the
Accuracy of Winograd Convolution for Deep Neural Networks", ACM TOMS 46(4), 2020.
"""

from fractions import Fraction
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

TILE, TAPS = 4, 3
WINDOW = TILE + TAPS - 1
# Interpolation points besides infinity. Of the small fractions tried these lose the least: in float32, over 64
# channels, a relative error of 8e-7 (root mean square) against 1.8e-6 for the usual 0, 1, -1, 2, -2.
POINTS = (Fraction(0), Fraction(3, 4), Fraction(-3, 4), Fraction(3, 2), Fraction(-3, 2))


def _matrices() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A^T (4, 6), G (6, 3) and B^T (6, 6) by Toom and Cook's construction, computed in fractions."""

    def polynomial(roots: list[Fraction]) -> list[Fraction]:
        """Coefficients of `prod (x - root)`, lowest first."""
        c = [Fraction(1)]
        for root in roots:
            c = [(c[i - 1] if i else 0) - (root * c[i] if i < len(c) else 0) for i in range(len(c) + 1)]
        return c

    others = [[q for q in POINTS if q != p] for p in POINTS]
    scales = [np.prod([p - q for q in rest]) for p, rest in zip(POINTS, others, strict=True)]
    output = [[p**i for p in POINTS] + [Fraction(int(i == TILE - 1))] for i in range(TILE)]
    kernel = [[p**k / s for k in range(TAPS)] for p, s in zip(POINTS, scales, strict=True)] + [[0, 0, 1]]
    window = [[*polynomial(rest), 0] for rest in others] + [polynomial(list(POINTS))]
    return tuple(np.array(matrix, np.float64) for matrix in (output, kernel, window))


OUTPUT, KERNEL, INPUT = _matrices()


def tiles(shape: tuple[int, ...]) -> int:
    """Tiles of 4x4 pixels in clips of shape (B, T, H, W, C)."""
    batch, time, height, width, _ = shape
    return batch * time * -(-height // TILE) * -(-width // TILE)


def _combine(row: np.ndarray, parts: list[jax.Array]) -> jax.Array:
    """`sum_i row[i] parts[i]`, without the zeros."""
    total = None
    for c, part in zip(row, parts, strict=True):
        if c:
            term = part if c == 1 else part * jnp.asarray(c, part.dtype)
            total = term if total is None else total + term
    return total


def _transform(x: jax.Array, matrix: np.ndarray, before: int) -> jax.Array:
    """(B, T, H, W, C) -> (36, B, T, tiles_h, tiles_w, C): `matrix (window of each tile) matrix^T`; windows are 4 apart.

    `before` zeros stand before the first row and column.
    """
    window = matrix.shape[1]

    def along(x: jax.Array, axis: int) -> list[jax.Array]:
        count = -(-x.shape[axis] // TILE)
        padding = [(0, 0)] * x.ndim
        padding[axis] = (before, (count - 1) * TILE + window - before - x.shape[axis])
        x = jnp.pad(x, padding)
        parts = [lax.slice_in_dim(x, j, j + (count - 1) * TILE + 1, TILE, axis=axis) for j in range(window)]
        return [_combine(row, parts) for row in matrix]

    return jnp.stack([column for row in along(x, 2) for column in along(row, 3)])


def _inverse(m: jax.Array, height: int, width: int) -> jax.Array:
    """(36, B, T, tiles_h, tiles_w, O) -> (B, T, height, width, O): `A^T m A` of each tile."""

    def along(parts: list[jax.Array], axis: int, length: int) -> jax.Array:
        x = jnp.stack([_combine(row, parts) for row in OUTPUT], axis + 1)
        x = x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])
        return lax.slice_in_dim(x, 0, length, axis=axis)

    rows = [along(list(m[i * WINDOW : (i + 1) * WINDOW]), 3, width) for i in range(WINDOW)]
    return along(rows, 2, height)


def _shifted(x: jax.Array, axis: int, offset: int, length: int) -> jax.Array:
    """`length` entries of `x` along `axis` from `offset`, zeros outside."""
    padding = [(0, 0)] * x.ndim
    padding[axis] = (max(-offset, 0), max(offset + length - x.shape[axis], 0))
    return lax.slice_in_dim(jnp.pad(x, padding), max(offset, 0), max(offset, 0) + length, axis=axis)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve(x: jax.Array, w: jax.Array, time_padding: int) -> jax.Array:
    """Cross-correlation with stride 1 and one zero on each side of height and width.

    In bfloat16 the matrix products have operands of bfloat16 and results of float32, and the transforms are float32.

    Args:
      x: (B, T, H, W, C).
      w: (kt, 3, 3, C, O), same dtype as `x`.
      time_padding: zeros on both sides of the time axis.

    Returns:
      (B, T + 2 time_padding - kt + 1, H, W, O).
    """
    return _forward(x, w, time_padding)[0]


def _forward(x, w, time_padding):
    taps, out_time = w.shape[0], x.shape[1] + 2 * time_padding - w.shape[0] + 1
    wide = np.promote_types(x.dtype, jnp.float32)
    # The barriers keep XLA from recomputing the transforms inside of what reads them.
    v = lax.optimization_barrier(_transform(x.astype(wide), INPUT, 1).astype(x.dtype))
    g = jnp.asarray(KERNEL, wide)
    u = jnp.einsum('iu,jv,duvco->ijcdo', g, g, w.astype(wide)).reshape(WINDOW**2, w.shape[3], -1).astype(w.dtype)
    m = lax.optimization_barrier(jnp.einsum('kbthwc,kco->kbthwo', v, u, preferred_element_type=wide))
    outputs = w.shape[-1]
    m = sum(_shifted(m[..., d * outputs : (d + 1) * outputs], 2, d - time_padding, out_time) for d in range(taps))
    return _inverse(m, *x.shape[2:4]).astype(x.dtype), (v, w)


def _backward(time_padding, saved, y):
    v, w = saved
    taps, time = w.shape[0], v.shape[2]
    wide = np.promote_types(y.dtype, jnp.float32)
    x, _ = _forward(y, jnp.flip(w, (0, 1, 2)).swapaxes(3, 4), taps - 1 - time_padding)
    m = lax.optimization_barrier(_transform(y.astype(wide), OUTPUT.T, 0).astype(y.dtype))
    u = jnp.stack([
        jnp.einsum('kbthwc,kbthwo->kco', v, _shifted(m, 2, time_padding - d, time), preferred_element_type=wide)
        for d in range(taps)])
    g = jnp.asarray(KERNEL, wide)
    u = u.reshape(taps, WINDOW, WINDOW, *u.shape[2:])
    return x, jnp.einsum('iu,jv,dijco->duvco', g, g, u).astype(w.dtype)


convolve.defvjp(_forward, _backward)
