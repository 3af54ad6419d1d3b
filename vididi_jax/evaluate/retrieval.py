"""Video retrieval: each test video looks for videos of its class among its nearest neighbours in train."""

from collections.abc import Callable

import numpy as np

from vididi_jax.evaluate.metrics import confusion
from vididi_jax.evaluate.recognition import Evaluation, Outcome, features_of, finish, open_evaluation
from vididi_jax.measures import DECIMALS, unit
from vididi_jax.train.processes import by_first

ORDERS = (0, 1, 2)


def join(*features: np.ndarray) -> np.ndarray:
    """Features of several orders as one: each to unit length, then side by side, so that each counts the same."""
    return np.concatenate([unit(x) for x in features], axis=1)


def kinds(features: dict[int, np.ndarray]) -> dict[str, np.ndarray]:
    """The features that are compared, by name, from those of orders 0, 1, 2."""
    return {'V': features[0], 'dV': features[1], 'd2V': features[2], 'joined': join(features[0], features[1])}


def neighbours(query: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """The gallery in order of cosine similarity to each query; ties keep the gallery's order.

    Similarities are computed in float64 and rounded to DECIMALS: a matrix product may round equal rows differently.

    Args:
      query: (Q, D).
      gallery: (G, D).

    Returns:
      (Q, G) int indices into the gallery.
    """
    return np.argsort(-np.round(unit(query) @ unit(gallery).T, DECIMALS), axis=1, kind='stable')


def recall_at(order: np.ndarray, query_labels: np.ndarray, gallery_labels: np.ndarray, ks: tuple[int, ...]) -> dict:
    """R@k: percentage of queries with a video of their class among their k nearest.

    Args:
      order: (Q, G) see `neighbours`.
      query_labels, gallery_labels: (Q,) and (G,) ints. A query whose class the gallery lacks is a miss.
      ks: the k to report; of a gallery of fewer than k all are looked at.

    Returns:
      {'R@1': percent, ...}.
    """
    hits = gallery_labels[order] == query_labels[:, None]
    return {f'R@{k}': 100 * float(hits[:, :k].any(axis=1).mean()) for k in ks}


def chance_recall(query_labels: np.ndarray, gallery_labels: np.ndarray) -> float:
    """R@1 in percent of a random pick from the gallery."""
    return 100 * float((query_labels[:, None] == gallery_labels[None]).mean())


def prepare(config, workdir: str) -> Evaluation:
    """Check the config and the data, and load the encoder."""
    return open_evaluation(config, workdir, ORDERS)


@by_first
def search(evaluation: Evaluation, features: Callable) -> list[Outcome]:
    """The outcome of each fold, from `features_of(evaluation, ORDERS)`."""
    outcomes = []
    for fold in evaluation.protocol.folds:
        query, gallery = (kinds(features(side)) for side in (fold.test, fold.train))
        asked, known = fold.test.labels, fold.train.labels
        order = {kind: neighbours(query[kind], gallery[kind]) for kind in query}
        outcomes.append(Outcome(
            {kind: recall_at(near, asked, known, evaluation.config.retrieval.ks) for kind, near in order.items()},
            chance_recall(asked, known),
            confusion(asked, known[order['joined'][:, 0]], len(fold.test.source.label_names)),
            {kind: known[near[:, 0]] == asked for kind, near in order.items()}))
    return outcomes


def evaluate(evaluation: Evaluation) -> dict:
    """What `run` does after `prepare`."""
    return finish(evaluation, 'retrieval', search(evaluation, features_of(evaluation, ORDERS)))


def run(config, workdir: str) -> dict:
    """Retrieval with the encoder of `workdir`; prints a table and writes `eval/NAME/results.json`."""
    return evaluate(prepare(config, workdir))
