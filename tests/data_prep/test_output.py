"""A file of a data set appears whole or not at all."""

import hashlib
import os

import pytest

from data_prep.output import Output, write
from vididi_jax.data import records


@pytest.fixture
def out(tmp_path):
    (tmp_path / records.INCOMPLETE).mkdir()
    return tmp_path


def test_a_name_is_that_of_a_file_that_has_reached_the_disk(out, monkeypatch):
    done = []
    monkeypatch.setattr(os, 'fsync', lambda file: done.append(os.readlink(f'/proc/self/fd/{file}')))
    monkeypatch.setattr(os, 'replace', lambda old, new, replace=os.replace: done.append((old, new)) or replace(old, new))
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
