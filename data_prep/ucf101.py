"""UCF101 with its official split lists (Soomro et al., CRCV-TR-12-01, 2012)."""

import argparse
import re
from functools import partial
from pathlib import Path

from data_prep.folder import check_folder, decode
from data_prep.writer import Plan, Video
from vididi_jax.errors import UserError

NAME = re.compile(r'v_(?P<name>.+)_(?P<group>g\d+)_c\d+$')


def read_lines(path: Path) -> list[str]:
    """The lines of a list file, without line ends of either kind and without empty lines."""
    try:
        text = path.read_text()
    except (OSError, ValueError) as error:
        raise UserError(f'the list {path} cannot be read ({error}): --splits must hold the official lists.') from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def read_classes(folder: Path) -> tuple[str, ...]:
    """classInd.txt, lines `1 ApplyEyeMakeup` numbered from 1 -> class names in order."""
    path = folder / 'classInd.txt'
    names = []
    for number, line in enumerate(read_lines(path), 1):
        index, _, name = line.partition(' ')
        if index != str(number) or not name:
            raise UserError(f'{path}, line {number}: expected "{number} ClassName" and found {line!r}.')
        names.append(name)
    return tuple(names)


def read_list(path: Path, split: str, classes: tuple[str, ...]) -> list[Video]:
    """A train or test list: lines `Class/v_Class_g01_c01.avi`, in train lists followed by the class's number from 1."""
    videos = []
    for number, line in enumerate(read_lines(path), 1):
        file, _, index = line.partition(' ')
        label = file.partition('/')[0]
        match = NAME.match(Path(file).stem)
        if label not in classes or not match or (index and index != str(classes.index(label) + 1)):
            raise UserError(f'{path}, line {number}: {line!r} is not a UCF101 video of a class in classInd.txt.')
        videos.append(Video(Path(file).stem, file, label, f'{label}_{match["group"]}', split))
    return videos


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--videos', required=True, help='folder with one sub-folder of .avi files a class')
    parser.add_argument('--splits', required=True, help='folder with classInd.txt, trainlist0N.txt, testlist0N.txt')
    parser.add_argument('--split', type=int, default=1, choices=(1, 2, 3), help='official split (1)')
    parser.add_argument('--allow_missing', action='store_true', help='write the videos that are there')


def plan(arguments: argparse.Namespace) -> tuple[Plan, partial]:
    """The videos of both lists of a split; refuses if some are missing, unless that is allowed."""
    root, lists = check_folder(arguments.videos, '--videos'), check_folder(arguments.splits, '--splits')
    classes = read_classes(lists)
    found, missing = [], []
    for split in ('train', 'test'):
        listed = read_list(lists / f'{split}list0{arguments.split}.txt', split, classes)
        there = [video for video in listed if (root / video.path).is_file()]
        absent = [video for video in listed if not (root / video.path).is_file()]
        print(f'{split}: {len(there):,} of {len(listed):,} listed videos found, {len(absent):,} missing')
        found += there
        missing += absent
    if not found:
        raise UserError(f'{root} has none of the listed videos: --videos must hold one sub-folder a class.')
    if missing and not arguments.allow_missing:
        raise UserError(f'{len(missing):,} of {len(found) + len(missing):,} listed videos are missing below {root} '
                        f'(the first: {missing[0].path}): complete them, or add --allow_missing.')
    options = {'short_side': arguments.short_side, 'official_split': arguments.split}
    function = partial(decode, root=str(root), short_side=arguments.short_side, encoding=arguments.encoding)
    return (Plan('ucf101', str(root.resolve()), classes, tuple(found), tuple(missing), arguments.encoding, options),
            function)
