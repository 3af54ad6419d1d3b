"""Video retrieval: each test video looks for videos of its class among its nearest neighbours in train."""

from collections.abc import Callable, Iterator

import numpy as np

from vididi_jax.evaluate.metrics import confusion
from vididi_jax.evaluate.protocol import Fold
from vididi_jax.evaluate.recognition import Evaluation, Outcome, features_of, finish, open_evaluation
from vididi_jax.evaluate.results import alone
from vididi_jax.measures import DECIMALS, join, unit
from vididi_jax.train.processes import on_process_zero

ORDERS = (0, 1, 2)
BLOCK = 1024  # videos
APART = -2.0  # instead of a similarity, which is -1 or more


def kinds(features: dict[int, np.ndarray]) -> dict[str, np.ndarray]:
    """The features that are compared, by name, from those of orders 0, 1, 2."""
    return {'V': features[0], 'dV': features[1], 'd2V': features[2], 'joined': join(features[0], features[1])}


def neighbours(
    query: np.ndarray, gallery: np.ndarray, count: int, apart: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """The nearest of the gallery to each query by cosine similarity, nearest first; ties keep the gallery's order.

    Similarities are computed in float64 and rounded to DECIMALS: a matrix product may round equal rows differently.
    Only BLOCK videos of each side are held against each other at a time: memory grows with Q x count, not with Q x G.

    Args:
      query: (Q, D).
      gallery: (G, D).
      count: how many; all, if the gallery has fewer.
      apart: parts of the queries (Q,) and of the gallery (G,), as numbers; nothing of its own part is near a query.

    Returns:
      (Q, min(count, G)) int indices into the gallery; -1 where too few are left.
    """
    query = unit(query)
    near, best = np.zeros((len(query), 0), int), np.zeros((len(query), 0))
    for first in range(0, len(gallery), BLOCK):
        columns, found = slice(first, first + BLOCK), []
        block = unit(gallery[columns])
        for rows in (slice(start, start + BLOCK) for start in range(0, len(query), BLOCK)):
            similar = np.round(query[rows] @ block.T, DECIMALS)
            if apart:
                similar[apart[0][rows, None] == apart[1][None, columns]] = APART
            found.append(_merge(near[rows], best[rows], similar, first, count))
        near, best = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return np.where(best == APART, -1, near)


def _merge(near: np.ndarray, best: np.ndarray, similar: np.ndarray, first: int, count: int) -> tuple:
    """The nearest of `near` (N, K), whose similarities are `best`, and of the videos from number `first` on."""
    columns = np.arange(similar.shape[1])
    if near.shape[1] == count:  # a later video loses a tie: it must be nearer than the last one
        columns = np.flatnonzero((similar > best[:, -1:]).any(axis=0))
    numbers = np.broadcast_to(first + columns, (len(similar), len(columns)))
    near, best = np.concatenate([near, numbers], 1), np.concatenate([best, similar[:, columns]], 1)
    order = _largest(best, count)
    return np.take_along_axis(near, order, 1), np.take_along_axis(best, order, 1)


def _largest(values: np.ndarray, count: int) -> np.ndarray:
    """Columns of the `count` largest of each row, in order; of equal ones the first. `values` are whole 10^-DECIMALS.

    As distinct integers, value before column, they can be parted by size before any is sorted, which is most of it.
    """
    width = values.shape[1]
    keys = np.rint(values * 10**DECIMALS).astype(np.int64) * width + np.arange(width)[::-1]
    parted = np.argpartition(keys, width - count, axis=1)[:, -count:] if count < width else np.indices(keys.shape)[1]
    order = np.argsort(-np.take_along_axis(keys, parted, 1), axis=1)
    return np.take_along_axis(parted, order, 1)


def recall_at(order: np.ndarray, query_labels: np.ndarray, gallery_labels: np.ndarray, ks: tuple[int, ...]) -> dict:
    """R@k: percentage of queries with a video of their class among their k nearest.

    Args:
      order: (Q, K) see `neighbours`; K is the largest k, or G if that is less.
      query_labels, gallery_labels: (Q,) and (G,) ints. A query whose class the gallery lacks is a miss.
      ks: the k to report; of a gallery of fewer than k all are looked at.

    Returns:
      {'R@1': percent, ...}.
    """
    hits = (gallery_labels[order] == query_labels[:, None]) & (order >= 0)
    return {f'R@{k}': 100 * float(hits[:, :k].any(axis=1).mean()) for k in ks}


def chance_recall(query_labels: np.ndarray, gallery_labels: np.ndarray) -> float:
    """R@1 in percent of a random pick from the gallery."""
    counts = np.bincount(gallery_labels, minlength=query_labels.max() + 1)
    return 100 * float(counts[query_labels].mean() / len(gallery_labels))


def prepare(config, workdir: str) -> Evaluation:
    """Check the config and the data, and load the encoder."""
    return open_evaluation(config, workdir, ORDERS)


def nearest(evaluation: Evaluation, features: Callable, count: int) -> Iterator[tuple[Fold, np.ndarray, dict]]:
    """Each fold, the labels of its gallery, and {kind: the `neighbours` of its queries in that gallery}.

    Folds that leave out one part each of the same videos are searched all at once: a gallery is then all of the videos.
    """
    folds = evaluation.protocol.folds
    (everything, *others) = next(iter(evaluation.protocol.sides.values()))
    if 'all' not in evaluation.protocol.sides or others:
        for fold in folds:
            query, gallery = (kinds(features(side)) for side in (fold.test, fold.train))
            yield fold, fold.train.labels, {kind: neighbours(query[kind], gallery[kind], count) for kind in query}
        return
    parts = np.full(len(everything.source), -1)
    for number, fold in enumerate(folds):
        parts[fold.test.videos] = number
    parts = parts[everything.videos]
    near = {kind: neighbours(x, x, count, (parts, parts)) for kind, x in kinds(features(everything)).items()}
    for number, fold in enumerate(folds):
        rows = np.flatnonzero(parts == number)
        yield fold, everything.labels, {kind: found[rows] for kind, found in near.items()}


@on_process_zero
def search(evaluation: Evaluation, features: Callable) -> list[Outcome]:
    """The outcome of each fold, from `features_of(evaluation, ORDERS)`."""
    outcomes, ks = [], evaluation.config.retrieval.ks
    for fold, known, order in nearest(evaluation, features, max(ks)):
        asked = fold.test.labels
        outcomes.append(Outcome(
            {kind: recall_at(near, asked, known, ks) for kind, near in order.items()},
            chance_recall(asked, fold.train.labels),
            confusion(asked, known[order['joined'][:, 0]], len(fold.test.source.label_names)),
            {kind: known[near[:, 0]] == asked for kind, near in order.items()}))
    return outcomes


@alone
def evaluate(evaluation: Evaluation) -> dict:
    """What `run` does after `prepare`."""
    return finish(evaluation, 'retrieval', search(evaluation, features_of(evaluation, ORDERS)))


def run(config, workdir: str) -> dict:
    """Retrieval with the encoder of `workdir`; prints a table and writes `eval/NAME/results.json`."""
    return evaluate(prepare(config, workdir))
