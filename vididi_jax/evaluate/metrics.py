"""Figures of a classification: accuracy, confusion, means over folds."""

import numpy as np


def hits(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(N, classes) bool: whether the class with the k-th highest score is the right one; of equal scores the lower.

    Args:
      scores: (N, classes); minus infinity for a class that cannot be chosen: it is never a hit.
      labels: (N,) ints.
    """
    order = np.argsort(-scores, axis=1, kind='stable')
    return (order == labels[:, None]) & np.isfinite(np.take_along_axis(scores, order, axis=1))


def top_k(scores: np.ndarray, labels: np.ndarray, ks: tuple[int, ...] = (1, 5)) -> dict[str, float]:
    """Percentage of rows whose class is among the k with the highest scores, see `hits`.

    Args:
      scores: (N, classes).
      labels: (N,) ints.
      ks: the k to report.

    Returns:
      {'top-1': percent, ...}.
    """
    found = hits(scores, labels)
    return {f'top-{k}': 100 * float(found[:, :k].any(1).mean()) for k in ks}


def confusion(labels: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """Counts (classes, classes): row the true class, column the predicted one."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (labels, predictions), 1)
    return counts


def over_folds(found: list[dict[str, dict[str, float]]]) -> tuple[dict, dict]:
    """Mean and standard deviation (with ddof = 1; 0 of one fold) over folds of {kind: {metric: value}}."""
    def std(values: list[float]) -> float:
        return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0

    mean, std = ({kind: {name: float(summary([fold[kind][name] for fold in found])) for name in metrics}
                  for kind, metrics in found[0].items()} for summary in (np.mean, std))
    return mean, std
