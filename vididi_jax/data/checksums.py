"""SHA256SUMS: the checksum of every other file of a data set directory, in the form that `sha256sum -c` checks.

It is written last, so a directory that has it is complete. Opening a data set holds small files against their
checksums; records and frames have checksums of their own (`vididi_jax.data.records`), and `data_prep verify` reads all.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from vididi_jax.data import records
from vididi_jax.errors import UserError

NAME = 'SHA256SUMS'
LINE = re.compile(r'([0-9a-f]{64})  ([^/\n]+)\n')
REPAIR = 'copy it again, or delete the data set and prepare it again'


def of_file(path: Path) -> str:
    """The checksum of a file, in hexadecimal digits; raises `OSError`."""
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def format_sums(sums: Mapping[str, str]) -> str:
    """The text of SHA256SUMS, for name -> checksum.

    >>> format_sums({'b': 64 * '1', 'a': 64 * '0'}).splitlines()[0] == 64 * '0' + '  a'
    True
    """
    return ''.join(f'{sums[name]}  {name}\n' for name in sorted(sums))


def read_sums(directory: Path) -> dict[str, str]:
    """name -> checksum, of every other file of a data set.

    Raises:
      UserError: no such directory, no complete data set there or one of an older version, checksums of other files, or
        the file is damaged.
    """
    path = directory / NAME
    if not directory.is_dir():
        raise UserError(f'the data directory {str(directory)!r} does not exist: '
                        'prepare one with `python -m data_prep` (or `vididi prep`), and set --config.data.dir to it.')
    if not path.is_file():
        if (directory / records.STORE / NAME).is_file():
            found = ', '.join(sorted(path.parent.name for path in directory.glob(f'*/{NAME}')))
            raise UserError(f'{directory} holds the data sets {found}: name one of them.')
        if (directory / 'dataset_info.json').exists() and not (directory / records.INCOMPLETE).exists():
            raise UserError(f'{directory} has no {NAME}: it is a data set of an older version, or the file was '
                            'deleted: delete the data set and prepare it again.')
        raise UserError(f'{str(directory)!r} is not a prepared data set (it has no {NAME}): '
                        'run or finish `python -m data_prep` (or `vididi prep`) first.')
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f'{path} cannot be read ({error}): {REPAIR}.') from error
    # Of either: the name is also what users call the checksums of their videos, which nobody should be told to delete.
    if not ((directory / records.PLAN).exists() or records.PLAN.encode() in data):
        raise UserError(f'{str(directory)!r} is not a prepared data set (its {NAME} is of other files): prepare one '
                        'with `python -m data_prep` (or `vididi prep`), and set --config.data.dir to it.')
    try:
        return parse_sums(data)
    except ValueError as error:
        raise UserError(f'{path} is damaged ({error}): {REPAIR}.') from error


def parse_sums(data: bytes) -> dict[str, str]:
    """name -> checksum, from the content of SHA256SUMS; raises `ValueError` if it is none."""
    text = data.decode()
    sums = {name: checksum for checksum, name in LINE.findall(text)}
    if not sums or format_sums(sums) != text:
        raise ValueError('it is not a sorted list of checksums and names')
    return sums


def read(path: Path, checksum: str) -> bytes:
    """The content of a file; raises `UserError` if it is missing, cannot be read, or is not what was written."""
    data = _there(path, Path.read_bytes)
    _compare(path, hashlib.sha256(data).hexdigest(), checksum)
    return data


def check(path: Path, checksum: str) -> None:
    """As `read`, of a file that need not be in memory."""
    _compare(path, _there(path, of_file), checksum)


def _there(path: Path, function: Callable):
    if not path.is_file():
        raise UserError(f'{path} is missing: {REPAIR}.')
    try:
        return function(path)
    except OSError as error:
        raise UserError(f'{path} cannot be read ({error}): {REPAIR}.') from error


def _compare(path: Path, found: str, checksum: str) -> None:
    if found != checksum:
        raise UserError(f'{path} is not what was written (its checksum is not the one in {NAME}): {REPAIR}.')
