"""Kinetics by its official lists (Kay et al., arXiv 1705.06950): files cut already, or whole videos with --whole.

Files are found by their names, in any folders below --videos: ID_000417_000427, ID_417_427 or ID, where ID is
YouTube's, with any extension of a video. Of whole videos, which are called ID, the listed seconds are cut out. Record
and manifest call a clip ID_000417_000427, and its group is ID. Copies of Kinetics differ: what is listed, missing and
broken is counted, and of a clip that is shorter than its list says the manifest says so. A part of the data set is
drawn from the lists, before files are looked for, so that it is the same part for every copy.
"""

import argparse
from collections import defaultdict
from functools import partial
from pathlib import Path

import numpy as np

from vididi_jax.data.records import NO_LABEL
from vididi_jax.errors import UserError

from .cut import cut_span, shorter
from .decode import ENOUGH, Decoded, broken, decode_video
from .official import read_lines
from .plan import Plan, Video, shown
from .table import read_table
from .tree import add_allow_missing, check_folder, check_missing, read_tree

SPLITS = {'train': ('train',), 'val': ('val', 'validate'), 'test': ('test',)}  # and what the lists call them
COLUMNS = 'label', 'youtube_id', 'time_start', 'time_end'
LONGEST = 2  # times what is listed: a file of more is no clip
DIGITS = 9  # of a time, at most, as in AVA's lists
PAPER = {'number_of_classes': 200, 'train_videos': 40_000}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--videos', required=True, help='folder with the videos, in any folders below it')
    for split in SPLITS:
        parser.add_argument(f'--{split}', metavar='CSV',
                            help=f'official list of the {split} videos, with the columns {", ".join(COLUMNS)}')
    parser.add_argument('--whole', action='store_true',
                        help='files are whole videos: cut the listed seconds out of them')
    parser.add_argument('--classes', metavar='FILE', help='only the classes that this file names, one a line')
    parser.add_argument('--number_of_classes', type=int, metavar='N', help='only so many classes, drawn by --seed')
    parser.add_argument('--train_videos', type=int, metavar='N', help='only so many train videos, drawn by --seed')
    parser.add_argument('--fraction', type=float, metavar='F', help="only this share of each class's train videos, "
                        'drawn by --seed; a smaller share is a part of a larger one')
    parser.add_argument('--paper_subset', action='store_true', help=' '.join(
        f'--{name}={value}' for name, value in PAPER.items()) + ', the sizes of the subset of the paper')
    parser.add_argument('--seed', type=int, default=0, help='of what is drawn (0)')
    add_allow_missing(parser)


def clip_name(youtube_id: str, start: int, end: int) -> str:
    """Name of a clip, from its seconds.

    >>> clip_name('0wR5jVB-WPk', 417, 427)
    '0wR5jVB-WPk_000417_000427'
    """
    return f'{youtube_id}_{start:06d}_{end:06d}'


def seconds_of(name: str) -> tuple[int, int]:
    """Start and end of a clip, from its name."""
    return tuple(int(part) for part in name.rsplit('_', 2)[1:])


def decode(video: Video, *, root: str, whole: bool, short_side: int, encoding: str) -> Decoded:
    """Decode a clip; `reason` says so if it is shorter than listed."""
    start, end = seconds_of(video.id)
    path = Path(root) / video.path
    if whole:
        return cut_span(path, start, end, short_side, encoding)
    decoded = decode_video(path, short_side, encoding)
    seconds = len(decoded.frames) / decoded.fps if decoded.fps else end - start
    if decoded.frames and seconds > LONGEST * (end - start):
        return broken(f'it has {seconds:.1f} s, and {end - start} s are listed: whole videos want --whole')
    if decoded.frames and seconds < ENOUGH * (end - start):
        return decoded._replace(reason='; '.join(filter(None, (decoded.reason, shorter(seconds, end - start)))))
    return decoded


def read_list(path: Path, split: str) -> list[Video]:
    """A list, without paths yet; raises `UserError` with file and line for what is no row of this split."""
    _, rows = read_table(path, f'give --{split}=CSV, an official list')
    videos = {}
    for number, row in rows:
        lacking = [name for name in COLUMNS if not (row.get(name) or '').strip()]
        if lacking:
            raise UserError(f'{path}, line {number}: there is no {lacking[0]}; a list has the columns '
                            f'{", ".join(COLUMNS)}, with a value in each.')
        label, youtube_id, *times = (row[name].strip() for name in COLUMNS)
        if label == NO_LABEL or not label.isprintable():
            raise UserError(f'{path}, line {number}: the label {label!r} can be none: it holds a line end or another '
                            f'control character, or is {NO_LABEL!r}, which stands for videos without a label.')
        if (length := max(map(len, times))) > DIGITS:
            raise UserError(f'{path}, line {number}: a time of {length:,} characters is no whole number of seconds of '
                            f'at most {DIGITS} digits: repair the list.')
        if not all(time.isdecimal() for time in times) or int(times[0]) >= int(times[1]):
            raise UserError(f'{path}, line {number}: {times[0]} to {times[1]} are no whole seconds in ascending order.')
        if (row.get('split') or split).strip() not in SPLITS[split]:
            raise UserError(f'{path}, line {number}: a video of split {row["split"]!r} is in the list of --{split}.')
        name = clip_name(youtube_id, *map(int, times))
        if name in videos:
            raise UserError(f'{path}, line {number}: {name} is listed twice.')
        videos[name] = Video(name, '', label, youtube_id, split)
    if not videos:
        raise UserError(f'{path} lists no video.')
    return list(videos.values())


def draw(listed: list[Video], arguments: argparse.Namespace) -> list[Video]:
    """The part of the listed videos that is asked for, in their order."""
    _check(arguments.seed >= 0, 'seed', 'at least 0')
    rng = np.random.default_rng(arguments.seed)
    classes = sorted({video.label for video in listed})
    wanted = dict.fromkeys(PAPER) | (PAPER if arguments.paper_subset else {})
    wanted = {name: getattr(arguments, name) if getattr(arguments, name) is not None else value
              for name, value in wanted.items()}
    if arguments.classes:
        named = read_lines(Path(arguments.classes), '--classes must name a text file, with one class a line')
        unknown = sorted(set(named) - set(classes))
        if unknown or not named:
            what = f'the class {unknown[0]!r}, which no list has' if unknown else 'no class'
            raise UserError(f'{arguments.classes} names {what}: it must name classes of the lists, one a line.')
        classes = sorted(set(named))
    if wanted['number_of_classes'] is not None:
        _check(1 <= wanted['number_of_classes'] <= len(classes), 'number_of_classes', f'from 1 to {len(classes):,}')
        classes = sorted(rng.permutation(classes)[:wanted['number_of_classes']].tolist())
    wanted_classes = set(classes)
    kept = [video for video in listed if video.label in wanted_classes]
    train = [video for video in kept if video.split == 'train']
    place = dict(zip(sorted(video.id for video in train), rng.permutation(len(train)).tolist(), strict=True))
    chosen = sorted(train, key=lambda video: place[video.id])
    if arguments.fraction is not None:
        _check(0 < arguments.fraction <= 1, 'fraction', 'above 0, and at most 1')
        by_class = defaultdict(list)
        for video in chosen:
            by_class[video.label].append(video)
        chosen = [video for videos in by_class.values()
                  for video in videos[:max(1, round(arguments.fraction * len(videos)))]]
        chosen.sort(key=lambda video: place[video.id])  # not class by class: what comes next takes the first ones
    if wanted['train_videos'] is not None:
        _check(1 <= wanted['train_videos'] <= len(chosen), 'train_videos', f'from 1 to {len(chosen):,}')
        chosen = chosen[:wanted['train_videos']]
    names = {video.id for video in chosen}
    return [video for video in kept if video.split != 'train' or video.id in names]


def _check(holds: bool, flag: str, text: str) -> None:
    if not holds:
        raise UserError(f'--{flag} must be {text}.')


def is_replacement(path: Path) -> bool:
    """Whether a file lies in a folder `replacement...`, where a common copy of Kinetics has clips that it mends."""
    return any(part.lower().startswith('replacement') for part in path.parent.parts)


def find_file(video: Video, files: dict[str, list[Path]], whole: bool) -> Path | None:
    """The file of a listed clip, a replacement if there is one.

    Raises:
      UserError: there are several, and their folders do not tell which.
    """
    start, end = seconds_of(video.id)
    names = (video.group,) if whole else (video.id, f'{video.group}_{start}_{end}', video.group)
    there = {name: files.get(name, []) for name in names}
    replaced = {name: [path for path in paths if is_replacement(path)] for name, paths in there.items()}
    for found in (*replaced.values(), *there.values()):
        for folders in ({video.split}, {video.label.lower(), video.label.lower().replace(' ', '_')}):
            inside = [path for path in found if folders & {part.lower() for part in path.parent.parts}]
            found = inside or found
        if len(found) > 1:
            raise UserError(f'{video.id} may be {shown(str(found[0]))} or {shown(str(found[1]))}: move one of '
                            'them away.')
        if found:
            return found[0]
    return None


def plan(arguments: argparse.Namespace) -> tuple[Plan, partial]:
    """The drawn videos of the lists that are given; refuses if some are missing, unless that is allowed."""
    lists = {split: getattr(arguments, split) for split in SPLITS if getattr(arguments, split)}
    if not lists:
        raise UserError(f'give at least one list, as --{" or --".join(f"{split}=CSV" for split in SPLITS)}.')
    root = check_folder(arguments.videos, '--videos')
    listed = [video for split, path in lists.items() for video in read_list(Path(path), split)]
    drawn = draw(listed, arguments)
    splits = {}
    for video in drawn:
        if splits.setdefault(video.group, video.split) != video.split:
            raise UserError(f'the lists of {splits[video.group]} and of {video.split} have clips of the video '
                            f'{video.group}: they are not official lists of one release.')
    files = defaultdict(list)
    for path in read_tree(root).videos:
        files[path.stem].append(path)
    found, missing = [], []
    for video in drawn:
        path = find_file(video, files, arguments.whole)
        text = (path or Path(f'{video.id}.mp4')).as_posix()
        (found if path else missing).append(Video(video.id, text, video.label, video.group, video.split))
    clips = {}
    for video in found:
        if not arguments.whole and clips.setdefault(video.path, video.id) != video.id:
            raise UserError(f'{shown(video.path)} would be {clips[video.path]} and {video.id}: whole videos, of '
                            'which clips are listed, want --whole.')
    for split in lists:
        there, absent = (sum(video.split == split for video in videos) for videos in (found, missing))
        whole = sum(video.split == split for video in listed)
        print(f'{split}: {there:,} of {there + absent:,} {"listed" if whole == there + absent else "drawn"} videos '
              f'found, {absent:,} missing' + ('' if whole == there + absent else f'; {whole:,} are listed'))
    if replaced := sum(is_replacement(Path(video.path)) for video in found):
        print(f'{replaced:,} of them are in folders replacement..., and are read instead of files of the same name')
    unused = sum(map(len, files.values())) - len({video.path for video in found})
    print(f'{unused:,} other video files below {shown(str(root))} are not read')
    example = missing[0].id if missing else ''
    if not found:
        raise UserError(f'{root} has none of the {len(drawn):,} videos: it must hold files such as '
                        f'{missing[0].group if arguments.whole else example}.mp4, in any folders.')
    check_missing([video.id for video in missing], len(drawn), root, arguments.allow_missing)
    options = {'short_side': arguments.short_side, 'whole': arguments.whole}
    labels = tuple(sorted({video.label for video in drawn}))
    return (Plan('kinetics', str(root.resolve()), labels, tuple(found), tuple(missing), arguments.encoding, options),
            partial(decode, root=str(root.resolve()), encoding=arguments.encoding, **options))
