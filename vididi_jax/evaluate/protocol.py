"""What an evaluation is made on: folds, each with training videos and test videos, and what must hold of them."""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vididi_jax.data.clips import check_stride, different_clips, frames_spanned, usable_videos
from vididi_jax.data.manifest import Picked
from vididi_jax.data.source import NoSplitError, RecordSource
from vididi_jax.errors import UserError


class Side(NamedTuple):
    """Some videos of a source: indices of its records, in its order."""

    source: RecordSource
    videos: np.ndarray

    @property
    def rows(self) -> Picked:
        """The manifest's rows, each parsed when it is asked for."""
        return Picked(self.source.rows, self.videos)

    @property
    def labels(self) -> np.ndarray:
        """(N,) class numbers."""
        return self.source.labels[self.videos]

    @property
    def groups(self) -> np.ndarray:
        """(N,) names of the groups; a video without one stands for itself."""
        return self.source.groups[self.videos]

    def counts(self, settings) -> dict[str, float]:
        """How many videos are listed, there and used, and how many of them are too short for a clip of `config.eval`.

        'looped' are used, their clips run on from the start; 'dropped' are not. 'clips_per_video': how many of the
        evenly spaced clips of a video differ, the mean over those used.
        """
        frames = self.source.num_frames[self.videos]
        short = int((frames < frames_spanned(settings.frames, settings.stride)).sum())
        lengths, times = np.unique(frames, return_counts=True)
        different = [different_clips(int(n), clips=settings.clips, length=settings.frames, stride=settings.stride)
                     for n in lengths]
        return {**self.source.counts, 'videos': len(self.videos), 'looped': short,
                'dropped': len(self.source) - len(self.videos),
                'clips_per_video': float(np.average(different, weights=times))}


class Fold(NamedTuple):
    """A part of an evaluation: what is learned from (or searched), and what is asked."""

    name: str
    train: Side
    test: Side

    def absent(self) -> np.ndarray:
        """Which test videos are of a class that no training video has; (N,) bool."""
        return ~np.isin(self.test.labels, self.train.labels)


class Protocol(NamedTuple):
    """All folds of an evaluation.

    Attributes:
      name: such as 'ucf101/split1' or 'folder/grouped'.
      folds: one a data set for 'split', one a group or part for 'grouped'.
      sides: the videos behind them, by what they are for.
    """

    name: str
    folds: tuple[Fold, ...]
    sides: dict[str, tuple[Side, ...]]


def open_nonempty(directory: str, split: str) -> RecordSource:
    """The records of a split; raises `UserError` if all of its videos are missing or broken."""
    source = RecordSource(directory, split)
    counts = source.counts
    if not len(source):
        raise UserError(f'split {split!r} of {directory} has none of its {counts["listed"]:,} listed videos '
                        f'({counts["missing"]:,} missing, {counts["broken"]:,} broken): there is nothing to evaluate; '
                        'complete it and prepare the data again.')
    return source


def open_complete(directory: str, split: str, allow_missing: bool, classes: int = 0) -> RecordSource:
    """The records of a split; raises `UserError` also if some of its videos are, unless that is allowed.

    And if its data set has fewer than so many classes.
    """
    source = open_nonempty(directory, split)
    counts, found = source.counts, len(source.label_names)
    if found < classes:
        raise UserError(f'{directory} has {found} class{"es" if found != 1 else ""}: evaluation needs labels, at least '
                        f'{classes}; sub-folders, or a --list, give them to `data_prep folder`.')
    if counts['ok'] < counts['listed'] and not allow_missing:
        raise UserError(
            f'split {split!r} of {directory} has {counts["ok"]:,} of its {counts["listed"]:,} listed videos '
            f'({counts["missing"]:,} missing, {counts["broken"]:,} broken): figures on a part do not compare with '
            'others; complete it, or set --config.allow_missing=True.'
        )
    return source


def deal(labels: np.ndarray, groups: np.ndarray, parts: int) -> np.ndarray:
    """Part of each video, 0 to `parts` - 1: whole groups, dealt in turns in order of their first class and name.

    Args:
      labels, groups: (N,), of the videos.
      parts: at most the number of groups.

    Returns:
      (N,) ints.
    """
    first = {}
    for label, group in zip(labels, groups, strict=True):
        first[group] = min(label, first.get(group, label))
    turn = {group: i % parts for i, group in enumerate(sorted(first, key=lambda group: (first[group], group)))}
    return np.array([turn[group] for group in groups])


def open_protocol(config, directory: str) -> Protocol:
    """The folds that `config.eval` asks for, checked.

    'split': the split `eval.test` against the split `eval.train` of each data set of `directory` (several, such as the
    three official splits of UCF101, are separated by commas, unless there is one of the whole name); 'ucf101/split1' is
    'split', and the data must be that.
    'grouped': the videos of split `eval.train`, each group (or each of `eval.folds` parts of whole groups) in turn
    against all others.

    Raises:
      UserError: data of another protocol, `eval.folds` without 'grouped', too few groups, labels that are all the same;
        videos that are missing or broken and classes without a training video, unless `config.allow_missing`; a video
        or a group on both sides; short videos that `eval.short_video` does not allow.
    """
    settings = config.eval
    directories = [directory] if Path(directory).is_dir() else directory.split(',')
    if directory and '' in directories:
        raise UserError(f'data.dir is {directory!r}, which has no name before or after a comma: name every data set.')
    if settings.folds and settings.protocol != 'grouped':
        raise UserError(f'eval.folds is {settings.folds}, and eval.protocol {settings.protocol!r} has no use for it: '
                        'set it to 0, or eval.protocol to grouped.')
    if settings.protocol != 'grouped':
        protocol = _split(settings, directories, config.allow_missing)
    elif len(directories) == 1:
        protocol = _grouped(settings, directory, config.allow_missing)
    else:
        raise UserError(f'data.dir names {len(directories)} data sets, and eval.protocol grouped takes one.')
    if '/' in settings.protocol and protocol.name != settings.protocol:
        raise UserError(f'eval.protocol is {settings.protocol!r} and {directory} is {protocol.name}: set data.dir to '
                        'what data_prep wrote of that split.')
    for fold in protocol.folds:
        check_classes(fold, config.allow_missing)
    return protocol


def whole(source: RecordSource) -> Side:
    """All its videos."""
    return Side(source, np.arange(len(source)))


def usable(source: RecordSource, settings) -> Side:
    """Its videos under the policy `settings.short_video` for those that are shorter than a clip; raises `UserError`."""
    frames = source.num_frames
    check_stride(frames, settings.stride, 'eval.stride')
    try:
        return Side(source, usable_videos(
            frames, frames_spanned(settings.frames, settings.stride), settings.short_video))
    except UserError as error:
        raise UserError(f'split {source.split!r} of {source.directory}, eval.short_video: {error}') from error


def _split(settings, directories: list[str], allow_missing: bool) -> Protocol:
    folds = []
    for directory in directories:
        try:
            train, test = (open_complete(directory, split, allow_missing, classes=2)
                           for split in (settings.train, settings.test))
        except NoSplitError as error:
            raise UserError(f'{str(error)[:-1]}; eval.protocol=grouped evaluates on one split alone.') from error
        number, usual = train.official_split, (settings.train, settings.test) == ('train', 'test')
        name = f'{train.name}/split{number}' if number and usual else f'{train.name}/{settings.train}-{settings.test}'
        folds.append(Fold(name, usable(train, settings), usable(test, settings)))
        check_apart(folds[-1])
    repeated = [name for name, times in Counter(fold.name for fold in folds).items() if times > 1]
    if repeated:
        raise UserError(f'two of the data sets of data.dir are {repeated[0]}: give each split once.')
    for fold, directory in zip(folds, directories, strict=True):
        here, first = fold.train.source, folds[0].train.source
        if (here.name, here.label_names) != (first.name, first.label_names):
            raise UserError(f'{directory} is of {here.name} with {len(here.label_names)} classes and {directories[0]} '
                            f'of {first.name} with {len(first.label_names)}: data.dir takes several splits of one data '
                            'set.')
    sides = {side: tuple(getattr(fold, side) for fold in folds) for side in ('train', 'test')}
    return Protocol('+'.join(fold.name for fold in folds), tuple(folds), sides)


def _grouped(settings, directory: str, allow_missing: bool) -> Protocol:
    source = open_complete(directory, settings.train, allow_missing, classes=2)
    everything = usable(source, settings)
    labels, groups = everything.labels, everything.groups
    number = len(set(groups))
    if number < 2:
        raise UserError(f'all videos of split {settings.train!r} of {directory} are of one group, so none can be left '
                        'out: set --config.eval.protocol=split, or prepare the data with --group.')
    if settings.folds > number or settings.folds < 0 or settings.folds == 1:
        raise UserError(f'split {settings.train!r} of {directory} has {number} groups and eval.folds is '
                        f'{settings.folds}: it must be 0 (each group in turn), or from 2 to the number of groups.')
    part = deal(labels, groups, settings.folds or number)
    folds = []
    for i in range(part.max() + 1):  # which are apart: each video is in one part, and so is each group
        here = part == i
        name = f'{len(set(groups[here]))} groups, part {i + 1}' if settings.folds else str(groups[here][0])
        folds.append(Fold(name, *(Side(source, everything.videos[mine]) for mine in (~here, here))))
    kind = f'{settings.folds} folds over {number} groups' if settings.folds else f'leave one of {number} groups out'
    return Protocol(f'{source.name}/grouped ({kind})', tuple(folds), {'all': (everything,)})


def check_apart(fold: Fold) -> None:
    """Raises `UserError` if a video or a group is on both sides."""
    for kind, names in (('video', [side.source.ids[side.videos] for side in (fold.train, fold.test)]),
                        ('group', [side.groups for side in (fold.train, fold.test)])):
        both = sorted(str(name) for name in set(names[0]) & set(names[1]))
        if both:
            places = {(str(side.source.place), side.source.split) for side in (fold.train, fold.test)}
            advice = ('repair the lists and prepare the data again' if len(places) > 1 else
                      'set --config.eval.test, or eval.train, to another split')
            raise UserError(f'{fold.name}: the {kind} {both[0]!r} ({len(both)} of them in all) is in train and in '
                            f'test, so test videos would find themselves or their like: {advice}.')


def check_classes(fold: Fold, allow_missing: bool) -> None:
    """Raises `UserError` if there is one class, one that is not in train, or a video without a label."""
    names = fold.train.source.label_names
    if names != fold.test.source.label_names or len(names) < 2:
        raise UserError(f'{fold.name}: {len(names)} classes in train and {len(fold.test.source.label_names)} in test: '
                        'evaluation needs labels, at least two, the same on both sides.')
    unlabelled = sum(sum(names[label] == '' for label in side.labels) for side in (fold.train, fold.test))
    if unlabelled:
        raise UserError(f'{fold.name}: {unlabelled:,} videos have no label: put them into folders of their classes, or '
                        'leave them out with `data_prep folder --list`.')
    absent = fold.absent()
    if absent.any() and not allow_missing:
        classes = sorted({names[label] for label in fold.test.labels[absent]})
        raise UserError(f'{fold.name}: {absent.sum()} test videos of {len(classes)} classes (the first: {classes[0]}) '
                        'have no training video of their class and would always count as misses: add some, or set '
                        '--config.allow_missing=True.')
