"""What data sets with official split lists have in common: lists, missing videos, the plan."""

import argparse
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

from vididi_jax.data.records import STORE_SPLIT
from vididi_jax.errors import UserError

from .folder import decode
from .plan import Plan, Video, shown
from .tree import add_allow_missing, check_folder, check_missing, is_file, read_tree


def add_arguments(parser: argparse.ArgumentParser, lists: str) -> None:
    """The flags of such a data set; `lists` says what the folder of lists holds."""
    parser.add_argument('--videos', required=True, help='folder with one sub-folder of .avi files a class')
    parser.add_argument('--splits', required=True, help=f'folder with {lists}')
    parser.add_argument('--split', default='1', choices=('1', '2', '3', 'all'), help='official split (1); all: every '
                        'video is decoded and stored once, and OUT/split1, OUT/split2 and OUT/split3 are data sets')
    add_allow_missing(parser)


def read_lines(path: Path, advice: str = '--splits must hold the official lists') -> list[str]:
    """The lines of a list file, without line ends of either kind and without empty lines; `advice` if there is none."""
    try:
        text = path.read_text(encoding='utf-8-sig')
    except (OSError, ValueError) as error:
        raise UserError(f'the list {path} cannot be read ({error}): {advice}.') from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def check_once(videos: list[Video], path: Path) -> list[Video]:
    """`videos` of a list; raises `UserError` if one is there twice: it would be stored, and would count, twice."""
    names = Counter(video.id for video in videos)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise UserError(f'{path} lists {twice[0]} {names[twice[0]]} times ({len(twice):,} such videos): --splits must '
                        'hold the official lists.')
    return videos


def find_lists(folder: str, pattern: str) -> Path:
    """The folder that --splits names; `UserError` if the lists are in a folder below it."""
    lists = check_folder(folder, '--splits')
    if not any(lists.glob(pattern)):
        for below in (*lists.glob(f'*/{pattern}'), *lists.glob(f'*/*/{pattern}')):
            raise UserError(f'--splits={folder} holds no {pattern}: give --splits={below.parent}, which does.')
    return lists


def _advice(root: Path, listed: list[Video]) -> str:
    """What to give as --videos instead of a folder that has none of the listed videos at their place."""
    paths = {Path(video.path).stem: Path(video.path) for video in listed}
    for path in read_tree(root).videos:
        if path.stem not in paths:
            continue
        wanted = paths[path.stem]
        if path.suffix != wanted.suffix:
            return (f'it has {shown(str(path))}, and the official lists name {wanted.name}: give the original '
                    f'{wanted.suffix} files, or prepare these with `python -m data_prep folder`, without the split')
        if path.parts[-len(wanted.parts):] == wanted.parts:
            return f'give --videos={root.joinpath(*path.parts[:-len(wanted.parts)])}, which has them'
        return f'it has {shown(str(path))}, and should have {wanted}: put each video into the folder of its class'
    return f'--videos must hold one sub-folder a class, as {listed[0].path}'


def split_numbers(arguments: argparse.Namespace) -> tuple[int, ...]:
    """The official splits that --split names."""
    return (1, 2, 3) if arguments.split == 'all' else (int(arguments.split),)


def plan(
    name: str, classes: tuple[str, ...], listed: dict[int, dict[str, list[Video]]], arguments: argparse.Namespace
) -> tuple[Plan, partial]:
    """What to write of the listed videos, and how to decode them.

    Args:
      name: of the data set.
      classes: their names.
      listed: number of an official split -> 'train' and 'test' -> videos. Of several splits, each is a view.
      arguments: the command line.

    Raises:
      UserError: listed videos are missing, unless that is allowed; or all of them are; or a group of videos (clips of
        one source) is on both sides of a split.
    """
    root = check_folder(arguments.videos, '--videos')
    there = {path: is_file(root / path) for path in dict.fromkeys(
        video.path for sides in listed.values() for videos in sides.values() for video in videos)}
    for number, sides in listed.items():
        of_group = {}
        for split, videos in sides.items():
            found = sum(there[video.path] for video in videos)
            print(f'{f"split{number} " if len(listed) > 1 else ""}{split}: {found:,} of {len(videos):,} listed videos '
                  f'found, {len(videos) - found:,} missing')
            for video in videos:
                if of_group.setdefault(video.group, split) != split:
                    raise UserError(f'the lists have clips of the source {video.group!r} in split {split!r} and in '
                                    f'{of_group[video.group]!r}: they are not the official ones.')
    options, views = {'short_side': arguments.short_side}, {}
    if len(listed) > 1:
        views = {f'split{number}': tuple(video for videos in sides.values() for video in videos)
                 for number, sides in listed.items()}
        every = {video.id: replace(video, split=STORE_SPLIT) for videos in views.values() for video in videos}
        everything = list(every.values())
    else:
        (number, sides), = listed.items()
        options['official_split'] = number
        everything = [video for videos in sides.values() for video in videos]
    found, missing = (tuple(video for video in everything if there[video.path] == wanted) for wanted in (True, False))
    if not found:
        raise UserError(f'{root} has none of the listed videos: {_advice(root, everything)}.')
    check_missing([video.path for video in missing], len(everything), root, arguments.allow_missing)
    function = partial(decode, root=str(root.resolve()), short_side=arguments.short_side, encoding=arguments.encoding)
    return Plan(name, str(root.resolve()), classes, found, missing, arguments.encoding, options, views=views), function
