"""What lies in a folder: nothing is passed over in silence."""

import argparse
import errno
import os
import stat
from collections import deque
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from vididi_jax.errors import UserError

from .plan import printable, shown

EXTENSIONS = frozenset(
    '.3g2 .3gp .asf .avi .divx .f4v .flv .gif .m2ts .m2v .m4v .mkv .mov .mp4 .mpe .mpeg .mpg .mts .mxf .ogv .ts .vob '
    '.webm .wmv .y4m'.split())
ARCHIVE = '__MACOSX'  # the folder where archives made on a Mac keep what is no file elsewhere


class Tree(NamedTuple):
    """All below a folder, paths relative to it and sorted.

    Attributes:
      videos: files with a video's extension.
      missing: links with a video's extension that lead nowhere, as those of git-annex before they are fetched.
      others: number of other files, hidden ones (`._clip.mp4` on disks that a Mac wrote to) among them.
      astray: other links that lead nowhere.
      repeated: links to folders that are read under another name already.
    """

    videos: list[Path]
    missing: list[Path]
    others: int
    astray: list[Path]
    repeated: list[Path]


def check_folder(path: str, flag: str) -> Path:
    """The folder that a flag names; `UserError` if there is none, or it cannot be read."""
    if not path:
        raise UserError(f'{flag} is empty: give the folder that holds the files.')
    if not stat.S_ISDIR(_mode(Path(path))):
        raise UserError(f'{flag}={path} is not a folder: give the one that holds the files.')
    try:
        os.scandir(path).close()
    except OSError as error:
        _refuse(error)
    return Path(path)


def add_allow_missing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--allow_missing', action='store_true', help='write the videos that are there')


def check_missing(missing: Sequence[str], expected: int, root: str | Path, allowed: bool) -> None:
    """Raises `UserError` if some of the `expected` videos are missing, by their names, and that is not allowed."""
    if missing and not allowed:
        raise UserError(f'{len(missing):,} of {expected:,} videos are missing below {shown(str(root))} (the first: '
                        f'{shown(missing[0])}): complete them, or add --allow_missing.')


def check_below(file: str, where: str) -> None:
    """Raises `UserError` if a listed path, found in line `where` of a list, may lead out of the folder of videos."""
    place = PurePosixPath(file)
    if place.is_absolute() or '..' in place.parts or '\0' in file:
        raise UserError(f'{where}: {printable(file)!r} is no path below --videos.')


def is_file(path: Path) -> bool:
    """Whether there is a file, or a link to one; `UserError` if that cannot be told."""
    return stat.S_ISREG(_mode(path))


def is_hidden(path: Path) -> bool:
    """Whether a relative path, or a folder on it, is one that folders are not shown with."""
    return any(part.startswith('.') or part == ARCHIVE for part in path.parts)


def read_tree(root: Path) -> Tree:
    """Everything below a folder; links to folders are followed, and each folder is read once, so that links may circle.

    Raises:
      UserError: a folder that is not hidden cannot be read.
    """
    def refuse(error: OSError) -> None:
        if not is_hidden(Path(error.filename).relative_to(root)):
            _refuse(error)

    videos, missing, astray, repeated, others = [], [], [], [], 0
    seen, waiting = set(), deque([root])
    while waiting:  # the links after all that lies in the folder itself
        top = waiting.popleft()
        for name, folders, files in os.walk(top, onerror=refuse):
            folders.sort()  # of a folder with two names the first counts, whatever a disk lists first
            folder = Path(name)
            entry = os.stat(folder)
            if (entry.st_dev, entry.st_ino) in seen:
                repeated.append(folder.relative_to(root))
                folders.clear()
                continue
            seen.add((entry.st_dev, entry.st_ino))
            hidden = is_hidden(folder.relative_to(root))
            waiting += [folder / sub for sub in folders
                        if not is_hidden(Path(sub)) and not hidden and (folder / sub).is_symlink()]
            for path in (folder / file for file in files):
                below = path.relative_to(root)
                video = not is_hidden(below) and path.suffix.lower() in EXTENSIONS
                if video and is_file(path):
                    videos.append(below)
                elif not is_hidden(below) and path.is_symlink() and not _mode(path):
                    (missing if video else astray).append(below)
                else:
                    others += 1
    return Tree(sorted(videos), sorted(missing), others, sorted(astray), sorted(repeated))


def _mode(path: Path) -> int:
    """The type of what a path leads to, through links; 0 if nothing is there."""
    try:
        return os.stat(path).st_mode
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return 0
        _refuse(error)


def _refuse(error: OSError) -> None:
    raise UserError(f'{shown(str(error.filename))} cannot be read ({error.strerror}): change its permissions or '
                    'those of the folders above it, or move it elsewhere.') from error
