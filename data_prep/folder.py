"""Any tree of video files; its sub-folders, if there are any, are the labels, unless a list says more.

A list (--list) has a line a video, with the columns path (below --videos), and label, group and split, which may be
left out. Only listed videos are read; those that are not there are missing. Without a list, links to videos that lead
nowhere are.
"""

import argparse
import os
import re
from functools import partial
from pathlib import Path, PurePosixPath

from vididi_jax.data.records import NO_LABEL
from vididi_jax.errors import UserError

from .decode import Decoded, decode_video
from .plan import Plan, Video, printable, shown
from .table import read_table
from .tree import EXTENSIONS, add_allow_missing, check_below, check_folder, check_missing, is_file, read_tree

COLUMNS = 'path', 'label', 'group', 'split'
SPLIT = re.compile(r'[A-Za-z0-9_]+')


def decode(video: Video, *, root: str, short_side: int, encoding: str) -> Decoded:
    """Decode a video of a tree."""
    return decode_video(Path(root) / video.path, short_side, encoding)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--videos', required=True, help='folder of videos; the path of a sub-folder is a label')
    parser.add_argument('--group', default='', metavar='PATTERN', help='regular expression whose first group, searched '
                        "in the file name, says which videos belong together (a person, a scene): '^([a-z]+)_'")
    parser.add_argument('--split_by_dir', action='store_true',
                        help='the first folder is the split (train, val, test), and the label is what comes after it')
    parser.add_argument('--list', metavar='CSV', help=f'videos to read, with the columns {", ".join(COLUMNS)}')
    add_allow_missing(parser)


def plan(arguments: argparse.Namespace) -> tuple[Plan, partial]:
    """`plan_folder` of a command line; raises `UserError` for what is missing without --allow_missing."""
    found, decode_one = plan_folder(
        arguments.videos, listing=arguments.list, group=arguments.group, split_by_dir=arguments.split_by_dir,
        short_side=arguments.short_side, encoding=arguments.encoding)
    check_missing([video.path for video in found.missing], len(found.videos) + len(found.missing), arguments.videos,
                  arguments.allow_missing)
    return found, decode_one


def plan_folder(videos: str, *, listing: str | None = None, group: str = '', split_by_dir: bool = False,
                short_side: int, encoding: str) -> tuple[Plan, partial]:
    """Every listed file, or every file with a video's extension, sorted by path; hidden files are none.

    Links are followed; a link to a video that is not there is a missing video.
    Who or what a video shows is not known, so without `group` each video stands for itself. Without a list and
    without `split_by_dir` all are of one split 'train'.

    Args:
      videos: the folder.
      listing: a list, see `read_list`.
      group, split_by_dir, short_side, encoding: as on the command line.

    Raises:
      UserError: options that contradict each other, no folder, no videos, two of one name in text, or a list that does
        not fit.
    """
    if listing and (group or split_by_dir):
        raise UserError('--list says the group and the split of each video: leave out --group and --split_by_dir.')
    root = check_folder(videos, '--videos')
    tree = read_tree(root)
    if not tree.videos and not listing:
        raise UserError(f'{root} holds no video files ({len(tree.missing):,} links to videos lead nowhere, and of its '
                        f'{tree.others:,} other files none is a video: not hidden, with an ending among '
                        f'{" ".join(sorted(EXTENSIONS))}): give another --videos.')
    print(f'{len(tree.videos):,} video files below {shown(str(root))}; {tree.others:,} other files are not read')
    for paths, what in ((tree.missing, 'links to videos lead nowhere, which are missing'),
                        (tree.astray, 'other links lead nowhere'),
                        (tree.repeated, 'links lead to folders that are read under another name')):
        if paths:
            print(f'{len(paths):,} {what} (the first: {shown(str(paths[0]))})')
    if listing:
        listed = read_list(Path(listing))
        there = {video.path: is_file(root / video.path) for video in listed}  # also what has another ending
        present, missing = (tuple(video for video in listed if there[video.path] == found) for found in (True, False))
        if not present:
            raise UserError(f'{root} has none of the {len(listed):,} videos that {listing} lists (the first: '
                            f'{shown(listed[0].path)}): paths are those below --videos.')
        unlisted = len({path.as_posix() for path in tree.videos} - set(there))
        print(f'{len(listed):,} listed, {len(missing):,} of them missing; {unlisted:,} video files are not listed')
    else:
        video = partial(_video, group=group, split_by_dir=split_by_dir)
        present, missing = (tuple(map(video, paths)) for paths in (tree.videos, tree.missing))
        _check_distinct(*present, *missing)
    labels = tuple(sorted({video.label for video in (*present, *missing)}))
    options = {'short_side': short_side}
    return (Plan('folder', str(root.resolve()), labels, present, missing, encoding, options),
            partial(decode, root=str(root.resolve()), encoding=encoding, **options))


def read_list(path: Path) -> list[Video]:
    """The videos of a list, in its order; raises `UserError` with file and line for what is no row of one."""
    columns, rows = read_table(path, 'give a CSV file')
    if 'path' not in columns or not rows:
        raise UserError(f'{path} must have a line a video below a first line {",".join(COLUMNS)}, of which all but '
                        'path may be left out.')
    if unknown := [name for name in columns if name not in COLUMNS]:
        raise UserError(f'{path} has a column {unknown[0]!r}, which nothing reads: columns are {", ".join(COLUMNS)}.')
    videos = {}
    labelled = any((row.get('label') or '').strip() for _, row in rows)
    for number, row in rows:
        file, label, group, split = ((row.get(name) or '').strip() for name in COLUMNS)
        where = f'{path}, line {number}'
        if None in row:
            raise UserError(f'{where}: it has more columns than the first line: put what holds a comma into quotes.')
        if labelled and not label:
            raise UserError(f'{where}: it has no label, and others have one: fill it in ({NO_LABEL} is none).')
        check_below(file, where)
        file, label = file and PurePosixPath(file).as_posix(), '' if label == NO_LABEL else label
        if not file or file in videos:
            what = f'{file!r} is listed twice' if file else 'there is no path'
            raise UserError(f'{where}: {what}.')
        if not label.isprintable():
            raise UserError(f'{where}: the label {label!r} holds a line end or another control character.')
        videos[file] = Video(file, file, label, group, _split(split or 'train', where))
    return list(videos.values())


def _check_distinct(*videos: Video) -> None:
    """Raises `UserError` if two files have one id: a byte that is not UTF-8, and the text that stands for it."""
    paths = {}
    for video in videos:
        if (other := paths.setdefault(video.id, video.path)) != video.path:
            raise UserError(f'the files {os.fsencode(other)} and {os.fsencode(video.path)}, here as bytes, would both '
                            f'be called {shown(video.id)}: rename one of them.')


def _split(name: str, where: str) -> str:
    if not SPLIT.fullmatch(name):
        raise UserError(f'{where}: {printable(name)!r} is no name of a split: use letters, digits and underscores.')
    return name


def _video(path: Path, *, group: str, split_by_dir: bool) -> Video:
    """The video that lies at a path of the tree."""
    name, split, below = printable(path.as_posix()), 'train', path
    if split_by_dir:
        if len(path.parts) < 2:
            raise UserError(f'{shown(name)} lies in no folder of a split, as train/{shown(name)} would: move it there.')
        split, below = _split(path.parts[0], name), Path(*path.parts[1:])
    return Video(name, path.as_posix(), _label(below), _group(path, group), split)


def _label(path: Path) -> str:
    label = '' if path.parent == Path('.') else printable(path.parent.as_posix())
    if label != label.strip() or not label.isprintable():
        raise UserError(f'the folder {label!r} starts or ends with a space, or holds a line end or an unusual space, '
                        'and its name is to be a label: rename it.')
    return label


def _group(path: Path, pattern: str) -> str:
    if not pattern:
        return ''
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UserError(f'--group={pattern} is no regular expression with a group in brackets ({error}).') from error
    if not expression.groups:
        raise UserError(f'--group={pattern} is no regular expression with a group in brackets (it has none).')
    match = expression.search(printable(path.name))
    found = next((text for text in match.groups() if text is not None), None) if match else None
    if found is None:
        raise UserError(f'--group={pattern} does not match {shown(str(path))}: every video needs one.')
    return found
