"""Files of a data set that is being written: each appears whole, with its checksum known."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from vididi_jax import lock
from vididi_jax.data import checksums, records
from vididi_jax.data.source import open_splits
from vididi_jax.errors import UserError
from vididi_jax.lock import locked

TEMPORARY = '.tmp'  # ending of what is not whole yet
OWN_TEMPORARY = re.compile(rf'.+[.][0-9a-f]{{8}}{re.escape(TEMPORARY)}')


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Around what writes below `out`: a disk that is full, read-only or broken is one sentence."""
    try:
        yield
    except OSError as error:
        raise UserError(f'cannot write to {out} ({error}): make room there, and the same command goes on from here; or '
                        'choose another --out.') from error


@contextmanager
def unfinished(out: Path) -> Iterator[None]:
    """Within the `with` no other process writes to `out`; at its end OUT/incomplete goes, if nothing is left in it."""
    folder = out / records.INCOMPLETE
    with ExitStack() as last, locked(folder, 'choose another --out'):
        last.callback(_leave, folder)  # when the lock is released: a network file system keeps what is open
        yield


def _leave(folder: Path) -> None:
    with suppress(OSError):
        if [path.name for path in folder.iterdir()] == [lock.NAME]:
            (folder / lock.NAME).unlink()
            folder.rmdir()


def discard(out: Path) -> None:
    """Delete all that OUT/incomplete holds, but for the lock; the plan, by which `is_complete` knows it, comes last.

    Another process that finds the data set complete may delete it at the same time.
    """
    with writing(out), suppress(FileNotFoundError):
        for path in sorted((out / records.INCOMPLETE).iterdir(), key=lambda path: path.name == records.PLAN):
            if path.name != lock.NAME:
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


class Output:
    """Context of a file that appears whole, or not at all, and has its checksum in `checksum` then."""

    def __init__(self, out: Path, name: str, folder: Path | None = None):
        self.out, self.path = out, (folder or out) / name
        # Of its own: a runner of pipelines may have a shard written twice, at the same time.
        self.temporary = out / records.INCOMPLETE / f'{name}.{uuid4().hex[:8]}{TEMPORARY}'
        self.digest = hashlib.sha256()

    def __enter__(self) -> 'Output':
        with writing(self.out):
            self.file = self.temporary.open('wb')
        return self

    def write(self, data: bytes) -> None:
        with writing(self.out):
            self.file.write(data)
        self.digest.update(data)

    def __exit__(self, kind, *_) -> None:
        with writing(self.out):
            try:
                with self.file:
                    if kind is None:
                        self.file.flush()
                        os.fsync(self.file.fileno())  # else the name may reach the disk before the content
                        os.replace(self.temporary, self.path)
            finally:
                self.temporary.unlink(missing_ok=True)
        self.checksum = self.digest.hexdigest()


def write(out: Path, name: str, data: bytes, folder: Path | None = None) -> str:
    """Write a file into `folder`, by default `out`; returns its checksum."""
    with Output(out, name, folder) as file:
        file.write(data)
    return file.checksum


def clear(out: Path) -> None:
    """Delete what a run that was killed left unfinished."""
    with writing(out):
        for path in (out / records.INCOMPLETE).glob(f'*{TEMPORARY}'):
            path.unlink(missing_ok=True)


def _is_foreign(out: Path) -> bool:
    """Whether `out`, which has no plan, holds what is no file of a run that was stopped before it had written one."""
    folder = out / records.INCOMPLETE
    return (any(path != folder for path in (out.iterdir() if out.is_dir() else ()))
            or any(path.name != lock.NAME and not OWN_TEMPORARY.fullmatch(path.name)
                   for path in (folder.iterdir() if folder.is_dir() else ())))


def is_complete(out: Path, described: dict) -> bool:
    """Whether `out` holds the data set of a plan; raises `UserError` if it holds anything but that, or a part of it."""
    if out.exists() and not out.is_dir():
        raise UserError(f'{out} is a file: choose another --out.')
    complete = (out / checksums.NAME).exists()
    plan_path = out / records.PLAN if complete else out / records.INCOMPLETE / records.PLAN
    if not plan_path.exists() and _is_foreign(out):
        if (out / records.INFO).exists():
            raise UserError(f'{out} holds a data set that is damaged, or of an older version: delete it, or choose '
                            'another --out.')
        raise UserError(f'{out} is not empty and was not written by this command: choose another --out.')
    if not plan_path.exists():
        return False
    try:
        same = json.loads(plan_path.read_bytes()) == described
    except (OSError, ValueError) as error:
        raise UserError(f'{plan_path} cannot be read ({error}): delete {out}, or choose another --out.') from error
    if not same:
        raise UserError(f'{out} holds a data set of other videos, other options or an older version: choose another '
                        '--out, or delete it.')
    if complete:
        open_splits(out)  # raises if a file is damaged
        shutil.rmtree(out / records.INCOMPLETE, ignore_errors=True)  # of a run that was stopped at its very end
    return complete
