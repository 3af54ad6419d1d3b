"""What all evaluations by recognition have in common: how they start, and the one form of their results."""

import csv
from collections.abc import Callable
from io import StringIO
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import ml_collections
import numpy as np

from vididi_jax.data.source import RecordSource
from vididi_jax.errors import UserError
from vididi_jax.evaluate.features import video_features
from vididi_jax.evaluate.metrics import over_folds
from vididi_jax.evaluate.protocol import Fold, Protocol, Side, open_protocol
from vididi_jax.evaluate.results import check_name, write_results
from vididi_jax.evaluate.views import Views, read_views
from vididi_jax.fields import check_fields
from vididi_jax.files import write_whole
from vididi_jax.pictures import confusion_picture
from vididi_jax.train.encoder import Encoder, asked_encoder, check_same_everywhere
from vididi_jax.train.pretrain import trained_source, used_videos
from vididi_jax.train.processes import on_process_zero, raise_together
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

    @property
    def fine_tunes(self) -> bool:
        """Whether the encoder itself is trained on each fold: on random clips, and from scratch if it is untrained."""
        return 'finetune' in self.config


class Outcome(NamedTuple):
    """What a fold gave.

    Attributes:
      metrics: {kind of feature: {metric: percent}}.
      chance: percent of the first metric by guessing.
      confusion: counts (classes, classes), for one kind of feature, see `finish`.
      scores: {kind of feature: (N,) what each test video adds to the first metric, 0 to 1}; their mean is that metric.
      details: whatever else is to be said of the fold.
    """

    metrics: dict[str, dict[str, float]]
    chance: float
    confusion: np.ndarray
    scores: dict[str, np.ndarray]
    details: dict = {}


def open_evaluation(
    config, workdir: str, orders: tuple[int, ...], open_data: Callable[..., Protocol] = open_protocol,
) -> Evaluation:
    """Check an evaluation and load its encoder.

    Args:
      config: of the evaluation.
      workdir: of the training run.
      orders: derivative orders that will be taken of the clips.
      open_data: `(config, directory) -> Protocol`.

    Raises:
      UserError: the first thing that does not fit; also a process that has another config, other data or weights.
    """
    found = _open(config, workdir, orders, open_data)
    check_same_everywhere(config, fingerprint_of(found.protocol), found.encoder)
    return found


@raise_together
def _open(config, workdir: str, orders: tuple[int, ...], open_data: Callable[..., Protocol]) -> Evaluation:
    check_fields(config)
    check_name(workdir, config)
    training = workdir_config(workdir)
    views = read_views(config, orders, training.model.name)
    directory = config.data.dir or training.data.dir
    protocol = open_data(config, directory)
    if 'finetune' not in config:  # whose runs say first what is other
        check_name(workdir, config, protocol=protocol.name, fingerprint=fingerprint_of(protocol))
    encoder = asked_encoder(training, workdir, config.eval, scratch='finetune' in config)
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


class Ancestor(NamedTuple):
    """A run that an encoder comes from: its config, and the workdir."""

    training: ml_collections.ConfigDict
    workdir: Path


def lineage(evaluation: Evaluation) -> list[Ancestor | None]:
    """The run of an encoder, and the runs that it started from, one by `init_from` of the other.

    The last is None if that workdir is gone, or has no config, as one of imported weights.
    """
    runs, visited = [Ancestor(evaluation.training, evaluation.workdir)], set()
    while runs[-1] and (begun := runs[-1].training.init_from) and (origin := Path(begun).resolve()) not in visited:
        visited.add(origin)
        try:
            runs.append(Ancestor(workdir_config(origin), origin))
        except UserError:
            runs.append(None)
    return runs


def videos_of(run: Ancestor | None) -> set[tuple] | None:
    """{(data set, id, frames)} of the data of a run of pretraining; None if they are gone, or are others by now."""
    if run is None or run.training.task != 'pretrain':  # other runs learn from a part of a split, and from labels
        return None
    try:
        source = trained_source(run.training, run.workdir)
        used = used_videos(run.training, source)
    except UserError:
        return None
    return {(source.name, *video) for video in zip(source.ids[used], source.num_frames[used].tolist(), strict=True)}


def seen_in_training(evaluation: Evaluation) -> int | None:
    """How many different test videos the encoder was trained on, without labels, in its run or in one before that.

    None if none is known of, and some run of the `lineage` or its data are gone.
    """
    untrained = evaluation.config.eval.untrained
    runs = [] if untrained and evaluation.fine_tunes else lineage(evaluation)[int(untrained):]
    known = [videos_of(run) for run in runs]
    tests = [fold.test for fold in evaluation.protocol.folds]
    tested = {(test.source.name, test.source.ids[i], int(test.source.num_frames[i]))
              for test in tests for i in test.videos}
    trained = set().union(*(videos for videos in known if videos))
    files = {name: {file_of(video) for video in trained if video[0] != name and 'folder' in (video[0], name)}
             for name, *_ in tested}
    below = {part for video in trained for part in folders_of(video)}
    found = sum(video in trained or file_of(video) in files[video[0]] or video in below
                or not trained.isdisjoint(folders_of(video)) for video in tested)
    return None if not found and None in known else found


def file_of(video: tuple[str, str, int]) -> tuple[str, int]:
    """What a video is known by where a folder and a data set with lists of its own, whose ids differ, hold it both."""
    _, name, frames = video
    return PurePosixPath(name).stem, frames


def folders_of(video: tuple[str, str, int]) -> list[tuple[str, str, int]]:
    """A video of a folder, as a data set of each of the folders that it lies in has it.

    >>> folders_of(('folder', 'home/run/a.mp4', 40))
    [('folder', 'run/a.mp4', 40), ('folder', 'a.mp4', 40)]
    """
    name, path, frames = video
    parts = path.split('/') if name == 'folder' else []
    return [(name, '/'.join(parts[start:]), frames) for start in range(1, len(parts))]


def describe_fold(fold: Fold, outcome: Outcome) -> dict:
    """One fold for results.json."""
    absent = fold.absent()
    return {
        'name': fold.name, 'train_videos': len(fold.train.videos), 'test_videos': len(fold.test.videos),
        'test_videos_without_their_class_in_train': {
            'videos': int(absent.sum()), 'classes': len(set(fold.test.labels[absent]))},
        'metrics': outcome.metrics, 'chance': outcome.chance, **outcome.details}


def counts_of(evaluation: Evaluation) -> dict[str, dict[str, float]]:
    """`Side.counts` of the videos by what they are for, over all data sets.

    Videos that are only trained on, on random clips, have no 'clips_per_video'.
    """
    counts = {}
    for side, parts in evaluation.protocol.sides.items():
        rows = [part.counts(evaluation.config.eval) for part in parts]
        counts[side] = {name: sum(row[name] for row in rows) for name in rows[0]}
        counts[side]['clips_per_video'] = float(np.average(
            [row['clips_per_video'] for row in rows], weights=[row['videos'] for row in rows]))
    if evaluation.fine_tunes and 'train' in counts:
        del counts['train']['clips_per_video']
    return counts


def fingerprint_of(protocol: Protocol) -> str:
    """Of all data that an evaluation reads."""
    return '+'.join(dict.fromkeys(part.source.fingerprint for parts in protocol.sides.values() for part in parts))


def write_scores(path: Path, protocol: Protocol, outcomes: list[Outcome]) -> None:
    """`Outcome.scores` of every test video, a line each: fold, id, group, label, and a column a kind of feature."""
    text = StringIO()
    writer = csv.writer(text)
    writer.writerow(('fold', 'id', 'group', 'label', *outcomes[0].scores))
    for fold, outcome in zip(protocol.folds, outcomes, strict=True):
        for row, *scores in zip(fold.test.rows, *outcome.scores.values(), strict=True):
            writer.writerow((fold.name, *(row[name] for name in ('id', 'group', 'label')),
                             *(f'{float(score):.6g}' for score in scores)))
    write_whole(path, text.getvalue())


@on_process_zero
def finish(
    evaluation: Evaluation, task: str, outcomes: list[Outcome], *, confusion_of: str = '', **details,
) -> dict:
    """Write `results.json`, `videos.csv` and `confusion.png`, and print a table; returns the means over the folds.

    Args:
      evaluation: what was evaluated.
      task: for example 'retrieval'.
      outcomes: one a fold.
      confusion_of: the kind of feature whose confusion the outcomes have; '' is the last kind.
      **details: what else to say.
    """
    config, training, protocol = evaluation.config, evaluation.training, evaluation.protocol
    metrics, std = over_folds([outcome.metrics for outcome in outcomes])
    folds = [describe_fold(fold, outcome) for fold, outcome in zip(protocol.folds, outcomes, strict=True)]
    absent = np.concatenate([fold.test.labels[fold.absent()] for fold in protocol.folds])
    matrix = sum(outcome.confusion for outcome in outcomes)
    classes = protocol.folds[0].test.source.label_names
    counts, seen = counts_of(evaluation), seen_in_training(evaluation)
    encoder = 'untrained' if config.eval.untrained else 'trained'
    confusion_of = confusion_of or list(metrics)[-1]
    evaluation.folder.mkdir(parents=True, exist_ok=True)
    write_whole(evaluation.folder / 'confusion.png', confusion_picture(matrix, classes, f'{task}, {confusion_of}'))
    write_scores(evaluation.folder / 'videos.csv', protocol, outcomes)
    path = write_results(  # the last, so that a result is whole
        evaluation.workdir, config.eval.name, task=task, metrics=metrics, config=config, std=std, folds=folds,
        chance=float(np.mean([outcome.chance for outcome in outcomes])), protocol=protocol.name,
        split=protocol.folds[0].test.source.split, data=evaluation.directory, fingerprint=fingerprint_of(protocol),
        clips_x_crops=evaluation.views.text, short_video=config.eval.short_video, counts=counts,
        test_videos_without_their_class_in_train={
            'videos': len(absent), 'classes': len(set(absent.tolist()))},
        transductive=None if seen is None else seen > 0, test_videos_seen_in_pretraining=seen, encoder=encoder,
        statistics=training.get('statistics', 'plain'), checkpoint_step=evaluation.encoder.step,
        training_commits=evaluation.encoder.commits, seed=training.seed, evaluation_seed=config.seed, **details,
        confusion={'features': confusion_of, 'classes': classes, 'counts': matrix.tolist()},
        training_config=training.to_dict())
    videos = '; '.join(f'{side} {count["videos"]:,} of {count["listed"]:,} videos ({count["looped"]:,} looped, '
                       f'{count["dropped"]:,} dropped as too short)' for side, count in counts.items())
    print(f'{task} on {protocol.name}: {encoder} encoder, step {evaluation.encoder.step}, seed {training.seed}; '
          f'{videos}; {evaluation.views.text} views, '
          f'{list(counts.values())[-1]["clips_per_video"]:.1f} different clips a video')
    print_table({task: metrics}, {task: std}, len(folds))
    print(chance_text({'': float(np.mean([outcome.chance for outcome in outcomes]))}, len(folds)))
    print(f'written to {path}')
    return metrics


def chance_text(chances: dict[str, float], folds: int) -> str:
    """The line below a table of figures: the chance of each evaluation's first metric, percent.

    >>> chance_text({'retrieval': 1.96, 'linear': 0.99}, 1)
    'chance 2.0 (retrieval), 1.0 (linear)'
    """
    told = ', '.join(f'{chance:.1f}' + (f' ({part})' if part else '') for part, chance in chances.items())
    return f'chance {told}' + ('; folds count alike, whatever their number of videos' if folds > 1 else '')


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
