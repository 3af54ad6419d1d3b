"""Training runs: what they leave behind, exact resumption, and what they refuse."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh

from tests.data_sets import edit_rows
from tests.train.test_health import Frames
from vididi_jax.config import flatten, to_dict
from vididi_jax.errors import Stopped, UserError
from vididi_jax.lock import locked
from vididi_jax.models import build
from vididi_jax.schedule import run_orders
from vididi_jax.train import loop, pretrain
from vididi_jax.train import state as train_state
from vididi_jax.train.checkpoint import Checkpoints, load_encoder_variables
from vididi_jax.train.mesh import make_mesh
from vididi_jax.train.metric_writer import read_metrics, without_times
from vididi_jax.train.run import check_same_run, workdir_config


def test_a_loss_of_parts_of_the_batch_goes_on_with_as_many_devices(tiny_config):
    mesh = make_mesh()
    meta = {'step': 4, 'data': 'these', 'devices': mesh.size + 1, 'commits': ['abc']}
    task = SimpleNamespace(init=lambda key: {}, fingerprint='these')
    kept = SimpleNamespace(restore_latest=lambda abstract: ({}, meta))
    assert loop.restore_or_init(tiny_config, task, kept, mesh) == ({}, meta)
    tiny_config.framework.scope = 'per_device'
    with pytest.raises(UserError, match=f'on {mesh.size + 1} device.* here are {mesh.size}: .* go on with as many'):
        loop.restore_or_init(tiny_config, task, kept, mesh)


def test_a_run_that_goes_on_in_another_precision_says_so(finished, tiny_config, tmp_path, monkeypatch, capsys):
    workdir = str(shutil.copytree(finished[0], tmp_path / 'work'))
    monkeypatch.setattr(loop, 'train', lambda *arguments: (arguments[2], 0))
    monkeypatch.setattr(build, 'has_bfloat16', lambda device: True)
    pretrain.run(tiny_config, workdir)  # which is done
    assert 'goes on' not in capsys.readouterr().out
    tiny_config.epochs += 4
    pretrain.run(tiny_config, workdir)
    assert 'it was trained in float32, and goes on in bfloat16, which model.dtype=auto is' in capsys.readouterr().out


def command(config, workdir):
    """main.py in a process of its own, for the fields that `tiny_config` changes."""
    return [sys.executable, 'main.py', '--config=configs/motion_vicreg.py:smoke', f'--workdir={workdir}',
            f'--config.data.dir={config.data.dir}', '--config.model.width=2', '--config.augment.size=16',
            '--config.framework.projector=(16, 16, 16)', '--config.clip.length=constant', '--config.log.every_steps=1',
            '--config.checkpoint.every_steps=4']


def test_a_run_leaves_checkpoints_metrics_and_config(finished, tiny_config, capsys):
    workdir, state = finished
    assert int(state.step) == 24
    assert sorted(int(p.name) for p in (workdir / 'checkpoints').iterdir()) == [16, 18, 20, 24]  # the four latest
    rows = read_metrics(workdir)
    assert [row['step'] for row in rows] == list(range(1, 25))
    assert [row['phase'] for row in rows] == sorted(row['phase'] for row in rows)
    pairs = {0: [[1, 1], [2, 2]], 1: [[0, 1], [1, 2]], 2: [[1, 0], [2, 1]], 3: [[0, 0], [1, 1]]}
    assert all(row['orders'] in pairs[row['phase']] for row in rows)
    assert json.loads((workdir / 'config.json').read_text()) == to_dict(tiny_config)
    assert any((workdir / 'tensorboard').iterdir())
    assert all(np.isfinite([row['loss'], row['gradient_norm']]).all() for row in rows)
    assert all(0 <= row['data_wait'] <= 1 for row in rows)


def test_a_run_follows_its_schedule_of_orders_and_its_rate(finished, tiny_config):
    """The rate is that of all steps of the run, and statistics are those of every view it had."""
    rows, state = read_metrics(finished[0]), finished[1]
    orders = [list(pair) for epoch in run_orders('vididi', tiny_config.seed, 4, 6) for pair in epoch]
    assert [row['orders'] for row in rows] == orders
    np.testing.assert_array_equal(state.by_order.seen, np.bincount(np.ravel(orders), minlength=3))
    peak, last, steps = 19.2 * 8 / 256, 0.001, np.arange(24)  # of motion_vicreg.py, which warms up in a tenth: 2 steps
    cosine = last + (1 - last) * (1 + np.cos(np.pi * (steps - 2) / 22)) / 2
    np.testing.assert_allclose(
        [row['learning_rate'] for row in rows], peak * np.where(steps < 2, steps / 2, cosine), rtol=1e-5)  # float32


def test_statistics_are_plain_where_the_config_says_so(tiny_config, flat):
    for statistics, by_order in (('by_order', True), ('plain', False)):
        tiny_config.statistics = statistics
        state = jax.eval_shape(pretrain.make_task(tiny_config, make_mesh()).init, jax.random.key(0))
        assert (state.by_order is not None) == by_order


def test_clips_orders_and_augmentation_of_each_step_are_of_the_seed(tiny_config, tmp_path, monkeypatch, flat):
    tiny_config.health.every_cycles, tiny_config.epochs = 0, 1
    clips, orders, keys = [], [], []

    def step(state, batch, key, pair, _):
        clips.append(np.asarray(batch['clips']))
        orders.append(pair)
        keys.append(jax.random.key_data(key).tolist())
        return state, {'loss': np.float32(1), 'finite': np.bool_(True)}

    monkeypatch.setattr(pretrain, 'make_train_step', lambda *_: step)
    for seed in (0, 1):
        tiny_config.seed = seed
        pretrain.run(tiny_config, str(tmp_path / str(seed)))
    assert orders == [pair for seed in (0, 1) for pair in run_orders('vididi', seed, 1, 6)[0]]
    fold = jax.random.fold_in
    assert keys == [jax.random.key_data(fold(fold(jax.random.key(seed), train_state.AUGMENT), number)).tolist()
                    for seed in (0, 1) for number in range(6)]
    assert len({str(key) for key in keys}) == len({each.tobytes() for each in clips}) == 12


def test_a_workdir_has_one_run_at_a_time(tiny_config, tmp_path):
    with locked(tmp_path, ''), pytest.raises(UserError, match='is in use by'):
        pretrain.run(tiny_config, str(tmp_path))


def test_a_run_that_another_one_overtook_does_not_go_on_with_its_checkpoints(
        finished, tiny_config, tmp_path, monkeypatch):
    """The other one began and ended while this one looked at its data, before it had the lock."""
    make_task = pretrain.make_task

    def overtaken(config, mesh):
        shutil.copytree(finished[0], tmp_path / 'work')
        return make_task(config, mesh)

    monkeypatch.setattr(pretrain, 'make_task', overtaken)
    tiny_config.seed = 1
    with pytest.raises(UserError, match='was started with seed=0 and this command says 1'):
        pretrain.run(tiny_config, str(tmp_path / 'work'))
    assert workdir_config(tmp_path / 'work').seed == 0


def test_running_a_finished_run_again_changes_nothing(finished, tiny_config, capsys):
    workdir, state = finished
    before = (workdir / 'metrics.jsonl').read_bytes()
    again = pretrain.run(tiny_config, str(workdir))
    assert (workdir / 'metrics.jsonl').read_bytes() == before
    jax.tree.map(np.testing.assert_array_equal, state, again)


def test_a_stopped_and_killed_run_ends_as_one_that_never_stopped(finished, tiny_config, tmp_path, root):
    """SIGTERM, then SIGKILL, both in the middle of a phase; state and metrics are equal bit by bit."""
    workdir = tmp_path / 'killed'
    workdir.mkdir()  # what a run left that had no checkpoint yet
    (workdir / 'metrics.jsonl').write_text('{"step": 2, "loss": 1.0}\n{"step": 3, "lo')
    for number, after in ((signal.SIGTERM, 6), (signal.SIGKILL, 13)):
        process = subprocess.Popen(
            command(tiny_config, workdir), cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while len(read_metrics(workdir)) < after:
            assert process.poll() is None, process.stderr.read().decode()
            time.sleep(0.05)
        process.send_signal(number)
        _, said = process.communicate()
        if number == signal.SIGTERM:
            steps = Checkpoints(workdir).steps()
            assert process.returncode == 143 and len(read_metrics(workdir)) == steps[-1]
            assert f'stopped by SIGTERM after step {steps[-1]} of 24: it is saved' in said.decode()
    assert len(read_metrics(workdir)) < 24
    state = pretrain.run(tiny_config, str(workdir))
    jax.tree.map(np.testing.assert_array_equal, state, finished[1])
    assert without_times(read_metrics(workdir)) == without_times(read_metrics(finished[0]))


def test_a_run_whose_views_differ_in_length_resumes_exactly(tiny_config, tmp_path, monkeypatch):
    monkeypatch.setattr(train_state, 'build_encoder', lambda model, device: Frames())
    tiny_config.clip.length, tiny_config.health.every_cycles = 'shrink', 0
    at_once, make_task, read = pretrain.run(tiny_config, str(tmp_path / 'at_once')), pretrain.make_task, []

    def complete(batch):
        read.append(batch)
        if len(read) == 9:
            os.kill(os.getpid(), signal.SIGTERM)
        return batch

    with monkeypatch.context() as patched, pytest.raises(Stopped):
        patched.setattr(pretrain, 'make_task', lambda *config: make_task(*config)._replace(complete=complete))
        patched.setattr(loop, 'commit', lambda: 'first')
        pretrain.run(tiny_config, str(tmp_path / 'stopped'))
    assert len(read_metrics(tmp_path / 'stopped')) < 24
    jax.tree.map(np.testing.assert_array_equal, pretrain.run(tiny_config, str(tmp_path / 'stopped')), at_once)
    rows = [without_times(read_metrics(tmp_path / name)) for name in ('at_once', 'stopped')]
    assert rows[0] == rows[1] and len(rows[0]) == 24
    assert load_encoder_variables(tmp_path / 'stopped')[1]['commits'] == ['first', loop.commit()]


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(finished, tiny_config, tmp_path, caplog, capsys):
    workdir = tmp_path / 'damaged'
    shutil.copytree(finished[0], workdir)
    for step in ('24', '20'):
        path = max((workdir / 'checkpoints' / step).rglob('d/*'), key=lambda path: path.stat().st_size)
        os.truncate(path, path.stat().st_size - 200)
    state = pretrain.run(tiny_config, str(workdir))
    assert sorted(path.name for path in (workdir / 'damaged').iterdir()) == ['20', '24']
    assert 'resuming after step 18' in capsys.readouterr().out
    jax.tree.map(np.testing.assert_array_equal, state, finished[1])


def test_what_does_not_decide_a_run_may_differ_when_it_goes_on(finished, tiny_config, tmp_path, capsys):
    """The data are in another folder; workers, logging, health and retention are others; the config is an older one."""
    workdir = shutil.copytree(finished[0], tmp_path / 'work')
    moved = shutil.copytree(tiny_config.data.dir, tmp_path / 'data')
    values = json.loads((workdir / 'config.json').read_text())
    del values['model']['remat'], values['init_checkpoint'], values['optimizer']['predictor_rate']
    (workdir / 'config.json').write_text(json.dumps(values))
    config = tiny_config.copy_and_resolve_references()
    config.data.dir, config.data.workers, config.log.every_steps = str(moved), 1, 7
    config.checkpoint.keep, config.health.every_cycles = 2, 3
    state = pretrain.run(config, str(workdir))
    assert 'resuming after step 24' in capsys.readouterr().out
    jax.tree.map(np.testing.assert_array_equal, state, finished[1])
    assert workdir_config(workdir).data.dir == str(moved)
    edit_rows(moved, lambda number, row: row | {'fps': 26.0})
    with pytest.raises(UserError, match='are not those of the run'):
        pretrain.run(config, str(workdir))


def test_epochs_may_be_raised_and_nothing_else(finished, tiny_config, tmp_path):
    workdir = finished[0]
    before = (workdir / 'config.json').read_text()
    for field, value in (('seed', 1), ('epochs', 3), ('batch_size', 16)):
        config = tiny_config.copy_and_resolve_references()
        config[field] = value
        with pytest.raises(UserError, match=f'{field}='):
            pretrain.run(config, str(workdir))
    config = tiny_config.copy_and_resolve_references()
    config.epochs, config.seed = 5, 1
    with pytest.raises(UserError, match=r'seed=0 .*says 1 \(1 field\(s\) that decide the run differ\)'):
        pretrain.run(config, str(workdir))
    assert (workdir / 'config.json').read_text() == before


def test_every_field_that_decides_the_run_must_stay(finished, tiny_config):
    may_differ = {'allow_missing', 'checkpoint.every_steps', 'checkpoint.keep', 'data.dir', 'data.workers', 'epochs',
                  'health.every_cycles', 'health.videos', 'log.every_steps', 'log.to', 'model.conv_impl'}
    fields = flatten(to_dict(tiny_config))
    assert may_differ < set(fields)
    for name, value in fields.items():
        config = tiny_config.copy_and_resolve_references()
        with config.ignore_type():
            config.update_from_flattened_dict({name: value + 1 if name == 'epochs' else 'another'})
        if name in may_differ:
            check_same_run(config, finished[0])
        else:
            with pytest.raises(UserError, match=f'started with {name}='):
                check_same_run(config, finished[0])


BAD = [
    (dict(batch_size=1), 'batch_size'),
    (dict(batch_size=64), '48 usable videos'),
    (dict(epochs=0), 'config.epochs is 0: it must be a whole number from 1 to 1,000,000'),
    (dict(schedule='vidid'), 'vididi'),
    ({'clip.frames': 2, 'clip.length': 'shrink'}, 'no derivative of order 2'),
    ({'model.name': 's3d', 'clip.frames': 6, 'clip.length': 'shrink'},
     's3d takes clips of at least 5 frames, and views of order 2 have 4'),
    ({'clip.stride': 3, 'clip.short_video': 'error'}, '48 of 48 videos'),
    ({'data.dir': 'nowhere'}, "'nowhere' does not exist"),
    ({'data.dir': ''}, 'data.dir'),
    ({'data.split': 'val'}, 'train, test'),
    ({'augment.size': 32}, 'augment.size'),
    ({'init_from': 'nowhere'}, 'no checkpoint'), ({'init_checkpoint': 'best'}, 'init_from is empty'),
    ({'optimizer.predictor_rate': 2.0}, 'no predictor'),
    ({'framework.loss': 'info_nce'}, 'temperature'),
    ({f'framework.loss_options.{name}': 0.0 for name in ('invariance', 'variance', 'covariance')}, 'nothing to learn'),
    ({'framework.predictor': (16,)}, 'BYOL'),
]


@pytest.mark.parametrize(('changes', 'message'), BAD, ids=[','.join(changes) for changes, _ in BAD])
def test_bad_configs_are_refused_before_anything_is_written(tiny_config, tmp_path, changes, message):
    if 'clip.stride' in changes:
        changes = {**changes, 'clip.frames': 8}
    tiny_config.update_from_flattened_dict(changes)
    with pytest.raises(UserError, match=message):
        pretrain.run(tiny_config, str(tmp_path / 'work'))
    assert not (tmp_path / 'work' / 'config.json').exists()
    assert not list(tmp_path.glob('work/checkpoints/*'))


def test_metrics_are_written_every_so_many_steps_or_never(tiny_config, tmp_path, monkeypatch, flat):
    metrics = {'loss': np.float32(1), 'finite': np.bool_(True)}
    monkeypatch.setattr(pretrain, 'make_train_step', lambda *_: lambda state, *_: (state, metrics))
    tiny_config.health.every_cycles, tiny_config.epochs = 0, 2
    for every, steps in ((0, [6, 12]), (5, [5, 6, 10, 12])):
        tiny_config.log.every_steps = every
        pretrain.run(tiny_config, str(tmp_path / str(every)))
        assert [row['step'] for row in read_metrics(tmp_path / str(every))] == steps


def test_the_best_checkpoint_ends_a_cycle(tiny_config, tmp_path, monkeypatch, flat):
    """Not one of the middle of the next epoch, which knows no other mean loss."""
    tiny_config.health.every_cycles, tiny_config.epochs, tiny_config.checkpoint.keep = 0, 5, 1

    def step(state, *_):
        state = state.replace(step=state.step + 1)
        return state, {'loss': state.step.astype(np.float32), 'finite': np.bool_(True)}  # lowest in the first cycle

    monkeypatch.setattr(pretrain, 'make_train_step', lambda *_: step)
    pretrain.run(tiny_config, str(tmp_path))
    assert sorted(int(path.name) for path in (tmp_path / 'checkpoints').iterdir()) == [24, 30]


@pytest.mark.parametrize(('lands', 'arrives', 'idle'), [
    (None, 6, 6), (0, 6, 6), (4, 6, 2), (6, 4, 0), (6, 0, 0)])
def test_devices_are_idle_from_their_last_step_to_the_next_batch(monkeypatch, lands, arrives, idle):
    """On a clock that goes on only where the loop waits; `lands` is None where no step is under way."""
    now = [0.0]

    def wait(futures, timeout):
        assert futures == [coming]
        now[0] = arrives if timeout is None else now[0] + timeout

    monkeypatch.setattr(loop, 'time', SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(loop, 'wait', wait)
    coming = SimpleNamespace(done=lambda: now[0] >= arrives)
    flying = [loop.Flight(step, (0, 0), None, {}, {'loss': SimpleNamespace(is_ready=lambda end=end: now[0] >= end)})
              for step, end in ((1, 0), (2, lands)) if lands is not None]
    assert loop.idle_until(coming, flying) == pytest.approx(idle, abs=loop.LOOK)


def test_a_run_that_waits_for_data_says_so(tiny_config, tmp_path, monkeypatch, capsys, flat):
    """Once, and only of more than a twentieth of the time; on a clock by which a step takes a second."""
    tiny_config.health.every_cycles, tiny_config.checkpoint.every_steps, tiny_config.epochs = 0, 0, 2
    now, flown = [0.0], []

    def last(seconds, result):
        now[0] += seconds
        return result

    monkeypatch.setattr(loop, 'time', SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(pretrain, 'make_train_step', lambda *_: lambda state, *_: last(
        1, (state, {'loss': np.float32(1), 'finite': np.bool_(True)})))
    for wait, told in ((0.04, 0), (3, 1)):
        def idle_until(coming, flying, wait=wait):
            flown.append(len(flying))
            return last(wait, wait)

        monkeypatch.setattr(loop, 'idle_until', idle_until)
        pretrain.run(tiny_config, str(tmp_path / str(wait)))
        rows = read_metrics(tmp_path / str(wait))
        np.testing.assert_allclose([row['data_wait'] for row in rows], [wait / (1 + wait)] * 12, atol=1e-4)  # 4 digits
        assert capsys.readouterr().out.count('waiting for data, which no worker processes read') == told
    assert flown == 4 * [0, 1, 2, 2, 2, 2]  # devices have steps before them, but for where an epoch starts


def test_one_batch_is_an_epoch():
    assert [loop.steps_per_epoch(SimpleNamespace(batch_size=8), videos, '') for videos in (8, 15, 16)] == [1, 1, 2]


def test_local_statistics_need_two_videos_on_each_device(tiny_config):
    tiny_config.framework.scope = 'per_device'
    pretrain.make_plan(tiny_config, AbstractMesh((4,), ('data',)))
    with pytest.raises(UserError, match='one video to each of 8 devices.*at least 16'):
        pretrain.make_plan(tiny_config, AbstractMesh((8,), ('data',)))
