"""The probe of a run, and its warning of a collapse."""

import logging

import jax
import jax.numpy as jnp
import numpy as np

from vididi_jax.train import health, pretrain
from vididi_jax.train.mesh import make_mesh
from vididi_jax.train.metric_writer import read_metrics
from vididi_jax.train.optimizer import build_optimizer
from vididi_jax.train.pretrain import make_plan
from vididi_jax.train.state import build_networks, init_state


def test_collapse_is_called_out(caplog):
    with caplog.at_level(logging.WARNING):
        health.warn_of_collapse({'embedding_std_mean': 0.8, 'effective_rank': 12.0})
        assert not caplog.records
        health.warn_of_collapse({'embedding_std_mean': 0.01, 'effective_rank': 12.0})
        health.warn_of_collapse({'embedding_std_mean': 0.8, 'effective_rank': 1.1})
    assert len(caplog.records) == 2 and 'base_rate' in caplog.text


def test_a_run_measures_itself(finished):
    measured = [row for row in read_metrics(finished[0]) if 'health/effective_rank' in row]
    assert [(row['step'], row['phase']) for row in measured] == [(6, 0), (12, 1), (18, 2), (24, 3)]
    for row in measured:
        assert 0 <= row['health/embedding_std_min'] <= row['health/embedding_std_mean'] <= 1.01
        assert 1 <= row['health/effective_rank'] <= 15  # of 16 videos
        assert 0 <= row['health/alignment'] <= 4 and -4 <= row['health/uniformity'] <= 0
        assert 0 < row['health/moving_pixels'] < 1 and 0 < row['health/saliency_on_motion'] < 1
        assert -1 <= row['health/order_agreement'] <= 1 and 0 <= row['health/knn_accuracy'] <= 100


def test_clips_of_one_frame_have_no_motion_and_go_on(tiny_config, tmp_path, flat):
    tiny_config.clip.frames, tiny_config.schedule, tiny_config.epochs = 1, 'base', 1
    pretrain.run(tiny_config, str(tmp_path))
    measured = read_metrics(tmp_path)[-1]
    assert 'health/effective_rank' in measured
    assert not {'health/order_agreement', 'health/saliency_on_motion', 'health/moving_pixels'} & measured.keys()


def test_an_encoder_that_needs_frames_is_measured_of_fewer_orders(tiny_config):
    plan = make_plan(tiny_config, make_mesh())
    tiny_config.model.name = 's3d'
    for frames, order in ((5, 0), (6, 1), (8, 2)):
        tiny_config.clip.frames = frames
        assert health.Probe(tiny_config, None, plan.source, plan.videos, make_mesh()).max_order == order


def test_a_probe_warns_of_a_collapse_and_survives_what_is_not_finite(tiny_config, caplog):
    """A projector whose last layer is zero maps every clip to its bias; an infinite bias leaves nan."""
    mesh = make_mesh()
    plan, networks = make_plan(tiny_config, mesh), build_networks(tiny_config, 'cpu')
    state = init_state(networks, build_optimizer(tiny_config, 24), jax.random.key(0), (8, 16, 16))
    measure = health.Probe(tiny_config, networks, plan.source, plan.videos, mesh).measure
    last = state.params['projector']['Dense_2']
    measured = {}
    for name, bias in (('collapsed', 1.0), ('broken', np.inf)):
        last |= {'kernel': 0 * last['kernel'], 'bias': jnp.full_like(last['bias'], bias)}
        caplog.clear()
        measured[name] = measure(state)
        assert ('THE EMBEDDINGS COLLAPSE' in caplog.text) == (name == 'collapsed')
    assert measured['collapsed']['health/effective_rank'] == 0
    assert np.isnan(measured['broken']['health/effective_rank'])
