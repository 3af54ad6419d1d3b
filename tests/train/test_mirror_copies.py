"""A run at a URL as well: what is asked of the store, and in which order; which folder is kept there, and by whom."""

import os
import shutil
import socket

import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from tests.train.stores import URL, Store, begin, here, there, train
from vididi_jax.data import storage
from vididi_jax.errors import UserError
from vididi_jax.train import mirror
from vididi_jax.train.mirror import mirrored


@pytest.fixture(autouse=True)
def own_store(monkeypatch):
    monkeypatch.setattr(storage, 'PAUSE', 0)
    yield
    Store.forget()


def written():
    return [name for asked, name in Store.asked if asked == 'put_file']


def test_within_a_run_what_has_changed_is_copied_once_also_if_it_is_as_long_as_before(tmp_path):
    folder = begin(tmp_path / 'a')
    kept = mirror.begun(folder, URL)
    for step in (1, 2, 3):  # the last one deletes a checkpoint
        train(folder, step)
        kept.copy()
    Store.asked.clear()
    kept.copy()
    assert Store.asked == [('cat_file', mirror.OWNER)]
    (folder / 'metrics.jsonl').write_bytes((folder / 'metrics.jsonl').read_bytes()[::-1])
    kept.copy()
    assert written() == ['metrics.jsonl'] and there() == here(folder)


def test_the_config_comes_first_then_metrics_checkpoints_and_what_was_made_of_them(tmp_path, capsys):
    folder = begin(tmp_path / 'a')
    train(folder, 1)
    for name in ('a.txt', 'eval/retrieval/a.npz', 'report/index.html'):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text('x', encoding='utf-8')
    with mirrored(folder, URL):
        pass
    assert written() == [
        'config.json', 'a.txt', 'metrics.jsonl', 'checkpoints/1/state/arrays', 'checkpoints/1/zuletzt',
        'checkpoints/1/checksums.json', 'eval/retrieval/a.npz', 'report/index.html']
    assert capsys.readouterr().out == f'copied to {URL}\n' and mirror.EVERY == 60


@pytest.mark.parametrize('when', ['listed', 'copied'])
def test_a_checkpoint_that_the_run_deletes_meanwhile_is_left_out(when, tmp_path, monkeypatch):
    folder, walk = begin(tmp_path / 'a'), os.walk
    kept = mirror.begun(folder, URL)
    train(folder, 1)

    def deletes(*_):
        monkeypatch.undo()
        train(folder, 2)
        train(folder, 3)

    def listed(*arguments, **options):
        for found in walk(*arguments, **options):
            if found[0].endswith('/1'):
                deletes()
            yield found

    if when == 'listed':
        monkeypatch.setattr(os, 'walk', listed)
    else:
        monkeypatch.setattr(Store, 'refuse', lambda name, path: path.endswith('1/zuletzt') and deletes())
    kept.copy()
    assert not any(name.startswith('checkpoints/1/') for name in there())
    kept.copy()
    assert there() == here(folder)


def test_a_deletion_that_failed_is_made_good(tmp_path, monkeypatch):
    folder = begin(tmp_path / 'a')
    kept = mirror.begun(folder, URL)
    for step in (1, 2):
        train(folder, step)
        kept.copy()
    train(folder, 3)

    def refused(name, path):
        if name == 'rm' and not path.endswith('.json'):
            raise OSError('503 Service Unavailable')

    with monkeypatch.context() as patch, pytest.raises(UserError, match='checkpoints/1 cannot be deleted'):
        patch.setattr(Store, 'refuse', refused)
        kept.copy()
    kept.copy()
    assert there() == here(folder)


def test_a_file_that_comes_back_in_part_is_asked_for_again(tmp_path, monkeypatch):
    folder = begin(tmp_path / 'a')
    with mirrored(folder, URL):
        train(folder, 1)
    get_file, names = MemoryFileSystem.get_file, set()

    def half(system, path, to):
        get_file(system, path, to)
        if path not in names:
            os.truncate(to, os.path.getsize(to) // 2)
        names.add(path)

    monkeypatch.setattr(MemoryFileSystem, 'get_file', half, raising=False)
    with mirrored(tmp_path / 'b', URL):
        assert here(tmp_path / 'b') == here(folder)


def test_a_copy_in_a_folder_that_is_killed_leaves_the_file_that_was_there(tmp_path, monkeypatch):
    url, folder = f'file://{tmp_path}/url', begin(tmp_path / 'a')
    with mirrored(folder, url):
        train(folder, 1)
    (tmp_path / 'url' / mirror.OWNER).unlink()
    before = here(tmp_path / 'url')

    def killed(system, path, to, **_):
        with open(path, 'rb') as source, open(to, 'wb') as copy:
            copy.write(source.read()[:-1])
        raise SystemExit

    with monkeypatch.context() as patch, pytest.raises(SystemExit), mirrored(folder, url):
        train(folder, 2)
        patch.setattr(LocalFileSystem, 'put_file', killed)
    (tmp_path / 'url' / mirror.OWNER).unlink()
    assert {name: content for name, content in here(tmp_path / 'url').items() if not name.endswith('.tmp')} == before
    with mirrored(tmp_path / 'b', url):
        assert here(tmp_path / 'b') == before


def test_a_folder_that_was_made_by_hand_in_a_store_is_an_empty_place(tmp_path):
    """Consoles of object stores do so by an object whose name ends in a slash."""
    system = Store()
    for name in ('', 'checkpoints/'):
        with system.open(f'{URL}/made', 'wb'):
            pass
        Store.store[f'{system._strip_protocol(URL)}/{name}'] = Store.store.pop(f'{system._strip_protocol(URL)}/made')
    folder = begin(tmp_path / 'a')
    with mirrored(folder, URL):
        train(folder, 1)
    with mirrored(tmp_path / 'b', URL):
        assert here(tmp_path / 'b') == here(folder)


def test_of_several_processes_the_first_copies(tmp_path, monkeypatch):
    monkeypatch.setattr(mirror, 'is_first', lambda: False)
    with mirrored(begin(tmp_path / 'a'), URL):
        pass
    assert not Store.asked


def test_a_folder_that_has_anything_is_not_replaced(tmp_path):
    with mirrored(begin(tmp_path / 'a'), URL):
        pass
    (tmp_path / 'b').mkdir()
    (tmp_path / 'b' / 'lock').touch()
    with pytest.raises(UserError, match='go on with what is there in a --workdir that does not exist'):
        with mirrored(tmp_path / 'b', URL):
            pytest.fail('begun')
    assert here(tmp_path / 'b') == {'lock': b''}


def test_a_run_of_one_config_that_is_further_is_another_if_it_has_another_checkpoint(tmp_path):
    train(begin(tmp_path / 'a'), 1)
    with mirrored(tmp_path / 'a', URL):
        pass
    shutil.copytree(tmp_path / 'a', tmp_path / 'b')
    (tmp_path / 'b' / 'checkpoints' / '1' / 'checksums.json').write_text('{}', encoding='utf-8')
    train(tmp_path / 'b', 2)
    with pytest.raises(UserError, match='has the checkpoints/1/checksums.json of another run than .*b, or of a later'):
        with mirrored(tmp_path / 'b', URL):
            pytest.fail('begun')


@pytest.mark.parametrize('where', ['on another machine', 'in another folder'])
def test_folders_of_one_name_are_told_apart(where, tmp_path, monkeypatch):
    (tmp_path / 'other').mkdir()
    monkeypatch.chdir(tmp_path)
    begin(tmp_path / 'a')
    begin(tmp_path / 'other' / 'a')
    with pytest.raises(UserError, match='where another folder is kept by now'), mirrored('a', URL):
        if where == 'on another machine':
            monkeypatch.setattr(socket, 'gethostname', lambda: 'another')
        else:
            monkeypatch.chdir(tmp_path / 'other')
        with mirrored('a', URL):
            pass
