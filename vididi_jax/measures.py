"""Measures of embeddings, as pure functions of numpy arrays: spread, rank, alignment, agreement, nearest neighbours.

Rows are videos or clips. Embeddings are compared by their direction. Where anything is not finite, the measure is nan.
"""

import numpy as np

NEIGHBOURS = 5
DECIMALS = 12  # of similarities that are told apart: a matrix product may round equal rows differently


def unit(x: np.ndarray) -> np.ndarray:
    """Rows of (..., D) to unit Euclidean length, float64; a row of zeros stays."""
    x = np.asarray(x, np.float64)
    with np.errstate(invalid='ignore'):  # infinity becomes nan
        return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), np.finfo(np.float64).tiny)


def join(*features: np.ndarray) -> np.ndarray:
    """Features of several orders, (N, D) each, as one: each to unit length, then side by side, to count the same."""
    return np.concatenate([unit(x) for x in features], axis=1)


def embedding_std(z: np.ndarray) -> tuple[float, float]:
    """Smallest and mean standard deviation of the D entries of unit embeddings, times sqrt(D).

    The mean is about 1 for embeddings that spread evenly over the sphere, and 0 for collapsed ones.

    Args:
      z: (N, D).

    Reference: Chen and He, "Exploring Simple Siamese Representation Learning", CVPR 2021, section 4.1.
    """
    std = unit(z).std(0) * np.sqrt(z.shape[1])
    return float(std.min()), float(std.mean())


def effective_rank(z: np.ndarray) -> float:
    """`exp(-sum_i p_i log p_i)`, p_i the share of singular value i of the centred embeddings: 1 to min(N - 1, D).

    Args:
      z: (N, D). Embeddings that are all equal have rank 0.

    Reference: Roy and Vetterli, "The Effective Rank", EUSIPCO 2007; Garrido et al., "RankMe", ICML 2023.
    """
    z = np.asarray(z, np.float64)
    if not np.isfinite(z).all():  # the decomposition would raise
        return np.nan
    values = np.linalg.svd(z - z.mean(0), compute_uv=False)
    if values.sum() <= 1e-12 * max(np.linalg.norm(z), 1e-300):
        return 0.0
    shares = values[values > 0] / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def alignment(z1: np.ndarray, z2: np.ndarray) -> float:
    """Mean squared distance between the unit embeddings of two clips of the same video: 0 is best, 2 is unrelated.

    Args:
      z1, z2: (N, D).

    Reference: Wang and Isola, "Understanding Contrastive Representation Learning", ICML 2020, section 4.
    """
    return float(((unit(z1) - unit(z2)) ** 2).sum(-1).mean())


def uniformity(z: np.ndarray) -> float:
    """`log mean_{i != j} exp(-2 |z_i - z_j|^2)` of unit embeddings: 0 where all are equal, the lower the more spread.

    Args:
      z: (N, D), N at least 2.

    Reference: Wang and Isola, ICML 2020, section 4.
    """
    z = unit(z)
    squared = np.maximum(2 - 2 * z @ z.T, 0)
    return float(np.log(np.exp(-2 * squared)[~np.eye(len(z), dtype=bool)].mean()))


def order_agreement(z: np.ndarray) -> float:
    """Mean cosine between the embeddings of different derivative orders of the same clip.

    Args:
      z: (K, N, D), one row of embeddings an order, K at least 2.
    """
    z = unit(z)
    cosines = np.einsum('ind,jnd->ijn', z, z).mean(-1)
    return float(cosines[~np.eye(len(z), dtype=bool)].mean())


def knn_accuracy(features: np.ndarray, labels: np.ndarray, k: int = NEIGHBOURS) -> float:
    """Percentage of videos whose class wins the vote of their k nearest others, by cosine; ties go to the nearer class.

    Args:
      features: (N, D).
      labels: (N,) ints.
      k: number of neighbours.
    """
    if not np.isfinite(features).all():  # nan has no place in the order
        return np.nan
    x, labels = unit(features), np.asarray(labels)
    similarity = np.round(x @ x.T, DECIMALS)
    np.fill_diagonal(similarity, -np.inf)
    nearest = labels[np.argsort(-similarity, axis=1, kind='stable')[:, : min(k, len(x) - 1)]]
    votes = (nearest[:, :, None] == nearest[:, None, :]).sum(-1)  # of each neighbour's class; argmax takes the nearest
    winners = nearest[np.arange(len(x)), votes.argmax(1)]
    return 100 * float((winners == labels).mean())
