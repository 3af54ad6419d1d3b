"""What is asked of a store, and when again; where copies of its small files are kept, and how they get there."""

import errno
import fcntl
import hashlib
import os
import shutil
import time
from pathlib import Path

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from vididi_jax.data import checksums, storage
from vididi_jax.errors import UserError

PLACE = 'remembering://bucket/data'


class Remembering(MemoryFileSystem):
    """remembering://: files in memory, whose sizes are not asked for again until the cache is invalidated."""

    protocol = 'remembering'
    store, pseudo_dirs, known = {}, [''], {}

    def info(self, path, **kwargs):
        if path not in Remembering.known:
            Remembering.known[path] = super().info(path, **kwargs)
        return Remembering.known[path]

    def invalidate_cache(self, path=None):
        Remembering.known.clear()


fsspec.register_implementation('remembering', Remembering, clobber=True)


@pytest.fixture
def pauses(monkeypatch):
    """Seconds slept."""
    slept = []
    monkeypatch.setattr(time, 'sleep', slept.append)
    return slept


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A cache of its own, and a URL with a data set's small files, as far as a copy knows them."""
    monkeypatch.setenv('VIDIDI_CACHE', str(tmp_path / 'cache'))
    write({'plan.json': b'{}', 'counts.json': b'{}'})
    yield PLACE
    Remembering.store.clear()
    Remembering.known.clear()


def write(files):
    sums = checksums.format_sums({name: hashlib.sha256(content).hexdigest() for name, content in files.items()})
    system, path = fsspec.core.url_to_fs(PLACE)
    for name, content in {**files, 'SHA256SUMS': sums.encode()}.items():
        system.pipe_file(f'{path}/{name}', content)


def check_pauses(slept):
    """None before the first try, then of half to all of twice the last, up to 16 seconds; and not of full lengths."""
    longest = np.array([0, 0.25, 0.5, 1, 2, 4, 8, 16])
    assert (longest / 2 <= slept).all() and (slept <= longest).all()
    assert not np.isin(slept[1:], longest).all()


def test_what_fails_is_tried_again_after_longer_and_longer(pauses, monkeypatch):
    def fails():
        raise OSError('503 Service Unavailable')

    with pytest.raises(UserError, match='tried 8 times'):
        storage.persist(fails, 's3://bucket/a')
    check_pauses(pauses)
    pauses.clear()
    fsspec.filesystem('memory').pipe_file('/a', b'x')
    with pytest.raises(UserError, match='the checksum of frame 0 is wrong, tried 8 times'):
        storage.read_parts([storage.Part('memory:///a', 0, 1)], lambda number, data: wrong())
    check_pauses(pauses)
    monkeypatch.setattr(storage, 'PAUSE', 3)
    assert max(storage._pauses()) <= 16


def wrong():
    raise ValueError('the checksum of frame 0 is wrong')


@pytest.mark.parametrize('error', [FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError])
def test_what_does_not_pass_is_not_tried_again(error, pauses):
    def fails():
        raise error('403 Forbidden')

    with pytest.raises(UserError, match=f's3://bucket/a cannot be written .{error.__name__}: 403 Forbidden.: run'):
        storage.persist(fails, 's3://bucket/a', 'written')
    assert pauses == [0]


@pytest.mark.parametrize('number', [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_disk_here_that_is_full_is_not_waited_for(number, pauses):
    with pytest.raises(OSError, match='here'):
        storage.persist(lambda: (_ for _ in ()).throw(OSError(number, 'here')), 's3://bucket/a')
    assert pauses == [0]


def test_of_many_parts_those_that_failed_are_asked_for_again(pauses, monkeypatch):
    content, asked = bytes(range(200)) * 2000, []
    monkeypatch.setattr(MemoryFileSystem, 'cat_file', lambda self, path, start, end: asked.append((start, end)) or (
        content[start:end] if start or len(asked) > 3 else b''))
    # Two lie in the first, and the last lies apart.
    parts = [storage.Part('memory:///a', *place) for place in ((0, 160), (10, 20), (150, 5), (300_000, 5))]

    def check(number, data):
        if len(data) != parts[number].length:
            raise ValueError('it is too short')

    assert storage.read_parts(parts, check) == [content[part.offset : part.offset + part.length] for part in parts]
    assert asked == [(0, 160), (300_000, 300_005), (0, 160), (0, 160)] or asked == [
        (0, 160), (300_000, 300_005), (0, 160)]


def test_advice_on_what_is_wrong_is_for_its_place():
    assert 'frame; copy the data set there again.' in str(storage.wrong(
        storage.Part('s3://bucket/a/shard', 0, 1), ValueError('no frame')))
    assert 'frame; run `python -m data_prep verify /a`' in str(storage.wrong(
        storage.Part(Path('/a/shard'), 0, 1), ValueError('no frame')))


def test_copies_lie_in_the_cache_that_the_environment_names(monkeypatch):
    monkeypatch.setenv('VIDIDI_CACHE', '/own')
    monkeypatch.setenv('XDG_CACHE_HOME', '/xdg')
    assert storage.cache_folder() == Path('/own')
    monkeypatch.delenv('VIDIDI_CACHE')
    assert storage.cache_folder() == Path('/xdg/vididi_jax')
    monkeypatch.setenv('XDG_CACHE_HOME', '')
    assert storage.cache_folder() == Path.home() / '.cache' / 'vididi_jax'


def test_a_store_that_remembers_sizes_is_asked_anew(place, pauses):
    before = storage.local_copy(place)
    write({'plan.json': b'{"of": "another"}', 'counts.json': b'{}', 'labels.txt': b'up'})
    after = storage.local_copy(place)
    assert after != before and {path.name for path in after.iterdir()} == {
        'plan.json', 'counts.json', 'labels.txt', 'SHA256SUMS', '.lock'} and max(pauses) == 0


def test_a_name_in_the_cache_is_that_of_a_file_that_has_reached_the_disk(place, monkeypatch):
    done = []
    monkeypatch.setattr(os, 'fsync', lambda file: done.append(os.path.basename(os.readlink(f'/proc/self/fd/{file}'))))
    monkeypatch.setattr(os, 'replace', lambda old, new, replace=os.replace: done.append(new.name) or replace(old, new))
    storage.local_copy(place)
    assert done == [name for name in ('counts.json', 'plan.json', 'SHA256SUMS') for _ in range(2)]


def test_what_another_process_copies_meanwhile_is_not_copied_again(place, tmp_path, monkeypatch):
    copy = storage.local_copy(place)
    copy.rename(tmp_path / 'done')
    monkeypatch.setattr(fcntl, 'flock', lambda *_: shutil.copytree(tmp_path / 'done', copy, dirs_exist_ok=True))
    monkeypatch.setattr(storage, '_fetch', lambda *_: pytest.fail('copied again'))
    assert storage.local_copy(place) == copy
