"""Two-view losses of self-supervised learning, and the rate of BYOL's moving average. At least float32 inside.

Every loss returns `(scalar, terms)`, the terms before weighting, in float32, or in float64 where the embeddings are.
Statistics and negatives are over the whole batch that
is passed in.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

NORM_EPSILON = 1e-12  # least squared length: the cosine of vectors shorter than 1e-6 fades to zero, and so stays smooth

Terms = dict[str, jax.Array]


def _prepare(z1: jax.Array, z2: jax.Array, least: int) -> tuple[jax.Array, jax.Array]:
    if z1.ndim != 2 or z1.shape != z2.shape:
        raise ValueError(f'embeddings must be two (N, D) arrays of one shape, not {z1.shape} and {z2.shape}.')
    if z1.shape[0] < least:
        raise ValueError(f'this loss needs a batch of at least {least}, not {z1.shape[0]}.')
    with jax.numpy_dtype_promotion('standard'):  # of dtypes, not of arrays: it is meant, also where callers forbid it
        dtype = jnp.promote_types(jnp.result_type(z1, z2), jnp.float32)
    return z1.astype(dtype), z2.astype(dtype)


def _unit(z: jax.Array) -> jax.Array:
    """Rows to unit length; finite, with a finite gradient, at zero."""
    return z * lax.rsqrt(jnp.maximum(jnp.sum(z * z, axis=1, keepdims=True), NORM_EPSILON))


_matmul = partial(jnp.matmul, precision=lax.Precision.HIGHEST)  # float32 products stay float32 on accelerators


def vicreg_loss(
    z1: jax.Array, z2: jax.Array, *, invariance: float = 1.0, variance: float = 1.0, covariance: float = 0.04
) -> tuple[jax.Array, Terms]:
    """Variance-invariance-covariance regularisation: `invariance * s + variance * v + covariance * c`.

    `s = mean over N x D of (z1 - z2)^2`;
    `v = mean over both views and D of max(0, 1 - sqrt(Var(z) + 1e-4))`;
    `c = sum over both views of (sum of squared off-diagonal entries of Cov(z)) / D`;
    variances and covariances divide by N - 1. These are the terms of the original code; its weights 25/25/1 are the
    defaults here times 25. (The paper's equation 6 adds the two hinges instead of averaging them.)

    Args:
      z1, z2: (N, D) embeddings of the two views, N >= 2.
      invariance, variance, covariance: weights of the three terms.

    Returns:
      The scalar loss and {'invariance', 'variance', 'covariance'}, float32 or wider.

    Raises:
      ValueError: shapes differ, or N < 2.

    Example:
      >>> z = jnp.array([[1., -1.], [-1., 1.]])
      >>> loss, terms = vicreg_loss(z, z)
      >>> float(terms['invariance']), float(terms['covariance'])
      (0.0, 8.0)

    Reference: Bardes, Ponce, LeCun, "VICReg", ICLR 2022; weights of Chen et al., CPAL 2025 (25/25/1, over 25).
    """
    z1, z2 = _prepare(z1, z2, 2)
    count, width = z1.shape
    hinges, covariances = [], []
    for z in (z1, z2):
        centred = z - z.mean(0, keepdims=True)
        variances = jnp.sum(centred * centred, axis=0) / (count - 1)
        hinges.append(jnp.mean(jax.nn.relu(1 - jnp.sqrt(variances + 1e-4))))
        matrix = _matmul(centred.T, centred) / (count - 1)
        off_diagonal = jnp.where(jnp.eye(width, dtype=bool), 0, matrix)  # no scatter, as subtracting the diagonal is
        covariances.append(jnp.sum(off_diagonal * off_diagonal) / width)
    terms = {
        'invariance': jnp.mean((z1 - z2) ** 2),
        'variance': (hinges[0] + hinges[1]) / 2,
        'covariance': covariances[0] + covariances[1],
    }
    loss = invariance * terms['invariance'] + variance * terms['variance'] + covariance * terms['covariance']
    return loss, terms


def info_nce_loss(z1: jax.Array, z2: jax.Array, *, temperature: float = 0.1) -> tuple[jax.Array, Terms]:
    """Cross-view InfoNCE: each embedding must find its partner among the other view's N.

    `(l(z1, z2) + l(z2, z1)) / 2` with `l(a, b) = -mean_i log( exp(cos(a_i, b_i) / t) / sum_j exp(cos(a_i, b_j) / t) )`.

    Args:
      z1, z2: (N, D) embeddings.
      temperature: t.

    Returns:
      The scalar loss and {'view1_to_view2', 'view2_to_view1'}, float32 or wider.

    Raises:
      ValueError: shapes differ, or N < 2.

    Reference: van den Oord et al., arXiv 1807.03748; Radford et al., CLIP, ICML 2021 (the symmetric form).
    """
    z1, z2 = _prepare(z1, z2, 2)
    logits = _matmul(_unit(z1), _unit(z2).T) / temperature
    terms = {name: -jnp.mean(jnp.diagonal(jax.nn.log_softmax(matrix, axis=1)))
             for name, matrix in (('view1_to_view2', logits), ('view2_to_view1', logits.T))}
    return (terms['view1_to_view2'] + terms['view2_to_view1']) / 2, terms


def nt_xent_loss(z1: jax.Array, z2: jax.Array, *, temperature: float = 0.1) -> tuple[jax.Array, Terms]:
    """SimCLR's loss: each of the 2N embeddings must find its partner among the 2N - 1 others.

    `-mean_i log( exp(cos(z_i, z_p(i)) / t) / sum_{j != i} exp(cos(z_i, z_j) / t) )`, i and j over all 2N embeddings,
    p(i) the partner of i.

    Args:
      z1, z2: (N, D) embeddings.
      temperature: t.

    Returns:
      The scalar loss and {'nt_xent'}, float32 or wider.

    Raises:
      ValueError: shapes differ, or N < 2.

    Reference: Chen et al., "A Simple Framework for Contrastive Learning", ICML 2020.
    """
    z1, z2 = _prepare(z1, z2, 2)
    count = z1.shape[0]
    z = _unit(jnp.concatenate([z1, z2]))
    logits = _matmul(z, z.T) / temperature
    logits = jnp.where(jnp.eye(2 * count, dtype=bool), -jnp.inf, logits)
    partner = jnp.roll(jnp.arange(2 * count), count)
    loss = -jnp.mean(jax.nn.log_softmax(logits, axis=1)[jnp.arange(2 * count), partner])
    return loss, {'nt_xent': loss}


def byol_loss(prediction: jax.Array, target: jax.Array) -> tuple[jax.Array, Terms]:
    """One way of BYOL: `mean_i (2 - 2 cos(prediction_i, target_i))`; no gradient flows into the target.

    Args:
      prediction: (N, D) of the online network's predictor.
      target: (N, D) of the target network's projector.

    Returns:
      The scalar loss and {'cosine'}, the mean cosine, float32 or wider.

    Raises:
      ValueError: shapes differ.

    Reference: Grill et al., "Bootstrap Your Own Latent", NeurIPS 2020, equation 2.
    """
    prediction, target = _prepare(prediction, lax.stop_gradient(target), 1)
    cosine = jnp.mean(jnp.sum(_unit(prediction) * _unit(target), axis=1))
    return 2 - 2 * cosine, {'cosine': cosine}


def ema_tau(step: jax.typing.ArrayLike, total_steps: int, base: float = 0.99) -> jax.Array:
    """BYOL's rate at a step: `1 - (1 - base) (cos(pi step / total_steps) + 1) / 2`, from `base` to 1.

    Args:
      step: a whole number from 0 to `total_steps`, of steps that are done; may be traced.
      total_steps: of the run.
      base: rate at step 0.

    Returns:
      The rate, a scalar: the target becomes `tau * target + (1 - tau) * online`.

    Reference: Grill et al., NeurIPS 2020, section 3.2.
    """
    return 1 - (1 - base) * (jnp.cos(jnp.pi * step / total_steps) + 1) / 2
