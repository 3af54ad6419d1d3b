"""HMDB51 with its official split lists (Kuehne et al., ICCV 2011): 70 train and 30 test videos a class."""

import argparse
import re
from functools import partial
from pathlib import Path

from vididi_jax.errors import UserError

from . import official
from .plan import Plan, Video
from .tree import check_below

SPLITS = {'1': 'train', '2': 'test'}  # '0': not used in this split
NAME = r'(?P<title>.+)_{label}_[a-z]_[a-z]{{2}}_np\d+_[a-z]{{2}}_[a-z]{{3}}_\d+\.avi'


def read_list(path: Path, label: str) -> list[Video]:
    """The list of a class: lines `name.avi 1`; those that end in 0 are left out.

    Clips of one class and of the same title are of one source, their group.
    """
    videos = []
    for number, line in enumerate(official.read_lines(path), 1):
        file, _, use = line.rpartition(' ')
        match = re.fullmatch(NAME.format(label=re.escape(label)), file)
        if use not in ('0', *SPLITS) or not match:
            raise UserError(f'{path}, line {number}: {line!r} is not an HMDB51 video of class {label} followed by 0, 1 '
                            'or 2.')
        check_below(file, f'{path}, line {number}')
        if use in SPLITS:
            group = f'{label}_{match["title"]}'
            videos.append(Video(Path(file).stem, f'{label}/{file}', label, group, SPLITS[use]))
    return official.check_once(videos, path)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    official.add_arguments(parser, lists='CLASS_test_splitN.txt, one a class')


def read_lists(folder: Path, number: int) -> dict[str, dict[str, list[Video]]]:
    """Class -> 'train' and 'test' -> videos of official split `number`; raises `UserError` if lists are missing."""
    ending = f'_test_split{number}.txt'
    classes = sorted(path.name.removesuffix(ending) for path in folder.glob(f'[!.]*{ending}'))
    if len(classes) != 51:
        raise UserError(f'{folder} has {len(classes)} lists CLASS{ending}, and HMDB51 has 51 classes: --splits must '
                        'hold the official lists.')
    videos = {label: read_list(folder / f'{label}{ending}', label) for label in classes}
    return {label: {split: [video for video in videos[label] if video.split == split] for split in SPLITS.values()}
            for label in classes}


def plan(arguments: argparse.Namespace) -> tuple[Plan, partial]:
    """The videos of both parts of a split, or of all three; refuses if some are missing, unless that is allowed."""
    numbers = official.split_numbers(arguments)
    lists = official.find_lists(arguments.splits, f'*_test_split{numbers[0]}.txt')
    classes = {number: read_lists(lists, number) for number in numbers}
    listed = {number: {split: [video for sides in of_class.values() for video in sides[split]]
                       for split in SPLITS.values()} for number, of_class in classes.items()}
    return official.plan('hmdb51', tuple(classes[numbers[0]]), listed, arguments)
