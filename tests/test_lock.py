"""The lock of a folder that is written to."""

import errno
import fcntl
import os
import resource

import pytest

from vididi_jax.errors import UserError
from vididi_jax.lock import locked


def test_a_disk_without_room_for_the_lock_is_one_sentence(tmp_path):
    """Not the error of closing the lock, which comes after it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with pytest.raises(UserError, match='cannot write to .*: choose another --out'), locked(
                tmp_path, 'choose another --out'):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize('call', ['mkdir', 'write'])
def test_another_name_is_no_advice_on_a_full_disk(call, tmp_path, monkeypatch):
    def full(*_args, **_options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    folder = tmp_path / 'new' if call == 'mkdir' else tmp_path
    monkeypatch.setattr(os, call, full)
    with pytest.raises(UserError, match='cannot write to .* .No space left on device.: make room there.$'), locked(
            folder, 'choose another --out'):
        pass


OWN = '{"pid": 1, "host": "h", "command": "c", "since": "s"}\n'


@pytest.mark.parametrize('text', ['mine\n', '[]', '{"pid": 1}', '[' * 5000])
def test_a_file_of_the_locks_name_is_left_as_it_is(text, tmp_path):
    (tmp_path / 'lock').write_text(text)
    with pytest.raises(UserError, match='lock is no lock of this program, .*: move'), locked(tmp_path, 'move'):
        pass
    with (tmp_path / 'lock').open() as file:  # whoever holds it
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UserError, match='in use by another process'), locked(tmp_path, ''):
            pass
    assert (tmp_path / 'lock').read_text() == text


@pytest.mark.parametrize('text', [OWN, OWN[:20], OWN[:5], '\0' * 60])
def test_what_a_run_or_a_full_disk_left_is_overwritten(text, tmp_path):
    (tmp_path / 'lock').write_text(text)
    with locked(tmp_path, ''):
        assert (tmp_path / 'lock').read_text() not in ('', text)


def test_a_lock_is_no_link(tmp_path):
    (tmp_path / 'victim').write_text('')
    (tmp_path / 'lock').symlink_to('victim')
    with pytest.raises(UserError, match='cannot write to .*lock there is a link.: use another'), locked(
            tmp_path, 'use another'):
        pass
    assert not (tmp_path / 'victim').read_text()
