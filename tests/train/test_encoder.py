"""The encoder that a run starts from."""

from types import SimpleNamespace

import google_crc32c
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.compiled.inputs import Small
from vididi_jax.errors import UserError
from vididi_jax.train import encoder, loop, pretrain
from vididi_jax.train import state as train_state
from vididi_jax.train.checkpoint import load_encoder_variables
from vididi_jax.train.run import workdir_config


def test_an_untrained_encoder_is_the_one_that_the_run_started_from(tiny_config, tmp_path, monkeypatch):
    for module in (train_state, encoder):
        monkeypatch.setattr(module, 'build_encoder', lambda model, device: Small(2, jnp.dtype(jnp.float32)))
    started, tiny_config.seed = [], 3
    monkeypatch.setattr(loop, 'train', lambda *arguments: (started.append(arguments[2]), 0))
    pretrain.run(tiny_config, str(tmp_path))
    asked = SimpleNamespace(untrained=True)
    variables = encoder.asked_encoder(workdir_config(tmp_path), str(tmp_path), asked).variables
    for part in ('params', 'batch_stats'):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),  # two programs draw them
                     variables[part], getattr(started[0], part)['encoder'])


def test_init_from_starts_with_another_runs_encoder(finished, tiny_config, tmp_path, monkeypatch):
    tiny_config.init_from = str(finished[0])
    started, alike, differ = {}, {}, []
    monkeypatch.setattr(loop, 'check_alike', lambda values, free: (alike.update(values), differ.extend(free)))
    monkeypatch.setattr(loop, 'train', lambda *arguments: (started.setdefault('state', arguments[2]), 0))
    pretrain.run(tiny_config, str(tmp_path / 'new'))
    variables, meta = load_encoder_variables(finished[0])
    assert meta['step'] == 24
    jax.tree.map(np.testing.assert_array_equal, started['state'].params['encoder'], variables['params'])
    jax.tree.map(np.testing.assert_array_equal, started['state'].batch_stats['encoder'], variables['batch_stats'])
    assert int(started['state'].step) == 0
    # Each process has read them from its own disk, and is asked for what it has read.
    kernel = google_crc32c.value(np.asarray(variables['params']['stem']['conv']['kernel']).tobytes())
    assert alike['init_from params/stem/conv/kernel'] == kernel and 'seed' in alike
    # When all of them meet must not differ, as it may on resume.
    assert 'data.dir' in differ and not {'checkpoint', 'health', 'model.conv_impl'} & set(differ)
    # The checkpoint is settled when the run begins, whatever 'latest' means later.
    assert workdir_config(tmp_path / 'new').init_checkpoint == '24'
    asked = []
    monkeypatch.setattr('vididi_jax.train.run.steps_of', lambda folder: [6] if 'new' in folder.parts else [])
    with monkeypatch.context() as patched:
        patched.setattr(loop, 'load_fitting_variables', lambda workdir, expected, checkpoint: (
            asked.append(checkpoint), (variables, {'step': 24}))[1])
        pretrain.run(tiny_config, str(tmp_path / 'new'))
    assert asked == ['24'] and workdir_config(tmp_path / 'new').init_checkpoint == '24'
    tiny_config.init_checkpoint = '12'
    with pytest.raises(UserError, match="started with init_checkpoint='24' and this command says '12'"):
        pretrain.run(tiny_config, str(tmp_path / 'new'))
    tiny_config.init_checkpoint = 'latest'
    make_init = pretrain.make_init

    def make_traced_init(*arguments):
        init = make_init(*arguments)

        def traced(key):
            assert isinstance(key, jax.core.Tracer), 'initialised before the encoder was found to fit'
            return init(key)
        return traced

    monkeypatch.setattr(pretrain, 'make_init', make_traced_init)
    tiny_config.model.width = 4
    with pytest.raises(UserError, match='does not fit'):
        pretrain.run(tiny_config, str(tmp_path / 'wide'))
