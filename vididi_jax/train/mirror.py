"""The folder of a run, kept at a URL as well, which fsspec opens: what `--mirror` does.

The run works in its folder. Once a minute and when it ends, what has changed is copied, in an order that leaves at the
URL at every moment what a run leaves that is killed: metrics are never behind the checkpoints, and of a checkpoint
comes last what says that it is whole. So whoever has lost the folder goes on from the URL.
"""

import json
import logging
import os
import posixpath
import re
import socket
import tempfile
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from vididi_jax.data import storage
from vididi_jax.errors import UserError
from vididi_jax.lock import NAME as LOCK
from vididi_jax.train import integrity
from vididi_jax.train.processes import is_first, raise_together

logger = logging.getLogger(__name__)

EVERY = 60.0  # seconds between copies
CONFIG, METRICS, CHECKPOINTS = 'config.json', 'metrics.jsonl', 'checkpoints'
OWNER = 'mirror.json'  # at the URL alone: which folder is kept there
TEMPORARY = '.tmp', '.part.npz'  # how names of files end that are not whole yet


@contextmanager
def mirrored(workdir: str | Path, url: str | None) -> Iterator[None]:
    """Within the `with`, `workdir` is kept at `url`; if it does not exist, or is empty, it is copied from there first.

    Of several processes the first copies. What cannot be copied is tried again a minute later; at the end it is an
    error, unless there is one already.

    Args:
      workdir: folder of a run.
      url: where it is kept; None for nowhere.

    Raises:
      UserError: `url` cannot be read or written, or has files of another run, or of this one that `workdir` does not
        have.
    """
    if url is None:
        yield
        return
    mirror = raise_together(lambda: begun(Path(workdir), url) if is_first() else None)()
    if mirror is None:
        yield
        return
    ended = threading.Event()
    thread = threading.Thread(target=_keep, args=(mirror, ended), daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        ended.set()
        thread.join()
        _try(mirror)  # what went wrong before is what is to be told
        raise
    ended.set()
    thread.join()
    mirror.copy()
    print(f'copied to {url}', flush=True)


def begun(folder: Path, url: str) -> 'Mirror':
    """A mirror whose folder and URL fit together."""
    mirror = Mirror(folder, url)
    mirror.begin()
    return mirror


def _keep(mirror: 'Mirror', ended: threading.Event) -> None:
    while not ended.wait(EVERY):
        _try(mirror)


def _try(mirror: 'Mirror') -> None:
    try:
        mirror.copy()
    except Exception as error:  # a thread would end of it, and nobody hear of it
        logger.warning('not copied: %s', error)


class Mirror:
    """A folder, and the place at a URL where it is kept."""

    def __init__(self, folder: Path, url: str):
        self._folder, self._url = folder, url.rstrip('/')
        self._system, self._path = storage.open_system(self._url)
        self._kept: dict[str, tuple[int, int]] = {}  # what is at the URL: size and time of what it was copied from
        self._owner = json.dumps({'host': socket.gethostname(), 'folder': str(folder.absolute())}).encode()

    def begin(self) -> None:
        """Copy the folder from the URL if it is not here; see to it that both are of one run if it is."""
        there, here = self._list(), self._files()
        if there and not here and not (self._folder.is_dir() and any(self._folder.iterdir())):
            self._fetch(there)
            self._kept = {name: about for name, about in self._files().items() if name in there}
        elif there:
            self._check(there, here)
            self._kept = {name: here[name] for name, size in there.items()
                          if _checkpoint(name) and name in here and here[name][0] == size}
        self._write(OWNER, lambda to: self._system.pipe_file(to, self._owner))  # if not, that is known now

    def _check(self, there: dict[str, int], here: dict[str, tuple[int, int]]) -> None:
        """Raises `UserError` if the URL has what the folder does not have: of the run, or of one of its evaluations."""
        if CONFIG not in there and (foreign := sorted(there.keys() - here.keys())):
            raise UserError(f'{self._url} is not the place of a run (it has {foreign[0]}): give another --mirror.')
        evaluations = {_place(name) for name in there if _checkpoint(name)} & {_place(name) for name in here}
        for run in ('', *sorted(evaluations - {''})):
            newest, own = _newest(there, run), _newest(here, run)
            is_behind = newest < own and _sums(run, newest) not in here  # of checkpoints that were deleted here since
            mark = posixpath.join(run, CONFIG) if newest < 0 or is_behind else _sums(run, newest)
            if mark in there and (mark not in here or self._read(mark) != (self._folder / mark).read_bytes()):
                raise UserError(
                    f'{self._url} has the {mark} of another run than {self._folder}, or of a later state: give another '
                    '--mirror, or go on with what is there in a --workdir that does not exist.')

    def copy(self) -> None:
        """Copy what has changed, and delete at the URL the checkpoints that the run has deleted.

        Raises:
          UserError: the URL cannot be written to, or another folder is kept there by now.
        """
        if (owner := self._read(OWNER)) != self._owner:
            raise UserError(f'{self._url} is where another folder is kept by now ({owner.decode(errors="replace")}): '
                            'stop one of the two commands.')
        files = self._files()
        for name in sorted(files, key=_rank):
            if self._kept.get(name) != files[name]:
                try:
                    self._write(name, partial(self._system.put_file, str(self._folder / name)))
                except UserError:
                    if (self._folder / name).exists():
                        raise
                    return self.copy()  # the run has deleted it by now
                self._kept[name] = files[name]
        for folder in {*map(_checkpoint, self._kept)} - {*map(_checkpoint, files)} - {''}:
            for name in (f'{folder}/{integrity.NAME}', folder):
                storage.persist(lambda name=name: self._remove(name), storage.join(self._url, name), 'deleted')
            self._kept = {name: about for name, about in self._kept.items() if _checkpoint(name) != folder}

    def _files(self) -> dict[str, tuple[int, int]]:
        """Size and time of each file that is kept, by its name in the folder."""
        found = {}
        for folder, _, files in os.walk(self._folder):
            for path in (Path(folder) / file for file in files if file != LOCK):
                name = path.relative_to(self._folder).as_posix()
                unfinished = f'/{CHECKPOINTS}/' in f'/{name}' and not _checkpoint(name)
                if not (unfinished or name.endswith(TEMPORARY)):
                    with suppress(FileNotFoundError):  # the run has deleted it by now
                        found[name] = path.stat().st_size, path.stat().st_mtime_ns
        return found

    def _list(self) -> dict[str, int]:
        """Size of each file at the URL, by its name there."""
        self._system.invalidate_cache()
        found = storage.persist(lambda: self._system.find(self._path, detail=True), self._url)
        start = f'{self._path.rstrip("/")}/'
        names = {path.removeprefix(start): about['size'] for path, about in found.items() if path.startswith(start)}
        return {name: size for name, size in names.items() if name != OWNER and name and not name.endswith('/')}

    def _fetch(self, there: dict[str, int]) -> None:
        """All files at the URL into the folder, at once; a checkpoint that is not whole stays there."""
        checkpoints = {*map(_checkpoint, there)} - {''}
        unfinished = {folder for folder in checkpoints if f'{folder}/{integrity.NAME}' not in there}
        for folder in sorted(unfinished):
            logger.warning('%s/%s is not whole: it is left there.', self._url, folder)
        names = [name for name in there if _checkpoint(name) not in unfinished]
        if odd := [name for name in names if '..' in PurePosixPath(name).parts]:
            raise UserError(f'{self._url} has a file {odd[0]!r}, which leads out of it: give another --mirror.')
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._folder.parent, prefix=f'{self._folder.name}.incomplete-') as place:
            folder = Path(place) / 'run'
            folder.mkdir()
            for name in tqdm(names, unit='file', desc=f'copying {self._url}', leave=False, dynamic_ncols=True):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                storage.persist(lambda name=name: self._get(name, folder / name, there[name]),
                                storage.join(self._url, name))
            os.replace(folder, self._folder)

    def _get(self, name: str, to: Path, size: int) -> None:
        self._system.get_file(posixpath.join(self._path, name), str(to))
        if size is not None and to.stat().st_size != size:
            raise OSError(f'{to.stat().st_size:,} of {size:,} bytes')

    def _read(self, name: str) -> bytes:
        return storage.persist(lambda: self._system.cat_file(posixpath.join(self._path, name)),
                               storage.join(self._url, name))

    def _write(self, name: str, write: Callable[[str], None]) -> None:
        to = posixpath.join(self._path, name)

        def attempt() -> None:
            try:
                write(to)
            except FileNotFoundError:  # for want of a folder, which object stores have not, or of a bucket
                if not self._system.exists(self._path.partition('/')[0] or '/'):
                    raise
                self._system.makedirs(posixpath.dirname(to), exist_ok=True)
                write(to)

        storage.persist(attempt, storage.join(self._url, name), 'written')

    def _remove(self, name: str) -> None:
        with suppress(FileNotFoundError):
            self._system.rm(posixpath.join(self._path, name), recursive=True)


def _checkpoint(name: str) -> str:
    """The folder of the checkpoint that a file is of, by its name; '' if it is of none.

    >>> _checkpoint('checkpoints/40/meta/metadata'), _checkpoint('eval/finetune/fold_0/checkpoints/40/checksums.json')
    ('checkpoints/40', 'eval/finetune/fold_0/checkpoints/40')
    """
    found = re.match(f'((.+/)?{CHECKPOINTS}/[0-9]+)/', name)
    return found[1] if found else ''


def _place(name: str) -> str:
    """The folder of the run, or of the run of an evaluation, that a file is of."""
    folder = _checkpoint(name)
    return posixpath.dirname(posixpath.dirname(folder) if folder else name)


def _sums(run: str, step: int) -> str:
    """The file that says of a run's checkpoint that it is whole."""
    return posixpath.join(run, CHECKPOINTS, str(step), integrity.NAME)


def _newest(names: Collection[str], run: str) -> int:
    """The step of a run's latest checkpoint that is whole; -1 if there is none."""
    steps = {int(posixpath.basename(_checkpoint(name))) for name in names if _checkpoint(name) and _place(name) == run}
    return max((step for step in steps if _sums(run, step) in names), default=-1)


def _rank(name: str) -> tuple:
    """When a file is copied: configs, metrics, checkpoints, which are no newer, and what was made of these."""
    if folder := _checkpoint(name):
        return 2, folder, name == f'{folder}/{integrity.NAME}', name
    if posixpath.basename(name) == CONFIG:
        return 0, name
    return 3 if name.startswith(('eval/', 'report/')) and posixpath.basename(name) != METRICS else 1, name
