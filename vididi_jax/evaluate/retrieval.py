"""Video retrieval: each query video looks for videos of its class among its nearest neighbours in the gallery."""

import numpy as np

from vididi_jax.config import workdir_config
from vididi_jax.data.source import RecordSource
from vididi_jax.errors import UserError
from vididi_jax.evaluate import features as encoders
from vididi_jax.evaluate.results import write_results


def normalise(x: np.ndarray) -> np.ndarray:
    """Rows to unit Euclidean length; a row of zeros stays."""
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.finfo(x.dtype).tiny)


def join(*features: np.ndarray) -> np.ndarray:
    """Features of several orders as one: each to unit length, then side by side, so that each counts the same."""
    return np.concatenate([normalise(x) for x in features], axis=1)


def neighbours(query: np.ndarray, gallery: np.ndarray, forbidden: np.ndarray | None = None) -> np.ndarray:
    """The gallery in order of cosine similarity to each query; ties keep the gallery's order, forbidden ones come last.

    Args:
      query: (Q, D).
      gallery: (G, D).
      forbidden: (Q, G) bool, pairs that must not match.

    Returns:
      (Q, G) int indices into the gallery.
    """
    similarity = normalise(query) @ normalise(gallery).T
    if forbidden is not None:
        similarity = np.where(forbidden, -np.inf, similarity)
    return np.argsort(-similarity, axis=1, kind='stable')


def recall_at(
    query: np.ndarray, query_labels: np.ndarray, gallery: np.ndarray, gallery_labels: np.ndarray,
    ks: tuple[int, ...], forbidden: np.ndarray | None = None,
) -> dict[str, float]:
    """R@k: percentage of queries with a video of their class among their k nearest.

    Args:
      query, gallery: (Q, D) and (G, D) features, compared by cosine.
      query_labels, gallery_labels: (Q,) and (G,) ints. A query whose class the gallery lacks is a miss.
      ks: the k to report; fewer than k allowed neighbours are all looked at.
      forbidden: (Q, G) bool, pairs that must not match.

    Returns:
      {'R@1': percent, ...}.
    """
    order = neighbours(query, gallery, forbidden)
    hits = gallery_labels[order] == query_labels[:, None]
    if forbidden is not None:
        hits &= ~np.take_along_axis(forbidden, order, axis=1)
    return {f'R@{k}': 100 * float(hits[:, :k].any(axis=1).mean()) for k in ks}


def chance_recall(query_labels: np.ndarray, gallery_labels: np.ndarray, forbidden: np.ndarray | None = None) -> float:
    """R@1 in percent of a random pick from each query's allowed gallery."""
    same = query_labels[:, None] == gallery_labels[None]
    allowed = np.ones_like(same) if forbidden is None else ~forbidden
    return 100 * float(np.mean((same & allowed).sum(1) / np.maximum(allowed.sum(1), 1)))


def open_complete(directory: str, split: str, allow_missing: bool) -> RecordSource:
    """The records of a split; raises `UserError` if videos of it are missing or broken, unless that is allowed."""
    source = RecordSource(directory, split)
    counts = source.counts
    if counts['ok'] < counts['listed'] and not allow_missing:
        raise UserError(
            f'split {split!r} of {directory} has {counts["ok"]:,} of its {counts["listed"]:,} listed videos '
            f'({counts["missing"]:,} missing, {counts["broken"]:,} broken): figures on a part do not compare with '
            'others; complete it, or set --config.allow_missing=True.'
        )
    return source


def forbidden_pairs(query: RecordSource, gallery: RecordSource, same_split: bool) -> np.ndarray | None:
    """Within one split: a video must not find itself, nor one of its group."""
    if not same_split:
        return None
    groups = np.array([row['group'] or row['id'] for row in query.rows])
    return groups[:, None] == groups[None]


def run(config, workdir: str) -> dict:
    """Retrieval with the encoder of `workdir`; prints a table and writes `eval/NAME/results.json`."""
    training = workdir_config(workdir)
    directory = config.data.dir or training.data.dir
    settings = config.eval
    query = open_complete(directory, settings.query, config.allow_missing)
    gallery = open_complete(directory, settings.gallery, config.allow_missing)
    encoder = (encoders.untrained_encoder if settings.untrained else encoders.trained_encoder)(
        *(training,) if settings.untrained else (training, workdir))
    options = dict(orders=(0, 1), clips=settings.clips, frames=settings.frames, stride=settings.stride,
                   workers=config.data.workers)
    same_split = settings.query == settings.gallery
    gallery_features = encoders.video_features(encoder, gallery, **options)
    query_features = gallery_features if same_split else encoders.video_features(encoder, query, **options)
    kinds = {'V': lambda f: f[0], 'dV': lambda f: f[1], 'joined': lambda f: join(f[0], f[1])}
    labels = [np.array([source.label_names.index(row['label']) for row in source.rows]) for source in (query, gallery)]
    forbidden = forbidden_pairs(query, gallery, same_split)
    metrics = {
        kind: recall_at(pick(query_features), labels[0], pick(gallery_features), labels[1], settings.ks, forbidden)
        for kind, pick in kinds.items()}
    absent = ~np.isin(labels[0], labels[1])
    counts = {name: {**source.counts, 'videos': len(source), 'looped': sum(
        row['frames'] < (settings.frames - 1) * settings.stride + 1 for row in source.rows)}
        for name, source in (('query', query), ('gallery', gallery))}
    path = write_results(
        workdir, settings.name, task='retrieval', metrics=metrics, config=config,
        chance=chance_recall(*labels, forbidden), data=directory, query_split=settings.query,
        gallery_split=settings.gallery, clips_x_crops=f'{settings.clips} x 1 (centre)', counts=counts,
        queries_without_their_class_in_gallery={'videos': int(absent.sum()), 'classes': len(set(labels[0][absent]))},
        encoder='untrained' if settings.untrained else 'trained', checkpoint_step=encoder.step, seed=training.seed,
        training_config=training.to_dict())
    print(f'{"untrained" if settings.untrained else "trained"} encoder, step {encoder.step}: '
          f'{len(query):,} of {query.counts["listed"]:,} videos of {settings.query!r} query '
          f'{len(gallery):,} of {gallery.counts["listed"]:,} of {settings.gallery!r}, seed {training.seed}')
    print('features ' + ''.join(f'{f"R@{k}":>8}' for k in settings.ks))
    for kind, row in metrics.items():
        print(f'{kind:9}' + ''.join(f'{value:8.1f}' for value in row.values()))
    print(f'written to {path}')
    return metrics
