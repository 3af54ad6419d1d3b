"""Any tree of video files; its sub-folders, if there are any, are the labels."""

import argparse
import re
from functools import partial
from pathlib import Path

from data_prep.decode import Decoded, decode_video
from data_prep.tree import EXTENSIONS, check_folder, read_tree
from data_prep.writer import Plan, Video, printable
from vididi_jax.errors import UserError


def decode(video: Video, *, root: str, short_side: int, encoding: str) -> Decoded:
    """Decode a video of a tree."""
    return decode_video(Path(root) / video.path, short_side, encoding)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--videos', required=True, help='folder of videos; the path of a sub-folder is a label')
    parser.add_argument('--group', default='', metavar='PATTERN', help='regular expression whose first group, searched '
                        "in the file name, says which videos belong together (a person, a scene): '^([a-z]+)_'")


def plan(arguments: argparse.Namespace) -> tuple[Plan, partial]:
    """Every file with a video's extension, sorted by path, in one split 'train'; hidden files are none.

    Links are followed; a link to a video that is not there is a missing video.
    Who or what a video shows is not known, so without `--group` each video stands for itself.
    """
    root = check_folder(arguments.videos, '--videos')
    tree = read_tree(root)
    if not tree.videos:
        raise UserError(f'{root} holds no video files ({len(tree.missing):,} links to videos lead nowhere, and of its '
                        f'{tree.others:,} other files none is a video: not hidden, with an ending among '
                        f'{" ".join(sorted(EXTENSIONS))}): give another --videos.')
    print(f'{len(tree.videos):,} video files below {root}; {tree.others:,} other files are not read')
    for paths, what in ((tree.missing, 'links to videos lead nowhere, which are missing'),
                        (tree.astray, 'other links lead nowhere'),
                        (tree.repeated, 'links lead to folders that are read under another name')):
        if paths:
            print(f'{len(paths):,} {what} (the first: {printable(str(paths[0]))})')
    videos, missing = (
        tuple(Video(printable(path.as_posix()), path.as_posix(), _label(path), _group(path, arguments.group), 'train')
              for path in paths) for paths in (tree.videos, tree.missing))
    labels = tuple(sorted({video.label for video in (*videos, *missing)}))
    options = {'short_side': arguments.short_side}
    return (Plan('folder', str(root.resolve()), labels, videos, missing, arguments.encoding, options),
            partial(decode, root=str(root), encoding=arguments.encoding, **options))


def _label(path: Path) -> str:
    label = '' if path.parent == Path('.') else printable(path.parent.as_posix())
    if label != label.strip() or not label.isprintable():
        raise UserError(f'the folder {label!r} starts or ends with a space or holds a line end, and its name is to be '
                        'a label: rename it.')
    return label


def _group(path: Path, pattern: str) -> str:
    if not pattern:
        return ''
    try:
        match = re.search(pattern, printable(path.name))
        return match[1]
    except (re.error, IndexError) as error:
        raise UserError(f'--group={pattern} is no regular expression with a group in brackets ({error}).') from error
    except TypeError as error:
        raise UserError(f'--group={pattern} does not match {printable(str(path))}: every video needs one.') from error
