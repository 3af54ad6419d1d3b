"""Where a data set lies: in a folder, or at a URL that fsspec opens, such as gs://BUCKET/DIR or s3://BUCKET/DIR.

Of a data set at a URL all files but the shards are copied into a cache once, under the checksum of its SHA256SUMS. Of
the shards the bytes that are used are asked for, those of a whole batch at once. What fails is tried again, and what is
not what was asked for has failed.
"""

import errno
import fcntl
import hashlib
import os
import posixpath
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import fsspec
import google_crc32c
import numpy as np
from tqdm import tqdm

from vididi_jax.data import checksums, records
from vididi_jax.errors import UserError, check_home

TRIES = 8
PAUSE = 0.25  # seconds before the second try, twice as long before the next, up to
LONGEST = 16.0
GAP = 2**16  # bytes that are read and not used rather than asked for around: an answer takes as long as many of them
OF_THE_CACHE = errno.ENOSPC, errno.EDQUOT, errno.EROFS  # what the disk here says, not the store there
INCOMPLETE = 'incomplete-'  # how folders of copies that are being made begin
LASTING = (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError)  # does not pass by waiting


class Part(NamedTuple):
    """`length` bytes from `offset` on of the file at `place`, a pathlib.Path or a URL."""

    place: Path | str
    offset: int
    length: int


def is_url(place: str | Path) -> bool:
    """Whether a place is a URL; `DIR` and `C:\\DIR` are none.

    >>> is_url('s3://bucket/ucf101'), is_url('data/ucf101')
    (True, False)
    """
    return '://' in str(place)


def join(place: str | Path, name: str) -> str | Path:
    """The place of a file, or of another folder, seen from a folder.

    >>> join('s3://bucket/ucf101/split1', '../store')
    's3://bucket/ucf101/store'
    """
    if not is_url(place):
        return Path(place) / name
    protocol, _, rest = str(place).partition('://')
    return f'{protocol}://{posixpath.normpath(posixpath.join(rest, name))}'


def local_copy(url: str) -> Path:
    """The folder of the cache that has all files of the data set at `url` but its shards, as they should be.

    Raises:
      UserError: no data set there, it cannot be read, or the cache (see `cache_folder`) cannot be written to.
    """
    system, path = open_system(url)
    system.invalidate_cache()  # of listings, which may be from before a copy that is complete by now
    try:
        listing = posixpath.join(path, checksums.NAME)
        text, sums = persist(lambda: _read_sums(system, listing), join(url, checksums.NAME))
    except UserError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            raise
        store = posixpath.join(path, records.STORE, checksums.NAME)
        if persist(lambda: system.exists(store), url):
            raise UserError(f'{url} holds several data sets: name one of the folders in it, such as '
                            f'{join(url, "split1")}.') from error
        raise UserError(f'{url} is not a prepared data set (it has no {checksums.NAME}): copy one there, all of it.'
                        ) from error
    if records.PLAN not in sums:  # or all of a user's videos would be copied
        raise UserError(f'{url} is not a prepared data set (its {checksums.NAME} is of other files): copy one to a '
                        'place of its own.')
    names = [*(name for name in sums if not records.is_shard(name)), checksums.NAME]
    folder = cache_folder() / hashlib.sha256(text).hexdigest()[:32]

    def is_whole() -> bool:
        return all((folder / name).is_file() for name in names)

    if is_whole():
        return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / '.lock').open('wb') as lock:
            with suppress(OSError):  # of network file systems that know no locks
                fcntl.flock(lock, fcntl.LOCK_EX)  # of the processes that start together one copies
                for left in folder.glob(f'{INCOMPLETE}*'):  # by one that was killed
                    shutil.rmtree(left, ignore_errors=True)
            if not is_whole():
                _copy(system, path, url, {name: sums.get(name) for name in names}, text, folder)
    except OSError as error:
        raise UserError(f'the cache {folder} cannot be written to ({error.strerror}): make room there, or set '
                        'VIDIDI_CACHE to another folder.') from error
    return folder


def cache_folder() -> Path:
    """Where copies are kept: `VIDIDI_CACHE`, else `vididi_jax` in `XDG_CACHE_HOME`, else ~/.cache/vididi_jax."""
    for name, below in (('VIDIDI_CACHE', ''), ('XDG_CACHE_HOME', 'vididi_jax')):
        if own := os.environ.get(name):
            check_home(name, own)  # fsspec would expand it, and nothing else
            return Path(own, below)
    return Path.home() / '.cache' / 'vididi_jax'


def _copy(system, path: str, url: str, sums: dict[str, str | None], text: bytes, folder: Path) -> None:
    """The files of `sums` into `folder`, SHA256SUMS last, whose content is `text`."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=INCOMPLETE) as incomplete:
        *names, listing = sums
        for name in tqdm(names, unit='file', desc=f'copying {url}', leave=False, dynamic_ncols=True):
            persist(lambda name=name: _fetch(system, posixpath.join(path, name), Path(incomplete, name), sums[name]),
                    join(url, name))
        (Path(incomplete) / listing).write_bytes(text)
        for name in sums:
            with Path(incomplete, name).open('rb') as file:
                os.fsync(file.fileno())  # or a power cut leaves names of files that are empty
            os.replace(Path(incomplete, name), folder / name)


def _read_sums(system, path: str) -> tuple[bytes, dict[str, str]]:
    """SHA256SUMS, as it is and parsed; what an answer lacks may be whole lines."""
    text, size = system.cat_file(path), system.size(path)
    if len(text) != size:
        raise OSError(f'{len(text):,} of {size:,} bytes')
    return text, checksums.parse_sums(text)


def _fetch(system, path: str, to: Path, checksum: str) -> None:
    system.get_file(path, str(to))
    if checksums.of_file(to) != checksum:
        raise OSError(f'its checksum is not the one in {checksums.NAME}')


def sizes(folder: str | Path, names: Sequence[str]) -> list[int | None]:
    """Bytes of some files of a folder; None for what is not there."""
    if not is_url(folder):
        return [path.stat().st_size if path.is_file() else None for path in (Path(folder, name) for name in names)]
    system, path = open_system(folder)
    system.invalidate_cache()
    listed = persist(lambda: system.ls(path, detail=True), folder)
    found = {posixpath.basename(entry['name']): entry['size'] for entry in listed}
    return [found.get(name) for name in names]


def read_parts(parts: Sequence[Part], check: Callable[[int, bytes], None]) -> list[bytes]:
    """The bytes of some parts of files, which are all here or all at URLs of one file system.

    Args:
      parts: what to read.
      check: called with the number of a part and its bytes; raises `ValueError` if they are wrong. Elsewhere than here
        such a part is asked for again.

    Raises:
      UserError: what cannot be read, or is wrong.
    """
    return (_read_there if parts and is_url(parts[0].place) else _read_here)(parts, check)


def read_into(path: Path, offsets: Sequence[int], buffers: Sequence[np.ndarray]) -> list[int]:
    """Parts of one file, straight into arrays of their lengths (bytes, contiguous): the crc32c of each.

    Raises:
      UserError: the file cannot be read; where it ends too early, the checksum tells.
    """
    crcs = []
    try:
        file = os.open(path, os.O_RDONLY)
        try:
            for offset, buffer in zip(offsets, buffers, strict=True):
                os.preadv(file, (buffer,), offset)
                crcs.append(google_crc32c.value(buffer))
        finally:
            os.close(file)
    except OSError as error:
        raise wrong(Part(path, offsets[len(crcs)], len(buffers[len(crcs)])), error) from error
    return crcs


def _read_here(parts: Sequence[Part], check: Callable) -> list[bytes]:
    found, opened, file = [], None, None
    try:
        for number, part in enumerate(parts):
            if part.place is not opened:  # opened anew for each video: a large set has more shards than may be open
                if file is not None:
                    os.close(file)
                file, opened = None, None
                file, opened = os.open(part.place, os.O_RDONLY), part.place
            data = os.pread(file, part.length, part.offset)
            check(number, data)
            found.append(data)
    except (OSError, ValueError) as error:
        raise wrong(part, error) from error
    finally:
        if file is not None:
            os.close(file)
    return found


def _read_there(parts: Sequence[Part], check: Callable) -> list[bytes]:
    system, _ = open_system(parts[0].place)
    found, waiting = {}, range(len(parts))
    for pause in _pauses():
        time.sleep(pause)
        blocks = _merge(parts, waiting)
        for block, answer in zip(blocks, _ask(system, blocks), strict=True):
            if isinstance(answer, LASTING):
                raise _failed(block.place, answer) from answer
            if isinstance(answer, Exception):
                problem = block.place, answer
                continue
            for number in block.numbers:
                start = parts[number].offset - block.start
                data = answer[start : start + parts[number].length]
                try:
                    check(number, data)
                    found[number] = data
                except ValueError as error:
                    problem = block.place, error
        waiting = [number for number in waiting if number not in found]
        if not waiting:
            return [found[number] for number in range(len(parts))]
    raise _failed(*problem, TRIES) from problem[1]


class _Block(NamedTuple):
    """What one request asks for: bytes of a file that hold the parts of these numbers."""

    place: str
    start: int
    end: int
    numbers: list[int]


def _merge(parts: Sequence[Part], numbers: Sequence[int]) -> list[_Block]:
    """The parts of some numbers in few requests: those that lie less than GAP apart are asked for together."""
    blocks: list[_Block] = []
    for number in sorted(numbers, key=lambda number: parts[number]):
        place, offset, length = parts[number]
        last = blocks[-1] if blocks else None
        if last and last.place == place and offset <= last.end + GAP:
            blocks[-1] = last._replace(end=max(last.end, offset + length), numbers=[*last.numbers, number])
        else:
            blocks.append(_Block(place, offset, offset + length, [number]))
    return blocks


def _ask(system: fsspec.AbstractFileSystem, blocks: list[_Block]) -> list[bytes | Exception]:
    """The answers to all blocks, which a file system of many connections asks for at once."""
    paths = [system._strip_protocol(block.place) for block in blocks]
    try:
        return system.cat_ranges(paths, [block.start for block in blocks], [block.end for block in blocks],
                                 on_error='return')
    except Exception as error:  # whatever a client makes of it
        return [error] * len(blocks)


def open_system(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a URL, and the path there.

    Raises:
      UserError: there is none, its package is missing, or it asks its server at once and has no answer.
    """
    try:
        return fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise UserError(f'{url} cannot be opened: {error}.') from error
    except Exception as error:  # whatever a client makes of it
        raise _failed(url, error) from error


def persist(function: Callable[[], Any], url: str, done: str = 'read') -> Any:
    """What `function` returns, tried again where it fails; raises `UserError` in the end, that it cannot be `done`."""
    for pause in _pauses():
        time.sleep(pause)
        try:
            return function()
        except LASTING as error:
            raise _failed(url, error, done=done) from error
        except OSError as error:
            if error.errno in OF_THE_CACHE:
                raise
            problem = error
        except Exception as error:  # whatever a client makes of it
            problem = error
    raise _failed(url, problem, TRIES, done) from problem


def _pauses() -> Iterator[float]:
    """Seconds before each try; random, so that many readers do not come back at once."""
    yield 0.0
    for number in range(TRIES - 1):
        yield random.uniform(0.5, 1) * min(LONGEST, PAUSE * 2**number)


def _failed(url: str, error: Exception, tries: int = 1, done: str = 'read') -> UserError:
    many = f', tried {tries} times' if tries > 1 else ''
    return UserError(f'{url} cannot be {done} ({type(error).__name__}: {error}{many}): run the same command again when '
                     'it can.')


def wrong(part: Part, error: Exception) -> UserError:
    """What is said of a part of a file that is not what was written."""
    advice = 'copy the data set there again' if is_url(part.place) else (
        f'run `python -m data_prep verify {part.place.parent}` (or `vididi prep verify`)')
    return UserError(f'{part.place}, offset {part.offset}: {error}; {advice}.')
