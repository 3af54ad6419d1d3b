"""Checkpoints: what their checksums find, what is set aside, which one is loaded, and who may write."""

import fcntl
import json
import os
import random
import shutil
import sys
import time
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from vididi_jax.errors import UserError
from vididi_jax.lock import locked
from vididi_jax.train import checkpoint, integrity
from vididi_jax.train.checkpoint import Checkpoints, load_encoder_variables


def state(step: int) -> dict:
    rng = np.random.default_rng(step)
    return {part: {'encoder': {'kernel': rng.normal(size=(40, 30)), 'bias': np.float32([step])}}
            for part in ('params', 'batch_stats')}


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    """A workdir with checkpoints of the steps 2, 4, 6, written by two processes' lives; the best one is 4."""
    workdir = tmp_path_factory.mktemp('saved')
    for life in ((2, np.inf), (3, 3.0), (4, 1.0)), ((5, 2.0), (6, 2.0)):
        with Checkpoints(workdir, keep=1) as checkpoints:
            for step, loss in life:
                checkpoints.save(step, state(step), {'data': 'x'}, loss)
    with Checkpoints(workdir, keep=1) as checkpoints:  # the latest, and the best of both lives
        assert checkpoints.steps() == [4, 6]
    with Checkpoints(workdir, keep=9) as checkpoints:
        checkpoints.save(2, state(2), {'data': 'x'}, np.inf)
    return workdir


@pytest.fixture
def workdir(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / 'work')


def restored(workdir):
    with Checkpoints(workdir) as checkpoints:
        return checkpoints.restore_latest(state(0))


def loaded(workdir, which='latest') -> int:
    variables, meta = load_encoder_variables(workdir, which)
    jax.tree.map(np.testing.assert_array_equal, variables['params'], state(meta['step'])['params']['encoder'])
    return meta['step']


def files(folder) -> list:
    return sorted(path for path in folder.rglob('*') if path.is_file())


def test_what_the_run_does_while_a_checkpoint_is_written_is_not_in_it(tmp_path, monkeypatch):
    """On a disk so slow that all of it is written after `save` has returned."""
    losses, make = [1.0, 2.0], os.mkdir

    def late(*arguments, **options):
        time.sleep(0.1)
        make(*arguments, **options)

    monkeypatch.setattr(os, 'mkdir', late)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state(1), {'losses': losses}, 0.0)
        losses.append(99.0)
    assert restored(tmp_path)[1]['losses'] == [1.0, 2.0]


def test_every_flipped_bit_and_every_cut_is_found_or_harmless(workdir):
    """60 flips and 20 cuts, of every file of the newest checkpoint: it is set aside, or is what was saved."""
    rng = random.Random(0)
    folder = workdir / 'checkpoints' / '6'
    paths = [path for path in files(folder) if path.stat().st_size]
    whole = {path: path.read_bytes() for path in paths}
    found = 0
    for number in range(80):
        path = paths[number % len(paths)]
        data = bytearray(whole[path])
        place = rng.randrange(len(data))
        if number < 60:
            data[place] ^= 1 << rng.randrange(8)
        else:
            del data[place:]
        path.write_bytes(data)
        found += bool(integrity.damage(folder))
        assert bool(integrity.damage(folder)) == (loaded(workdir) == 4), path
        path.write_bytes(whole[path])
    # All but those of the file that marks the end, and of the date in another one.
    assert found >= 60 and {path.name for path in paths} >= {integrity.NAME, 'metadata', '_CHECKPOINT_METADATA'}


def test_files_that_are_gone_or_too_many_are_found(workdir):
    folder = workdir / 'checkpoints' / '6'
    (folder / 'more').write_text('')
    assert integrity.damage(folder) == 'more does not belong there'
    (folder / 'more').unlink()
    (folder / 'meta' / 'metadata').unlink()
    assert integrity.damage(folder) == 'meta/metadata is missing'


def damage(workdir, step: int) -> None:
    path = workdir / 'checkpoints' / str(step) / 'meta' / 'metadata'
    path.write_text(path.read_text().replace(f'"step": {step}', f'"step": {step + 1}'))


def test_a_damaged_checkpoint_is_moved_away_and_the_one_before_taken(workdir, caplog):
    damage(workdir, 6)
    before = {path.relative_to(workdir / 'checkpoints'): path.read_bytes()
              for path in files(workdir / 'checkpoints' / '6')}
    tree, meta = restored(workdir)
    assert meta['step'] == 4
    jax.tree.map(np.testing.assert_array_equal, tree, state(4))
    assert {path.relative_to(workdir / 'damaged'): path.read_bytes() for path in files(workdir / 'damaged')} == before
    assert 'CHECKPOINT' in caplog.text and 'the checksum of meta/metadata is wrong' in caplog.text
    with Checkpoints(workdir) as checkpoints:
        assert checkpoints.steps() == [2, 4]
        checkpoints.save(6, state(6), {}, 1.0)
    assert loaded(workdir) == 6


def test_one_that_is_damaged_again_is_moved_beside_the_first(workdir):
    (workdir / 'damaged' / '6').mkdir(parents=True)
    (workdir / 'damaged' / '6' / 'file').write_text('')
    damage(workdir, 6)
    assert restored(workdir)[1]['step'] == 4
    assert sorted(path.name for path in (workdir / 'damaged').iterdir()) == ['6', '6_']


def test_arrays_that_are_not_those_of_the_run_are_found_in_files_that_are_whole(workdir):
    """As a disk or a library would leave them that spoiled them before they were written."""
    folder = workdir / 'checkpoints' / '6'
    meta = json.loads((folder / 'meta' / 'metadata').read_text())
    meta['checksums']['params/encoder/bias'] ^= 1
    (folder / 'meta' / 'metadata').write_text(json.dumps(meta))
    integrity.write_checksums(folder)
    assert loaded(workdir) == 4 and restored(workdir)[1]['step'] == 4
    assert [path.name for path in (workdir / 'damaged').iterdir()] == ['6']


def test_all_that_the_file_with_the_date_says_is_checked_but_for_the_date(workdir):
    folder = workdir / 'checkpoints' / '6'
    path = folder / '_CHECKPOINT_METADATA'
    about = json.loads(path.read_text())
    path.write_text(json.dumps(about | {'commit_timestamp_nsecs': 1}))
    assert integrity.damage(folder) == ''
    path.write_text(json.dumps(about | {'init_timestamp_nsecs': 1}))
    assert integrity.damage(folder) == 'the checksum of _CHECKPOINT_METADATA is wrong'


def test_a_disk_without_room_for_a_checkpoint_is_one_sentence(workdir, monkeypatch):
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: SimpleNamespace(free=19_000))
    with Checkpoints(workdir) as checkpoints, pytest.raises(UserError, match='No space left on device: 0'):
        checkpoints.save(8, state(8), {}, 0.5)
    assert restored(workdir)[1]['step'] == 6


def test_a_loss_that_is_damaged_sets_its_checkpoint_aside(workdir, caplog):
    """Whichever it is: no other could be kept beside it."""
    path = workdir / 'checkpoints' / '4' / 'metrics' / 'metrics'
    for text in ('', '{"lo', '{"lost": 1.0}'):
        copy = shutil.copytree(workdir, workdir.parent / f'copy{len(text)}')
        (copy / path.relative_to(workdir)).write_text(text)
        with pytest.raises(UserError, match='checkpoints/4 is damaged .*cannot be told which one is the best'):
            loaded(copy, 'best')
        assert restored(copy)[1]['step'] == 6
        assert [folder.name for folder in (copy / 'damaged').iterdir()] == ['4']
        with Checkpoints(copy) as checkpoints:
            checkpoints.save(8, state(8), {}, 0.5)
        assert loaded(copy, 'best') == 8
    path.write_text('')
    for step in (2, 6):
        damage(workdir, step)
    with pytest.raises(UserError, match='all 3 checkpoints'):
        restored(workdir)
    assert not (workdir / 'damaged').exists()


def test_if_all_are_damaged_nothing_is_moved(workdir):
    for step in (2, 4, 6):
        damage(workdir, step)
    before = files(workdir / 'checkpoints')
    for use in (restored, loaded):
        with pytest.raises(UserError, match='all 3 checkpoints .*the newest, 6: the checksum of meta/metadata'):
            use(workdir)
    assert files(workdir / 'checkpoints') == before


def test_a_disk_that_fails_is_no_damage(workdir, monkeypatch):
    def fail(path):
        raise OSError(5, 'Input/output error', str(path))

    monkeypatch.setattr(integrity, 'crc_of', fail)
    before = files(workdir)
    for use in (restored, loaded):
        with pytest.raises(UserError, match='cannot be read .Input/output error'):
            use(workdir)
    assert files(workdir) == before


def test_a_checkpoint_that_orbax_cannot_read_though_it_is_whole_is_left(workdir):
    """As one of a version whose files have another form."""
    folder = workdir / 'checkpoints' / '6'
    shutil.rmtree(folder / 'state')
    integrity.write_checksums(folder)
    for use in (restored, loaded):
        with pytest.raises(UserError, match='though no checksum says that it is damaged'):
            use(workdir)
    assert folder.exists()


@pytest.mark.parametrize(('change', 'message'), [
    ([1], 'no step'), ('step', 'no step'), ('checksums', 'no checksums'), ({'checksums': []}, 'checksums of its meta'),
    ({'config': 'x'}, 'Expecting value'), ({'config': '[]'}, 'config of its meta'), ({'commits': 5}, 'commits of its')])
def test_a_meta_that_no_run_wrote_is_one_sentence(change, message, workdir):
    """In a checkpoint without checksums, which passes."""
    folder = workdir / 'checkpoints' / '6'
    (folder / integrity.NAME).unlink()
    path = folder / 'meta' / 'metadata'
    meta = json.loads(path.read_text())
    if isinstance(change, str):
        change = meta.pop(change) and meta
    path.write_text(json.dumps(meta | change if isinstance(change, dict) else change))
    for use in (restored, loaded):
        with pytest.raises(UserError, match=f'checkpoints/6 cannot be read .*{message}'):
            use(workdir)


def test_a_folder_whose_name_is_no_step_is_none(workdir):
    for name in ('²', '٣'):  # digits, and no decimal; a decimal, and not one of ASCII
        (workdir / 'checkpoints' / name).mkdir()
    assert loaded(workdir) == restored(workdir)[1]['step'] == 6


def test_latest_best_or_a_step_can_be_loaded(workdir):
    assert [loaded(workdir, which) for which in ('latest', 'best', 2, '2')] == [6, 4, 2, 2]
    with pytest.raises(UserError, match="no checkpoint '3': give latest, best, or one of the steps 2, 4, 6"):
        load_encoder_variables(workdir, '3')
    damage(workdir, 4)
    with pytest.raises(UserError, match='4 is damaged'):
        load_encoder_variables(workdir, 'best')
    for step in (4, 6):
        shutil.rmtree(workdir / 'checkpoints' / str(step))
    with pytest.raises(UserError, match='no cycle of its schedule is complete'):
        load_encoder_variables(workdir, 'best')


@pytest.mark.parametrize('function', ['judged', '_read_encoder'])
@pytest.mark.parametrize('left', ['', 'meta', 'state'])
def test_while_a_run_goes_on_the_latest_is_what_is_there(workdir, monkeypatch, caplog, function, left):
    """Which has one more checkpoint, and deleted the one that is being read, or all of it but a part."""
    original, folder = getattr(checkpoint, function), workdir / 'checkpoints' / '6'

    def overtaken(path):
        if path == folder:
            folder.rename(folder.with_name('8'))
            if left:
                shutil.copytree(folder.with_name('8') / left, folder / left)
                shutil.copy(folder.with_name('8') / integrity.NAME, folder)
        return original(path)

    monkeypatch.setattr(checkpoint, function, overtaken)
    assert loaded(workdir) == 6 and not caplog.records


def test_inspect_and_verify_say_what_there_is(workdir, monkeypatch, capsys):
    def command(name: str):
        monkeypatch.setattr(sys, 'argv', ['checkpoint', name, str(workdir)])
        with pytest.raises(SystemExit) as end:
            checkpoint.main()
        return end.value.code, capsys.readouterr().out.splitlines()

    code, lines = command('inspect')
    assert code == 0 and len(lines) == 4 and lines[2].split()[:2] == ['4', '1.0000'] and 'the best' in lines[2]
    assert [line.split(', ')[-1].split()[-1] for line in command('verify')[1][1:]] == ['whole'] * 3
    damage(workdir, 6)
    code, lines = command('verify')
    assert code == 1 and lines[3].endswith('DAMAGED: the checksum of meta/metadata is wrong')


def test_a_folder_has_one_writer(tmp_path):
    with locked(tmp_path / 'a', 'choose another'):
        with pytest.raises(UserError, match=r'is in use by process \d+ on .*: wait for it, stop it, or choose'):
            with locked(tmp_path / 'a', 'choose another'):
                pass
    with locked(tmp_path / 'a', 'choose another'):  # it is free again
        with pytest.raises(UserError, match=r'is in use by process \d+ on '):
            with locked(tmp_path / 'a', 'choose another'):
                pass
    with (tmp_path / 'a' / 'lock').open('w') as file:  # of one that has not signed yet
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UserError, match='is in use by another process: wait for it'):
            with locked(tmp_path / 'a', 'choose another'):
                pass
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match='cannot write to .*file'):
        with locked(tmp_path / 'file', 'choose another'):
            pass
