"""What is not finite: it stops a run with a sentence, nothing that it spoiled is kept, and the step can be repeated."""

import json
import shutil
import subprocess
import sys

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vididi_jax.errors import UserError
from vididi_jax.fields import RULES
from vididi_jax.train import pretrain
from vididi_jax.train.checkpoint import Checkpoints
from vididi_jax.train.debug import load_bundle
from vididi_jax.train.mesh import make_mesh
from vididi_jax.train.metric_writer import read_metrics
from vididi_jax.train.optimizer import build_optimizer, learning_rate
from vididi_jax.train.run import check_same_run, workdir_config
from vididi_jax.train.state import build_networks, make_init
from vididi_jax.train.step import make_train_step


def test_a_loss_that_is_not_finite_stops_the_run_with_a_message(tiny_config, tmp_path, monkeypatch, flat):
    """What is saved repeats the step: the same metrics, not finite again."""
    tiny_config.clip.length = 'constant'
    monkeypatch.setitem(RULES, 'augment.mean', lambda value: None)
    tiny_config.augment.mean = (float('inf'),) * 3  # pixels of -inf, however the compiler rounds
    with pytest.raises(UserError, match='at step 1 .*not finite.* loss.*: lower .*clip_norm; .*debug/1'):
        pretrain.run(tiny_config, str(tmp_path))
    networks, optimizer = build_networks(tiny_config, jax.devices()[0]), build_optimizer(tiny_config, 24)
    fresh = make_init(tiny_config, networks, optimizer)(jax.random.key(9))
    state, batch, key, orders = load_bundle(tmp_path / 'debug' / '1', fresh)
    step = make_train_step(networks, optimizer, learning_rate(tiny_config, 24), tiny_config, 24, make_mesh())
    start = jax.tree.map(np.array, state)
    state, metrics = step(jax.tree.map(jnp.asarray, state), batch, key, orders)
    saved = json.loads((tmp_path / 'debug' / '1' / 'step.json').read_text())['metrics']
    np.testing.assert_array_equal([metrics[name] for name in saved], list(saved.values()))
    assert not metrics['finite'] and np.isnan(metrics['loss'])
    jax.tree.map(np.testing.assert_array_equal, state, start)  # a step that is not finite changes nothing
    tiny_config.batch_size = 16
    check_same_run(tiny_config, tmp_path)  # as nothing was kept, what is lowered now may be another batch


def test_the_message_names_the_checkpoint_that_is_left(finished, tiny_config, tmp_path, monkeypatch):
    workdir = shutil.copytree(finished[0], tmp_path / 'work')
    tiny_config.epochs = 5
    broken = {'loss': np.float32('nan'), 'finite': np.bool_(False)}
    monkeypatch.setattr(pretrain, 'make_train_step', lambda *_: lambda state, *_: (state, broken))
    said = f'at step 25 .*not finite.* in loss: .*in another --workdir.* until step 24, --config.init_from={workdir}; '
    with pytest.raises(UserError, match=said):
        pretrain.run(tiny_config, str(workdir))


def test_steps_launched_after_one_that_is_not_finite_change_nothing(tiny_config, tmp_path, monkeypatch, flat):
    tiny_config.clip.length = 'constant'
    launched, make_step = [], pretrain.make_train_step

    def make(*arguments):
        step = make_step(*arguments)

        def third_is_wrong(state, batch, key, orders, previous_finite):
            launched.append(len(launched) + 1)
            state, metrics = step(state, batch, key, orders, np.bool_(False) if launched[-1] == 3 else previous_finite)
            return state, {**metrics, 'finite_target': metrics['finite']}

        return third_is_wrong

    monkeypatch.setattr(pretrain, 'make_train_step', make)
    tiny_config.checkpoint.every_steps = 0
    said = 'at step 3 .* in target: lower .* or set config.optimizer.clip_norm; .*debug/3'
    with pytest.raises(UserError, match=said):
        pretrain.run(tiny_config, str(tmp_path))
    assert launched == [1, 2, 3, 4, 5]  # two more than the loop has heard of
    saved = flax.serialization.msgpack_restore((tmp_path / 'debug' / '3' / 'state.msgpack').read_bytes())
    assert saved['step'] == 2
    assert [row['step'] for row in read_metrics(tmp_path)] == [1, 2]


DIVERGING = {  # framework -> sizes of its heads, cycles between probes, and where the first value that is not finite is
    'vicreg': (['--config.framework.projector=(16,16)', '--config.batch_size=24'], 1, 'embeddings'),
    'simclr': (['--config.framework.projector=(16,16)'], 0, 'statistics'),
    'byol': (['--config.framework.projector=(16,16)', '--config.framework.predictor=(16,16)'], 0, 'statistics'),
}


def test_a_diverging_run_ends_with_one_sentence_and_finite_checkpoints(tiny_motion, tmp_path, root):
    """Through main.py. At this rate weights overflow in a few steps, long before all of the losses do."""
    runs = {name: subprocess.Popen(
        [sys.executable, 'main.py', f'--config=configs/motion_{name}.py:smoke', f'--workdir={tmp_path / name}', *heads,
         f'--config.data.dir={tiny_motion}', '--config.model.width=2', '--config.augment.size=16',
         '--config.clip.length=constant', '--config.optimizer.base_rate=1e6', f'--config.health.every_cycles={every}',
         '--config.checkpoint.every_steps=1'], cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for name, (heads, every, _) in DIVERGING.items()}
    for name, process in runs.items():
        printed = process.communicate()[1]
        assert process.returncode == 1 and 'Traceback' not in printed, printed[-3000:]
        errors = [line for line in printed.splitlines() if 'error:' in line]
        assert len(errors) == 1 and errors[0].startswith('error: at step ')
        assert f'not finite came up in {DIVERGING[name][2]}: lower' in errors[0]
        config = workdir_config(tmp_path / name)
        step, = (int(path.name) for path in (tmp_path / name / 'debug').iterdir())
        fresh = make_init(config, build_networks(config, jax.devices()[0]), build_optimizer(config, 24))
        with Checkpoints(tmp_path / name) as checkpoints:
            restored, meta = checkpoints.restore_latest(jax.tree.map(jnp.empty_like, jax.eval_shape(
                fresh, jax.random.key(0))))
        assert meta['step'] == step - 1
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(restored))
