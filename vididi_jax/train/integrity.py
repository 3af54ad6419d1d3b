"""Checksums of the files of a checkpoint: written once it is whole, and what they say later."""

import json
from pathlib import Path

import google_crc32c

NAME = 'checksums.json'
BLOCK = 2**24  # bytes
LATER = 'commit_success.txt'  # added when all is written; nothing is read from it
DATED, DATE = '_CHECKPOINT_METADATA', 'commit_timestamp_nsecs'  # a json file, and its only field that is written later


def crc_of(path: Path) -> int:
    """crc32c of the bytes of a file, of what `DATED` says but for its date; ValueError if that cannot be read."""
    crc = google_crc32c.Checksum()
    if path.name == DATED:
        crc.update(json.dumps({**json.loads(path.read_bytes()), DATE: None}, sort_keys=True).encode())
        return int.from_bytes(crc.digest(), 'big')
    with path.open('rb') as file:
        while block := file.read(BLOCK):
            crc.update(block)
    return int.from_bytes(crc.digest(), 'big')


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob('*')
                  if path.is_file() and path not in (folder / NAME, folder / LATER))


def write_checksums(folder: Path) -> None:
    """Write `folder/checksums.json`: the crc32c of each of its files, by its path in the folder."""
    sums = {name: crc_of(folder / name) for name in _files(folder)}
    (folder / NAME).write_text(json.dumps(sums, indent=1) + '\n', encoding='utf-8')


def damage(folder: Path) -> str:
    """What is wrong with a folder of files, '' if nothing is; a folder without checksums cannot be judged, and passes.

    Raises:
      OSError: a file cannot be read, which says nothing of what is in it.
    """
    path = folder / NAME
    if not path.exists():
        return ''
    try:
        expected = json.loads(path.read_bytes())
        if not isinstance(expected, dict):
            raise ValueError('it is no table')
    except ValueError as error:  # json's and unicode's are, too
        return f'{NAME}: {error}'
    found = _files(folder)
    for name in sorted({*expected, *found}):
        if name not in found:
            return f'{name} is missing'
        if name not in expected:
            return f'{name} does not belong there'
        try:
            right = crc_of(folder / name) == expected[name]
        except (ValueError, TypeError):
            right = False
        if not right:
            return f'the checksum of {name} is wrong'
    return ''
