"""Any tree of video files; its sub-folders, if there are any, are the labels."""

import argparse
import re
from functools import partial
from pathlib import Path

from data_prep.decode import Decoded, decode_video
from data_prep.writer import Plan, Video, printable
from vididi_jax.errors import UserError

EXTENSIONS = frozenset(
    '.3g2 .3gp .asf .avi .divx .f4v .flv .gif .m2ts .m2v .m4v .mkv .mov .mp4 .mpe .mpeg .mpg .mts .mxf .ogv .ts .vob '
    '.webm .wmv .y4m'.split())


def decode(video: Video, *, root: str, short_side: int, encoding: str) -> Decoded:
    """Decode a video of a tree."""
    return decode_video(Path(root) / video.path, short_side, encoding)


def check_folder(path: str, flag: str) -> Path:
    """The folder that a flag names; `UserError` if it does not exist."""
    if not Path(path).is_dir():
        raise UserError(f'{flag}={path} is not a folder: give the one that holds the files.')
    return Path(path)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--videos', required=True, help='folder of videos; the path of a sub-folder is a label')
    parser.add_argument('--group', default='', metavar='PATTERN', help='regular expression whose first group, searched '
                        "in the file name, says which videos belong together (a person, a scene): '^([a-z]+)_'")


def plan(arguments: argparse.Namespace) -> tuple[Plan, partial]:
    """Every file with a video's extension, sorted by path, in one split 'train'.

    Who or what a video shows is not known, so without `--group` each video stands for itself.
    """
    root = check_folder(arguments.videos, '--videos')
    files = sorted(path.relative_to(root) for path in root.rglob('*') if path.is_file())
    found = [path for path in files if path.suffix.lower() in EXTENSIONS]
    if not found:
        raise UserError(f'{root} holds no video files (of its {len(files):,} files none ends in one of '
                        f'{" ".join(sorted(EXTENSIONS))}): give another --videos.')
    print(f'{len(found):,} video files below {root}; {len(files) - len(found):,} other files are not read')
    labels = tuple(sorted({_label(path) for path in found}))
    videos = tuple(Video(printable(path.as_posix()), path.as_posix(), _label(path), _group(path, arguments.group),
                         'train') for path in found)
    options = {'short_side': arguments.short_side}
    return (Plan('folder', str(root.resolve()), labels, videos, (), arguments.encoding, options),
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
