"""What all evaluations by recognition have in common: how they start, and the one form of their results."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import ml_collections
import numpy as np

from vididi_jax.data.source import RecordSource
from vididi_jax.errors import UserError
from vididi_jax.evaluate.features import video_features
from vididi_jax.evaluate.metrics import over_folds
from vididi_jax.evaluate.protocol import Fold, Protocol, Side, open_protocol
from vididi_jax.evaluate.results import write_results
from vididi_jax.evaluate.views import Views, read_views
from vididi_jax.pictures import confusion_picture
from vididi_jax.train.encoder import Encoder, trained_encoder, untrained_encoder
from vididi_jax.train.processes import by_first, everywhere
from vididi_jax.train.run import workdir_config


class Evaluation(NamedTuple):
    """A checked evaluation.

    Attributes:
      config: of the evaluation.
      workdir: of the encoder.
      training: config that the encoder was trained with.
      directory: of the data.
      encoder: trained, or untrained if `config.eval.untrained`.
      views: of each video.
      protocol: the folds.
    """

    config: ml_collections.ConfigDict
    workdir: Path
    training: ml_collections.ConfigDict
    directory: str
    encoder: Encoder
    views: Views
    protocol: Protocol

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return self.workdir / 'eval' / self.config.eval.name


class Outcome(NamedTuple):
    """What a fold gave.

    Attributes:
      metrics: {kind of feature: {metric: percent}}.
      chance: percent of the first metric by guessing.
      confusion: counts (classes, classes), for the last kind of feature.
      details: whatever else is to be said of the fold.
    """

    metrics: dict[str, dict[str, float]]
    chance: float
    confusion: np.ndarray
    details: dict = {}


@everywhere
def open_evaluation(config, workdir: str, orders: tuple[int, ...]) -> Evaluation:
    """Check an evaluation and load its encoder.

    Args:
      config: of the evaluation.
      workdir: of the training run.
      orders: derivative orders that will be taken of the clips.

    Raises:
      UserError: the first thing that does not fit.
    """
    training = workdir_config(workdir)
    views = read_views(config, orders)
    directory = config.data.dir or training.data.dir
    protocol = open_protocol(config, directory)
    encoder = untrained_encoder(training) if config.eval.untrained else trained_encoder(training, workdir)
    return Evaluation(config, Path(workdir), training, directory, encoder, views, protocol)


def features_of(evaluation: Evaluation, orders: tuple[int, ...]) -> Callable[[Side], dict[int, np.ndarray]]:
    """side of a fold -> {order: (N, D)} of its videos. Each split is computed, or read from the cache, once."""

    def place(source: RecordSource) -> tuple:
        return source.directory, source.split

    sources = {place(side.source): side.source for sides in evaluation.protocol.sides.values() for side in sides}
    features = {name: video_features(
        evaluation.encoder, source, orders=orders, views=evaluation.views, workers=evaluation.config.data.workers,
        cache=evaluation.workdir / 'eval' / 'cache') for name, source in sources.items()}
    return lambda side: {order: value[side.videos] for order, value in features[place(side.source)].items()}


def seen_in_training(evaluation: Evaluation) -> int | None:
    """How many different test videos the encoder was trained on, without labels; None if its data are gone."""
    if evaluation.config.eval.untrained:
        return 0
    try:
        source = RecordSource(evaluation.training.data.dir, evaluation.training.data.split)
    except UserError:
        return None
    known = {(source.name, row['id'], row['frames']) for row in source.rows}
    tested = {(fold.test.source.name, row['id'], row['frames'])
              for fold in evaluation.protocol.folds for row in fold.test.rows}
    return len(known & tested)


def describe_fold(fold: Fold, outcome: Outcome) -> dict:
    """One fold for results.json."""
    absent = fold.absent()
    return {
        'name': fold.name, 'train_videos': len(fold.train.videos), 'test_videos': len(fold.test.videos),
        'test_videos_without_their_class_in_train': {
            'videos': int(absent.sum()), 'classes': len(set(fold.test.labels[absent]))},
        'metrics': outcome.metrics, 'chance': outcome.chance, **outcome.details}


def counts_of(evaluation: Evaluation) -> dict[str, dict[str, int]]:
    """How many videos are listed, there and used, by what they are for; over all data sets."""
    rows = {side: [part.counts(evaluation.config.eval) for part in parts]
            for side, parts in evaluation.protocol.sides.items()}
    return {side: {name: sum(row[name] for row in found) for name in found[0]} for side, found in rows.items()}


@by_first
def finish(evaluation: Evaluation, task: str, outcomes: list[Outcome], **details) -> dict:
    """Write `results.json` and `confusion.png`, and print a table; returns the figures: means over the folds.

    Args:
      evaluation: what was evaluated.
      task: for example 'retrieval'.
      outcomes: one a fold.
      **details: what else to say.
    """
    config, training, protocol = evaluation.config, evaluation.training, evaluation.protocol
    metrics, std = over_folds([outcome.metrics for outcome in outcomes])
    folds = [describe_fold(fold, outcome) for fold, outcome in zip(protocol.folds, outcomes, strict=True)]
    matrix = sum(outcome.confusion for outcome in outcomes)
    classes = protocol.folds[0].test.source.label_names
    counts, seen = counts_of(evaluation), seen_in_training(evaluation)
    without = [fold['test_videos_without_their_class_in_train'] for fold in folds]
    encoder = 'untrained' if config.eval.untrained else 'trained'
    path = write_results(
        evaluation.workdir, config.eval.name, task=task, metrics=metrics, config=config, std=std, folds=folds,
        chance=float(np.mean([outcome.chance for outcome in outcomes])), protocol=protocol.name,
        split=protocol.folds[0].test.source.split, data=evaluation.directory, clips_x_crops=evaluation.views.text,
        short_video=config.eval.short_video, counts=counts,
        test_videos_without_their_class_in_train={
            name: sum(entry[name] for entry in without) for name in ('videos', 'classes')},
        transductive=None if seen is None else seen > 0, test_videos_seen_in_pretraining=seen, encoder=encoder,
        checkpoint_step=evaluation.encoder.step, seed=training.seed, evaluation_seed=config.seed, **details,
        confusion={'features': list(metrics)[-1], 'classes': classes, 'counts': matrix.tolist()},
        training_config=training.to_dict())
    (path.parent / 'confusion.png').write_bytes(confusion_picture(matrix, classes, f'{task}, {list(metrics)[-1]}'))
    videos = '; '.join(f'{side} {count["videos"]:,} of {count["listed"]:,} videos ({count["looped"]:,} looped, '
                       f'{count["dropped"]:,} dropped as too short)' for side, count in counts.items())
    print(f'{task} on {protocol.name}: {encoder} encoder, step {evaluation.encoder.step}, seed {training.seed}; '
          f'{videos}; {evaluation.views.text} views')
    print_table({task: metrics}, {task: std}, len(folds))
    print(f'written to {path}')
    return metrics


def print_table(metrics: dict, std: dict, folds: int) -> None:
    """A line for each evaluation and kind of feature; with standard deviations where there are several folds.

    Args:
      metrics, std: {evaluation: {kind of feature: {metric: value}}}; a metric that a line lacks is left empty.
      folds: how many there were.
    """
    names = list(dict.fromkeys(name for kinds in metrics.values() for row in kinds.values() for name in row))
    lines = [('evaluation', 'features', *names)]
    for evaluation, kinds in metrics.items():
        for kind, row in kinds.items():
            spread = std[evaluation][kind]
            lines.append((evaluation, kind, *(
                '' if name not in row else f'{row[name]:.1f}' + (f' ± {spread[name]:.1f}' if folds > 1 else '')
                for name in names)))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for words in lines:
        cells = zip(words, widths, strict=True)
        print('  '.join(f'{word:<{width}}' if i < 2 else f'{word:>{width}}' for i, (word, width) in enumerate(cells)))
    if folds > 1:
        print(f'mean ± standard deviation over {folds} folds')
