"""A run at a URL as well: whoever loses the folder, or is killed at any moment, goes on from there."""

import itertools
import os
import shutil
import threading
from functools import partial

import fsspec
import pytest

from tests.data.s3 import s3_server
from tests.train.stores import URL, Store, begin, here, there, train
from vididi_jax import config as configs
from vididi_jax.data import storage
from vididi_jax.errors import UserError
from vididi_jax.tasks import check_mirror, run_task
from vididi_jax.train import integrity, mirror
from vididi_jax.train.mirror import mirrored

FOLD = 'eval/finetune/fold_0'  # a run of an evaluation, below the one that it evaluates


@pytest.fixture(autouse=True)
def own_store(monkeypatch):
    monkeypatch.setattr(storage, 'PAUSE', 0)
    yield
    Store.forget()


def test_a_lost_folder_comes_back(tmp_path):
    folder = begin(tmp_path / 'a')
    with mirrored(folder, URL):
        train(folder, 1)
        train(folder, 2)
    assert there() == here(folder)
    with mirrored(tmp_path / 'new' / 'b', URL):
        assert here(tmp_path / 'new' / 'b') == here(folder)
        train(tmp_path / 'new' / 'b', 3)
    assert there() == here(tmp_path / 'new' / 'b') != here(folder)
    assert [path.name for path in (tmp_path / 'new').iterdir()] == ['b']


def test_of_checkpoints_those_that_the_run_deletes_go_and_other_files_stay(tmp_path):
    folder = begin(tmp_path / 'a')
    with mirrored(folder, URL):
        train(folder, 1)
    fsspec.filesystem('store').pipe_file(f'{URL}/notes.txt', b'mine')
    with mirrored(folder, URL):
        train(folder, 2)
        train(folder, 3)
        (folder / 'metrics.jsonl').unlink()
    assert {name.split('/')[1] for name in there() if name.startswith('checkpoints/')} == {'2', '3'}
    assert there()['notes.txt'] == b'mine' and 'metrics.jsonl' in there()


def test_only_what_has_changed_is_copied_and_nothing_that_is_not_whole(tmp_path):
    folder = begin(tmp_path / 'a')
    with mirrored(folder, URL):
        train(folder, 1)
    Store.asked.clear()
    (folder / 'checkpoints' / '2.orbax-checkpoint-tmp').mkdir()
    (folder / FOLD / 'checkpoints' / '2.orbax-checkpoint-tmp').mkdir(parents=True)
    for name in ('lock', 'results.json.0a1b2c3d.tmp', 'checkpoints/2.orbax-checkpoint-tmp/arrays', mirror.OWNER,
                 f'{FOLD}/checkpoints/2.orbax-checkpoint-tmp/arrays'):
        (folder / name).write_text('x', encoding='utf-8')
    with mirrored(folder, URL):
        (folder / 'eval' / 'results.json').write_text('{}', encoding='utf-8')
    written = [name for asked, name in Store.asked if asked == 'put_file']
    assert written == ['config.json', 'metrics.jsonl', 'eval/results.json']


def test_it_is_copied_while_the_run_goes_on(tmp_path, monkeypatch):
    copied = threading.Event()
    monkeypatch.setattr(mirror, 'EVERY', 0.01)
    monkeypatch.setattr(Store, 'refuse', lambda name, path: copied.set() if path.endswith('1/checksums.json') else None)
    folder = begin(tmp_path / 'a')
    with mirrored(folder, URL):
        train(folder, 1)
        assert copied.wait(60)


@pytest.mark.parametrize('run', ['', FOLD])
def test_a_kill_at_any_moment_leaves_a_run_to_go_on_from(run, tmp_path, monkeypatch):
    """Metrics reach as far as the checkpoint, and that is whole, whichever request was the last."""
    states = set()
    with mirrored(begin(tmp_path / '0'), URL):
        if run:
            train(tmp_path / '0', 1)
            begin(tmp_path / '0' / run)
    for step in (1, 2, 3):
        before = dict(Store.store)
        for last in itertools.count():
            folder = shutil.copytree(tmp_path / f'{step - 1}', tmp_path / f'{step}_{last}')
            Store.store.clear()
            Store.store.update(before)
            Store.asked.clear()
            monkeypatch.setattr(Store, 'refuse', partial(killed_after, last))
            try:
                with mirrored(folder, URL):
                    train(folder / run, step)
                is_whole = True
            except KeyboardInterrupt:
                is_whole = False
            monkeypatch.setattr(Store, 'refuse', lambda name, path: None)
            kept, back = dict(Store.store), tmp_path / f'{step}_{last}_back'
            with mirrored(back, URL):
                pass
            Store.store.clear()
            Store.store.update(kept)
            back /= run
            steps = sorted(int(path.name) for path in back.glob('checkpoints/*'))
            for path in back.glob('checkpoints/*'):
                assert (path / 'zuletzt').read_text(encoding='utf-8') == path.name and not integrity.damage(path)
            assert (back / 'config.json').exists()
            lines = (back / 'metrics.jsonl').read_text(encoding='utf-8').splitlines() if steps else []
            assert len(lines) >= max(steps, default=0) >= step - 1
            states.add((step, *steps))
            if is_whole:
                folder.rename(tmp_path / f'{step}')
                break
    assert states == {(1,), (1, 1), (2, 1), (2, 1, 2), (3, 1, 2), (3, 1, 2, 3), (3, 2, 3)}


def killed_after(last, name, path):
    if len(Store.asked) > last:
        raise KeyboardInterrupt


def test_a_checkpoint_that_is_saved_while_the_folder_is_listed_is_not_ahead_of_its_metrics(tmp_path, monkeypatch):
    folder, walk = begin(tmp_path / 'a'), os.walk
    kept = mirror.begun(folder, URL)
    train(folder, 1)
    kept.copy()

    def saved_meanwhile(*arguments, **options):
        for number, found in enumerate(walk(*arguments, **options)):
            yield found
            if number == 0:
                train(folder, 2)

    monkeypatch.setattr(os, 'walk', saved_meanwhile)
    kept.copy()
    assert 'checkpoints/2/checksums.json' not in there() or there()['metrics.jsonl'] == here(folder)['metrics.jsonl']


def test_a_checkpoint_that_is_saved_anew_is_not_mixed_with_what_was_copied_of_it_before(tmp_path, monkeypatch):
    """Names of files in it are others each time."""
    with mirrored(begin(tmp_path / 'a'), URL):
        train(tmp_path / 'a', 1)
    Store.store[f'{URL}/checkpoints/2/state/0a1b'] = Store.store[f'{URL}/config.json']  # and then it was killed
    with mirrored(tmp_path / 'b', URL):
        train(tmp_path / 'b', 2)
    assert there() == here(tmp_path / 'b')
    with mirrored(tmp_path / 'c', URL):
        assert not integrity.damage(tmp_path / 'c' / 'checkpoints' / '2')


def test_of_a_checkpoint_that_was_not_whole_all_is_copied_anew(tmp_path):
    folder = begin(tmp_path / 'a')
    with mirrored(folder, URL):
        train(folder, 1)
    before = there()
    system = fsspec.filesystem('store')
    system.rm_file(f'{URL}/checkpoints/1/checksums.json')
    system.pipe_file(f'{URL}/checkpoints/1/zuletzt', b'2')  # of as many bytes
    with mirrored(folder, URL):
        pass
    assert there() == before


def test_a_store_that_fails_now_and_then_has_all_in_the_end(tmp_path, monkeypatch):
    def fails(name, path):
        if len(Store.asked) % 3 == 0:
            raise OSError('503 Service Unavailable')

    monkeypatch.setattr(Store, 'refuse', fails)
    folder = begin(tmp_path / 'a')
    with mirrored(folder, URL):
        train(folder, 1)
    with mirrored(tmp_path / 'b', URL):
        pass
    assert here(tmp_path / 'b') == here(folder) == there()


def test_a_store_that_cannot_be_written_to_ends_the_command_before_anything_is_done(tmp_path, monkeypatch):
    def refused(name, path):
        raise PermissionError('403 Forbidden')

    monkeypatch.setattr(Store, 'refuse', refused)
    with pytest.raises(UserError, match=f'{URL}/mirror.json cannot be written .PermissionError: 403 Forbidden'):
        with mirrored(tmp_path / 'a', URL):
            pytest.fail('begun')


def test_a_store_that_goes_away_is_told_at_the_end_unless_something_else_is(tmp_path, monkeypatch, caplog):
    def gone(name, path):
        raise OSError('no route')

    folder = begin(tmp_path / 'a')
    for problem, told in ((None, f'{URL}/mirror.json cannot be read .OSError: no route, tried 8 times'),
                          (ValueError('the run failed'), 'the run failed')):
        monkeypatch.setattr(Store, 'refuse', lambda name, path: None)
        with pytest.raises(ValueError, match=told), mirrored(folder, URL):
            monkeypatch.setattr(Store, 'refuse', gone)
            if problem:
                raise problem
    assert 'not copied: store://bucket/runs/a/mirror.json cannot be read' in caplog.text


def test_what_another_run_has_there_is_not_mixed_with_this_one(tmp_path):
    folder = begin(tmp_path / 'a')
    with mirrored(folder, URL):
        pass
    other = begin(tmp_path / 'b')
    (other / 'config.json').write_text('{"seed": 1}', encoding='utf-8')
    before = there()
    with pytest.raises(UserError, match='has the config.json of another run than .*b, or of a later state'):
        with mirrored(other, URL):
            pytest.fail('begun')
    with mirrored(folder, URL):
        train(folder, 1)
    shutil.rmtree(folder / 'checkpoints')
    with pytest.raises(UserError, match='has the checkpoints/1/checksums.json of another run than .*a, or of a later'):
        with mirrored(folder, URL):
            pytest.fail('begun')
    assert before.keys() < there().keys()
    train(folder, 2)
    with mirrored(folder, URL):
        pass  # it is ahead of what is there, which it has deleted
    assert there().keys() > here(folder).keys()
    Store.store.clear()
    fsspec.filesystem('store').pipe_file(f'{URL}/photo.jpg', b'mine')
    with pytest.raises(UserError, match='runs/a is not the place of a run .it has photo.jpg.'):
        with mirrored(folder, URL):
            pytest.fail('begun')


def test_what_an_evaluation_of_another_folder_has_there_is_not_mixed_with_this_one(tmp_path):
    folder = begin(tmp_path / 'a')
    train(folder, 1)
    shutil.copytree(folder, tmp_path / 'b')
    with mirrored(folder, URL):
        train(begin(folder / FOLD), 1)
    before = there()
    for change in (lambda: None, lambda: begin(tmp_path / 'b' / FOLD), lambda: train(tmp_path / 'b' / FOLD, 3)):
        change()
        if (tmp_path / 'b' / FOLD).exists():
            (tmp_path / 'b' / FOLD / 'config.json').write_text('{"seed": 1}', encoding='utf-8')
        with pytest.raises(UserError, match=f'has the {FOLD}/.*.json of another run than .*b, or of a later state'):
            with mirrored(tmp_path / 'b', URL):
                pytest.fail('begun')
    assert there() == before


def test_an_empty_folder_may_be_a_link_and_no_mount_point(tmp_path, monkeypatch):
    folder = begin(tmp_path / 'a')
    with mirrored(folder, URL):
        pass
    (tmp_path / 'disk').mkdir()
    (tmp_path / 'link').symlink_to(tmp_path / 'disk')
    with monkeypatch.context() as patch, pytest.raises(UserError, match='disk is a mount point, .* give one in it'):
        patch.setattr(os.path, 'ismount', lambda path: True)
        with mirrored(tmp_path / 'link', URL):
            pytest.fail('begun')
    with mirrored(tmp_path / 'link', URL):
        assert here(tmp_path / 'disk') == here(folder) and (tmp_path / 'link').is_symlink()


def test_of_two_folders_kept_at_one_url_the_first_hears_of_it(tmp_path):
    folder = begin(tmp_path / 'a')
    with pytest.raises(UserError, match='another folder is kept by now .*b"}.: stop one'), mirrored(folder, URL):
        train(folder, 1)
        with mirrored(tmp_path / 'b', URL):
            train(begin(tmp_path / 'b' / 'of another run'), 1)
    assert {*there()} == {f'of another run/{name}' for name in here(folder)}


def test_a_checkpoint_that_is_not_whole_is_left_there_and_names_that_lead_out_are_refused(tmp_path, caplog):
    folder = begin(tmp_path / 'a')
    with mirrored(folder, URL):
        train(folder, 1)
        train(folder, 2)
    store = fsspec.filesystem('store')
    store.rm_file(f'{URL}/checkpoints/2/checksums.json')
    with mirrored(tmp_path / 'b', URL):
        assert [path.name for path in tmp_path.glob('b/checkpoints/*')] == ['1']
    assert f'{URL}/checkpoints/2 is not whole: it is left there' in caplog.text
    Store.store[f'{URL}/x/../../y'] = Store.store[f'{URL}/config.json']
    with pytest.raises(UserError, match="has a file 'x/../../y', which leads out of it"):
        with mirrored(tmp_path / 'c', URL):
            pytest.fail('begun')
    assert not (tmp_path / 'c').exists()


def test_a_url_may_be_that_of_a_folder(tmp_path):
    folder = begin(tmp_path / 'a')
    with mirrored(folder, f'file://{tmp_path}/b'):
        for step in (1, 2):
            train(folder, step)
    with mirrored(folder, f'file://{tmp_path}/b'):
        train(folder, 3)
    left, right = ({path.relative_to(place) for path in place.rglob('*')} for place in (folder, tmp_path / 'b'))
    assert {str(path) for path in left ^ right} <= {mirror.OWNER, 'checkpoints/1'}


@pytest.mark.s3
def test_a_run_in_s3(tmp_path, monkeypatch):
    with s3_server(monkeypatch):
        folder = begin(tmp_path / 'a')
        with mirrored(folder, 's3://bucket/runs/a'):
            train(folder, 1)
            train(folder, 2)
        back = tmp_path / 'b'
        with mirrored(back, 's3://bucket/runs/a'):
            assert here(back) == here(folder)
            train(back, 3)
        names = {name.removeprefix('bucket/runs/a/') for name in fsspec.filesystem('s3').find('bucket/runs/a')}
        assert names == here(back).keys() | {mirror.OWNER}
        with pytest.raises(UserError, match='s3://absent/a cannot be read .FileNotFoundError'):
            with mirrored(tmp_path / 'c', 's3://absent/a'):
                pytest.fail('begun')


def test_an_encoder_is_evaluated_where_its_folder_is_not(finished, root, tmp_path):
    workdir, _ = finished
    with mirrored(workdir, URL):
        pass
    config = configs.load_config(f'{root}/configs/retrieval.py:smoke')
    run_task(config, str(tmp_path / 'new'), report=False, mirror=URL)
    assert there()['eval/retrieval/results.json'] == (tmp_path / 'new/eval/retrieval/results.json').read_bytes()


@pytest.mark.parametrize(('url', 'task', 'message'), [
    ('runs/a', 'pretrain', "--mirror is 'runs/a': give a URL"),
    ('gs://bucket/a', 'browse', 'browse writes another one: leave --mirror out')])
def test_what_is_no_url_or_no_run_is_refused(url, task, message):
    with pytest.raises(UserError, match=message):
        check_mirror(url, task)
    check_mirror(None, task)
    check_mirror('gs://bucket/a', 'retrieval')
