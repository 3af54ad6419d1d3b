"""What data sets with official split lists have in common: lists, missing videos, the plan."""

import argparse
from functools import partial
from pathlib import Path

from data_prep.folder import decode
from data_prep.plan import Plan, Video, printable
from data_prep.tree import check_folder, is_file, read_tree
from vididi_jax.errors import UserError


def add_arguments(parser: argparse.ArgumentParser, lists: str) -> None:
    """The flags of such a data set; `lists` says what the folder of lists holds."""
    parser.add_argument('--videos', required=True, help='folder with one sub-folder of .avi files a class')
    parser.add_argument('--splits', required=True, help=f'folder with {lists}')
    parser.add_argument('--split', type=int, default=1, choices=(1, 2, 3), help='official split (1)')
    parser.add_argument('--allow_missing', action='store_true', help='write the videos that are there')


def read_lines(path: Path) -> list[str]:
    """The lines of a list file, without line ends of either kind and without empty lines."""
    try:
        text = path.read_text()
    except (OSError, ValueError) as error:
        raise UserError(f'the list {path} cannot be read ({error}): --splits must hold the official lists.') from error
    return [line.strip() for line in text.splitlines() if line.strip()]


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
            return (f'it has {printable(str(path))}, and the official lists name {wanted.name}: give the original '
                    f'{wanted.suffix} files, or prepare these with `python -m data_prep folder`, without the split')
        if path.parts[-len(wanted.parts):] == wanted.parts:
            return f'give --videos={root.joinpath(*path.parts[:-len(wanted.parts)])}, which has them'
        return f'it has {printable(str(path))}, and should have {wanted}: put each video into the folder of its class'
    return f'--videos must hold one sub-folder a class, as {listed[0].path}'


def plan(
    name: str, classes: tuple[str, ...], listed: dict[str, list[Video]], arguments: argparse.Namespace
) -> tuple[Plan, partial]:
    """What to write of the listed videos of each split, and how to decode them.

    Raises:
      UserError: listed videos are missing, unless that is allowed; or all of them are; or a group of videos (clips of
        one source) is in two splits.
    """
    root = check_folder(arguments.videos, '--videos')
    found, missing = [], []
    for split, videos in listed.items():
        there = [video for video in videos if is_file(root / video.path)]
        absent = [video for video in videos if not is_file(root / video.path)]
        print(f'{split}: {len(there):,} of {len(videos):,} listed videos found, {len(absent):,} missing')
        found += there
        missing += absent
    sides = {}
    for video in (*found, *missing):
        if sides.setdefault(video.group, video.split) != video.split:
            raise UserError(f'the lists have clips of the source {video.group!r} in split {video.split!r} and in '
                            f'{sides[video.group]!r}: they are not the official ones.')
    if not found:
        raise UserError(f'{root} has none of the listed videos: {_advice(root, missing)}.')
    if missing and not arguments.allow_missing:
        raise UserError(f'{len(missing):,} of {len(found) + len(missing):,} listed videos are missing below {root} '
                        f'(the first: {missing[0].path}): complete them, or add --allow_missing.')
    options = {'short_side': arguments.short_side, 'official_split': arguments.split}
    function = partial(decode, root=str(root), short_side=arguments.short_side, encoding=arguments.encoding)
    whole = Plan(name, str(root.resolve()), classes, tuple(found), tuple(missing), arguments.encoding, options)
    return whole, function
