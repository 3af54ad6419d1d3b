"""A file of a data set appears whole or not at all."""

import hashlib
import os

import pytest

from data_prep.output import Output, clear, discard, write
from vididi_jax.data import records


@pytest.fixture
def out(tmp_path):
    (tmp_path / records.INCOMPLETE).mkdir()
    return tmp_path


def test_a_name_is_that_of_a_file_that_has_reached_the_disk(out, monkeypatch):
    done, replace = [], os.replace
    monkeypatch.setattr(os, 'fsync', lambda file: done.append(os.readlink(f'/proc/self/fd/{file}')))
    monkeypatch.setattr(os, 'replace', lambda old, new: done.append((old, new)) or replace(old, new))
    assert write(out, 'a', b'content') == hashlib.sha256(b'content').hexdigest()
    synced, (old, new) = done
    assert synced == str(old) and old.parent == out / records.INCOMPLETE and new == out / 'a'
    assert new.read_bytes() == b'content' and not old.exists()


def test_what_was_there_stays_until_the_new_file_is_whole(out):
    write(out, 'a', b'before')
    with pytest.raises(KeyboardInterrupt), Output(out, 'a') as file:
        file.write(b'half of ')
        file.file.flush()
        assert (out / 'a').read_bytes() == b'before'
        raise KeyboardInterrupt
    assert (out / 'a').read_bytes() == b'before' and not list((out / records.INCOMPLETE).iterdir())


def test_of_what_a_run_that_was_killed_left_the_parts_of_files_go(out):
    for name in ('a.0123abcd.tmp', 'plan.json', 'train-00000.part'):
        (out / records.INCOMPLETE / name).touch()
    clear(out)
    assert {path.name for path in (out / records.INCOMPLETE).iterdir()} == {'plan.json', 'train-00000.part'}


def test_the_plan_by_which_a_directory_is_known_goes_last(out, monkeypatch):
    for name in ('a.part', 'plan.json', 'z.part', 'lock'):
        (out / records.INCOMPLETE / name).touch()
    gone, unlink = [], type(out).unlink
    monkeypatch.setattr(type(out), 'unlink', lambda path, **options: gone.append(path.name) or unlink(path, **options))
    discard(out)
    assert gone[-1] == 'plan.json' and set(gone) == {'a.part', 'z.part', 'plan.json'}
