"""One writer a folder: a lock that goes with its process, however that ends."""

import errno
import fcntl
import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from vididi_jax.errors import UserError

NAME = 'lock'
FIELDS = {'pid', 'host', 'command', 'since'}  # of who holds it, or held it last
START = '{"pid": '  # of what is written, also where a full disk cut it


@contextmanager
def locked(folder: str | Path, advice: str) -> Iterator[None]:
    """Within the `with`, no other process can lock `folder`, which is made if it is not there.

    The lock is the kernel's, on the open file `folder/lock`: it ends with the process, so none is ever left over. The
    file stays, and says who held it last. A file system without locks is written to without one.

    Args:
      folder: the one to write to.
      advice: what the other one's holder is to be told to do.

    Raises:
      UserError: another process holds the lock, the folder cannot be written to, or has a file of this name that is
        somebody else's.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / NAME, 'a+', encoding='utf-8', errors='replace', opener=_no_link)
    except OSError as error:
        reason = f'{NAME} there is a link' if (folder / NAME).is_symlink() else error.strerror or error
        raise UserError(f'cannot write to {folder} ({reason}): {_room(error, advice)}.') from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f'{folder} is in use by {_holder(file)}: wait for it, stop it, or {advice}.') from error
        except OSError:  # network file systems that know no locks
            pass
        if not _is_ours(file):
            raise UserError(f'{folder / NAME} is no lock of this program, and would be overwritten: {advice}.')
        _sign(file, folder, advice)
        yield


def _no_link(path: str, flags: int) -> int:
    """Opens a file, and not what a link of its name leads to: that may be any file."""
    return os.open(path, flags | getattr(os, 'O_NOFOLLOW', 0), 0o666)


def _is_ours(file) -> bool:
    """Whether an open file is empty, or says who held the lock."""
    file.seek(0)
    text = file.read().strip('\0')  # a power cut may leave zeros
    try:
        about = json.loads(text)
    except (ValueError, RecursionError):  # nothing, or cut short by a full disk
        return text.startswith(START) or START.startswith(text)
    return isinstance(about, dict) and {*about} >= FIELDS


def _sign(file, folder: Path, advice: str) -> None:
    """Write down who holds the lock."""
    about = {'pid': os.getpid(), 'host': socket.gethostname(), 'command': ' '.join(sys.argv),
             'since': datetime.now().astimezone().isoformat(timespec='seconds')}
    try:
        file.truncate(0)
        # Not through the file's buffer: what the disk refused it would write again when it is closed, and fail again.
        os.write(file.fileno(), (json.dumps(about) + '\n').encode())
    except OSError as error:
        raise UserError(f'cannot write to {folder} ({error.strerror}): {_room(error, advice)}.') from error


def _room(error: OSError, advice: str) -> str:
    """What to do about an error: make room, where it is that which is lacking."""
    return 'make room there' if error.errno in (errno.ENOSPC, errno.EDQUOT) else advice


def _holder(file) -> str:
    file.seek(0)
    try:
        about = json.loads(file.read())
        return f'process {about["pid"]} on {about["host"]}, since {about["since"]} ({about["command"]})'
    except (ValueError, KeyError, TypeError, RecursionError):  # it has not signed yet
        return 'another process'
