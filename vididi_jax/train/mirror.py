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

from fsspec.implementations.local import LocalFileSystem
from tqdm import tqdm

from vididi_jax.data import storage
from vididi_jax.errors import UserError
from vididi_jax.lock import NAME as LOCK
from vididi_jax.train import integrity
from vididi_jax.train.processes import is_first, raise_together

logger = logging.getLogger(__name__)

EVERY = 60.0  # seconds between copies
CONFIG, CHECKPOINTS = 'config.json', 'checkpoints'
OWNER = 'mirror.json'  # at the URL alone: which folder is kept there
TEMPORARY = '.tmp'  # how names of files end that are not whole yet
CHECKPOINT = re.compile(rf'((?:eval/.+/)?){CHECKPOINTS}/([0-9]+)/')
UNFINISHED = re.compile(rf'(?:eval/.+/)?{CHECKPOINTS}/[0-9]+[^0-9/]')  # what orbax calls those that it writes
Checkpoint = tuple[str, int]  # the folder of its run in the one that is kept, '' or 'eval/NAME/FOLDER/', and its step


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
            whole = _whole(there)
            self._kept = {name: here[name] for name, size in there.items()
                          if _checkpoint(name) in whole and name in here and here[name][0] == size}
        self._write(OWNER, lambda to: self._system.pipe_file(to, self._owner))  # if not, that is known now

    def _check(self, there: dict[str, int], here: dict[str, tuple[int, int]]) -> None:
        """Raises `UserError` if the URL has what the folder does not have."""
        for run in sorted({'', *(run for run, _ in _whole(there))}):
            newest = _newest(there, run)
            # Of checkpoints that were deleted here since.
            is_behind = newest < _newest(here, run) and _sums((run, newest)) not in here
            mark = run + CONFIG if newest < 0 or is_behind else _sums((run, newest))
            if mark not in there:
                if foreign := sorted(there.keys() - here.keys()):
                    raise UserError(f'{self._url} is not the place of a run (it has {foreign[0]}): give another '
                                    '--mirror.')
            elif mark not in here or self._read(mark) != (self._folder / mark).read_bytes():
                raise UserError(f'{self._url} has the {mark} of another run than {self._folder}, or of a later state: '
                                'give another --mirror, or go on with what is there in a --workdir that does not '
                                'exist.')

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
                checkpoint = _checkpoint(name)
                if checkpoint and name == _sums(checkpoint):
                    self._sweep(_folder(checkpoint), files)
                try:
                    self._write(name, partial(self._system.put_file, str(self._folder / name)))
                except UserError:
                    if (self._folder / name).exists():
                        raise
                    return self.copy()  # the run has deleted it by now
                self._kept[name] = files[name]
        for checkpoint in {*map(_checkpoint, self._kept)} - {*map(_checkpoint, files)} - {None}:
            for name in (_sums(checkpoint), _folder(checkpoint)):
                self._remove(name)
            self._kept = {name: about for name, about in self._kept.items() if _checkpoint(name) != checkpoint}

    def _sweep(self, folder: str, files: Collection[str]) -> None:
        """Delete at the URL what a copy left in a checkpoint that was not whole, and made anew since."""
        for name in sorted(self._list(folder).keys() - files):
            self._remove(name)

    def _files(self) -> dict[str, tuple[int, int]]:
        """Size and time of each file that is kept, by its name in the folder.

        What is written before a checkpoint, as metrics, lies above it, and is looked at after it.
        """
        found = {}
        for folder, _, files in os.walk(self._folder, topdown=False):
            for path in (Path(folder) / file for file in files if file not in (LOCK, OWNER)):
                name = path.relative_to(self._folder).as_posix()
                if not (UNFINISHED.match(name) or name.endswith(TEMPORARY)):
                    with suppress(FileNotFoundError):  # the run has deleted it by now
                        found[name] = path.stat().st_size, path.stat().st_mtime_ns
        return found

    def _list(self, folder: str = '') -> dict[str, int]:
        """Size of each file at the URL, or in a folder there, by its name there."""
        self._system.invalidate_cache()
        place = posixpath.join(self._path, folder)
        found = storage.persist(lambda: self._system.find(place, detail=True), storage.join(self._url, folder))
        start = f'{self._path.rstrip("/")}/'
        names = {path.removeprefix(start): about['size'] for path, about in found.items() if path.startswith(start)}
        return {name: size for name, size in names.items()
                if name and name != OWNER and not name.endswith(('/', TEMPORARY))}

    def _fetch(self, there: dict[str, int]) -> None:
        """All files at the URL into the folder, at once; a checkpoint that is not whole stays there."""
        lacking = {*map(_checkpoint, there)} - _whole(there) - {None}
        for checkpoint in sorted(lacking):
            logger.warning('%s/%s is not whole: it is left there.', self._url, _folder(checkpoint))
        names = [name for name in there if _checkpoint(name) not in lacking]
        if odd := [name for name in names if '..' in PurePosixPath(name).parts]:
            raise UserError(f'{self._url} has a file {odd[0]!r}, which leads out of it: give another --mirror.')
        own = self._folder.resolve()  # a link to an empty folder remains
        if os.path.ismount(own):
            raise UserError(f'{own} is a mount point, and a folder is to take its place: give one in it as --workdir.')
        own.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=own.parent, prefix=f'{own.name}.incomplete-') as place:
            folder = Path(place) / 'run'
            folder.mkdir()
            for name in tqdm(names, unit='file', desc=f'copying {self._url}', leave=False, dynamic_ncols=True):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                storage.persist(lambda name=name: self._get(name, folder / name, there[name]),
                                storage.join(self._url, name))
            os.replace(folder, own)

    def _get(self, name: str, to: Path, size: int) -> None:
        self._system.get_file(posixpath.join(self._path, name), str(to))
        if size is not None and to.stat().st_size != size:
            raise OSError(f'{to.stat().st_size:,} of {size:,} bytes')

    def _read(self, name: str) -> bytes:
        return storage.persist(lambda: self._system.cat_file(posixpath.join(self._path, name)),
                               storage.join(self._url, name))

    def _write(self, name: str, write: Callable[[str], None]) -> None:
        to = posixpath.join(self._path, name)

        def write_whole() -> None:
            if not isinstance(self._system, LocalFileSystem):  # a store shows no object that is not whole
                write(to)
                return
            write(to + TEMPORARY)
            os.replace(to + TEMPORARY, to)

        def attempt() -> None:
            try:
                write_whole()
            except FileNotFoundError:  # for want of a folder, which object stores have not, or of a bucket
                if not self._system.exists(self._path.partition('/')[0] or '/'):
                    raise
                self._system.makedirs(posixpath.dirname(to), exist_ok=True)
                write_whole()

        storage.persist(attempt, storage.join(self._url, name), 'written')

    def _remove(self, name: str) -> None:
        def attempt() -> None:
            with suppress(FileNotFoundError):
                self._system.rm(posixpath.join(self._path, name), recursive=True)

        storage.persist(attempt, storage.join(self._url, name), 'deleted')


def _checkpoint(name: str) -> Checkpoint | None:
    """The checkpoint that a file is of, by its name; None if it is of none."""
    found = CHECKPOINT.match(name)
    return (found[1], int(found[2])) if found else None


def _whole(names: Collection[str]) -> set[Checkpoint]:
    """The checkpoints that are whole."""
    return {found for found in map(_checkpoint, names) if found and _sums(found) in names}


def _newest(names: Collection[str], run: str) -> int:
    """The step of the latest checkpoint of a run that is whole; -1 if there is none."""
    return max((step for other, step in _whole(names) if other == run), default=-1)


def _folder(checkpoint: Checkpoint) -> str:
    run, step = checkpoint
    return f'{run}{CHECKPOINTS}/{step}'


def _sums(checkpoint: Checkpoint) -> str:
    """The file that says of a checkpoint that it is whole."""
    return f'{_folder(checkpoint)}/{integrity.NAME}'


def _rank(name: str) -> tuple:
    """When a file is copied: the config, metrics, checkpoints, which are no newer, and what was made of these.

    Of the last, too: fine-tuning and detection have runs of their own.
    """
    checkpoint, made = _checkpoint(name), name.startswith(('eval/', 'report/'))
    if checkpoint:
        return made, 2, checkpoint, name == _sums(checkpoint), name
    return made, int(posixpath.basename(name) != CONFIG), name
