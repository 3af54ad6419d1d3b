"""UCF101 with its official split lists (Soomro et al., CRCV-TR-12-01, 2012)."""

import argparse
import re
from functools import partial
from pathlib import Path

from vididi_jax.errors import UserError

from . import official
from .plan import Plan, Video
from .tree import check_below

NAME = re.compile(r'v_(?P<name>.+)_(?P<group>g\d+)_c\d+$')


def read_classes(folder: Path) -> tuple[str, ...]:
    """classInd.txt, lines `1 ApplyEyeMakeup` numbered from 1 -> class names in order."""
    path = folder / 'classInd.txt'
    names = []
    for number, line in enumerate(official.read_lines(path), 1):
        index, _, name = line.partition(' ')
        if index != str(number) or not name:
            raise UserError(f'{path}, line {number}: expected "{number} ClassName" and found {line!r}.')
        names.append(name)
    return tuple(names)


def read_list(path: Path, split: str, classes: tuple[str, ...]) -> list[Video]:
    """A train or test list: lines `Class/v_Class_g01_c01.avi`, in train lists followed by the class's number from 1."""
    videos = []
    for number, line in enumerate(official.read_lines(path), 1):
        file, _, index = line.partition(' ')
        label = file.partition('/')[0]
        match = NAME.match(Path(file).stem)
        if label not in classes or not match or (index and index != str(classes.index(label) + 1)):
            raise UserError(f'{path}, line {number}: {line!r} is not a UCF101 video of a class in classInd.txt.')
        check_below(file, f'{path}, line {number}')
        videos.append(Video(Path(file).stem, file, label, f'{label}_{match["group"]}', split))
    return official.check_once(videos, path)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    official.add_arguments(parser, lists='classInd.txt, trainlist0N.txt, testlist0N.txt')


def plan(arguments: argparse.Namespace) -> tuple[Plan, partial]:
    """The videos of both lists of a split, or of all three; refuses if some are missing, unless that is allowed."""
    lists = official.find_lists(arguments.splits, 'classInd.txt')
    classes = read_classes(lists)
    listed = {number: {split: read_list(lists / f'{split}list0{number}.txt', split, classes)
                       for split in ('train', 'test')} for number in official.split_numbers(arguments)}
    return official.plan('ucf101', classes, listed, arguments)
