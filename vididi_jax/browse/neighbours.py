"""Which videos are alike: neighbours and clusters of their features."""

import warnings

import numpy as np

from vididi_jax.evaluate.retrieval import neighbours
from vididi_jax.measures import unit

NEAREST = 10
MOST_CLUSTERS = 24


def nearest_others(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The NEAREST others of each video, or all if they are fewer, by cosine similarity.

    Args:
      features: (N, D).

    Returns:
      (N, K) int indices, nearest first, and (N, K) similarities.
    """
    order = neighbours(features, features, NEAREST + 1)
    itself = order == np.arange(len(features))[:, None]  # none in a row: more than NEAREST others are equal to it
    others = np.take_along_axis(order, np.argsort(itself, axis=1, kind='stable'), axis=1)[:, :-1]
    x = unit(features)
    return others, np.einsum('nd,nkd->nk', x, x[others])


def clusters_of(features: np.ndarray, count: int = 0) -> list[np.ndarray]:
    """k-means of features of unit length (scikit-learn, seed 0): indices of each cluster, the most central first.

    Args:
      features: (N, D).
      count: of clusters, at most; 0 is about sqrt(N / 2), at most MOST_CLUSTERS.

    Returns:
      The clusters, largest first; fewer than asked for where videos are equal.
    """
    from sklearn.cluster import KMeans  # takes seconds to import
    from sklearn.exceptions import ConvergenceWarning

    x = unit(features)
    count = min(count or min(max(2, round((len(x) / 2) ** 0.5)), MOST_CLUSTERS), len(x))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', ConvergenceWarning)  # fewer different videos than clusters
        model = KMeans(count, n_init=4, random_state=0).fit(x)
    distance = np.linalg.norm(x - model.cluster_centers_[model.labels_], axis=1)
    members = [np.flatnonzero(model.labels_ == number) for number in np.unique(model.labels_)]
    return sorted((found[np.argsort(distance[found], kind='stable')] for found in members), key=len, reverse=True)
