"""The probe of a run, and its warning of a collapse."""

import logging

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vididi_jax.models.heads import MLP
from vididi_jax.train import health, pretrain
from vididi_jax.train.mesh import make_mesh
from vididi_jax.train.metric_writer import read_metrics
from vididi_jax.train.optimizer import build_optimizer
from vididi_jax.train.pretrain import make_plan
from vididi_jax.train.state import Networks, init_state


def test_collapse_is_called_out(caplog):
    with caplog.at_level(logging.WARNING):
        health.warn_of_collapse({'embedding_std_mean': 0.8, 'effective_rank': 12.0})
        health.warn_of_collapse({'embedding_std_mean': 0.06, 'effective_rank': 1.6})  # bad, and no collapse
        assert not caplog.records
        health.warn_of_collapse({'embedding_std_mean': 0.01, 'effective_rank': 12.0})
        health.warn_of_collapse({'embedding_std_mean': 0.8, 'effective_rank': 1.1})
        assert len(caplog.records) == 2 and 'base_rate' in caplog.text
        health.warn_of_collapse({'embedding_std_mean': 0.8, 'effective_rank': 1.0}, most=1)  # of two videos
    assert len(caplog.records) == 2


def test_a_run_measures_itself(finished):
    measured = [row for row in read_metrics(finished[0]) if 'health/effective_rank' in row]
    assert [(row['step'], row['phase']) for row in measured] == [(6, 0), (12, 1), (18, 2), (24, 3)]


class Frames(nn.Module):
    """Features of clips of any length: the mean over frames of tanh of a linear map."""

    feature_dim: int = 6
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, clips, train=False, views=1):
        return nn.tanh(nn.Dense(6)(clips.reshape(*clips.shape[:2], -1) / 10)).mean(1)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_each_measure_is_what_plain_numpy_makes_of_the_videos(tiny_config):
    tiny_config.health.videos = 48
    mesh, networks = make_mesh(), Networks(Frames(), MLP((16, 8)), None)
    plan = make_plan(tiny_config, mesh)
    state = init_state(networks, build_optimizer(tiny_config, 24), jax.random.key(0), (8, 16, 16))
    probe = health.Probe(tiny_config, networks, plan.source, plan.videos, mesh)
    measured = probe.measure(state)
    videos = np.concatenate([batch['record'] for batch in probe.batches])
    assert sorted(videos) == list(range(48))

    frames = np.stack([plan.source[int(i)].frames(range(24)) for i in videos]) / 255
    clips = np.stack([frames[:, :8], frames[:, 16:]], 1)  # the first one, and the last that fits
    x = (clips - np.array(tiny_config.augment.mean)) / np.array(tiny_config.augment.std)
    params = jax.tree.map(np.float64, jax.device_get(state.params))
    weights, bias = (params['encoder']['Dense_0'][name] for name in ('kernel', 'bias'))
    hidden, last = (params['projector'][f'Dense_{i}'] for i in (0, 1))
    features = [np.tanh(np.diff(x, n=order, axis=2)[:, :, :6].reshape(48, 2, 6, -1) / 10 @ weights + bias).mean(2)
                for order in range(3)]  # of as many frames as the highest order has
    z = np.stack([np.maximum(f @ hidden['kernel'] / np.sqrt(1 + 1e-5), 0) @ last['kernel'] + last['bias']
                  for f in features])
    first, second = unit(z[0, :, 0]), unit(z[0, :, 1])
    std = first.std(0) * np.sqrt(8)
    centred = z[0, :, 0] - z[0, :, 0].mean(0)
    share = np.sqrt(np.maximum(np.linalg.eigvalsh(centred.T @ centred), 0))
    share = share[share > 0] / share.sum()
    apart = ((first[:, None] - first) ** 2).sum(-1)[~np.eye(48, dtype=bool)]
    flat = unit(z).reshape(3, -1, 8)
    change = (np.abs(np.diff(clips, axis=2)) > 0.1).any(-1)
    moves = np.zeros(clips.shape[:-1], bool)
    moves[:, :, 1:] |= change
    moves[:, :, :-1] |= change
    shares = []
    for start in range(0, 48, 8):  # what tells clips apart is measured from the mean of those of a batch
        part, mask = x[start:start + 8].reshape(16, 8, -1), moves[start:start + 8].reshape(16, 8, 16, 16)
        active = np.tanh(part / 10 @ weights + bias)
        own = active.mean(1) - active.mean((0, 1))
        slope = (1 - active**2) * own[:, None] / 8 @ weights.T / 10
        seen = np.abs((part * slope).reshape(16, 8, 16, 16, 3).sum(-1))
        shares += list((seen * mask).sum((1, 2, 3)) / seen.sum((1, 2, 3)))
    joined = unit(np.concatenate([unit(features[order].mean(1)) for order in (0, 1)], 1))
    labels, right = plan.source.labels[videos], 0
    for i in range(48):
        cosines = joined @ joined[i]
        cosines[i] = -2
        near = list(labels[np.argsort(-cosines)[:5]])
        right += max(near, key=lambda c: (near.count(c), -near.index(c))) == labels[i]
    assert measured == pytest.approx({
        'health/embedding_std_min': std.min(), 'health/embedding_std_mean': std.mean(),
        'health/effective_rank': np.exp(-(share * np.log(share)).sum()),
        'health/alignment': ((first - second) ** 2).sum(-1).mean(),
        'health/uniformity': np.log(np.exp(-2 * apart).mean()),
        'health/order_agreement': np.mean([(flat[i] * flat[j]).sum(-1) for i, j in ((0, 1), (0, 2), (1, 2))]),
        'health/moving_pixels': moves.mean(), 'health/saliency_on_motion': np.mean(shares),
        'health/knn_accuracy': 100 * right / 48}, rel=2e-3)  # float32


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


def test_a_probe_has_one_batch_at_least_and_no_neighbours_without_labels(tiny_config, monkeypatch):
    plan, tiny_config.health.videos = make_plan(tiny_config, make_mesh()), 2
    monkeypatch.setattr(plan.source, 'label_names', [''])  # as of a folder of videos
    probe = health.Probe(tiny_config, None, plan.source, plan.videos, make_mesh())
    assert len(probe.batches) == 1 and not probe.has_labels


def test_a_probe_warns_of_a_collapse_and_survives_what_is_not_finite(tiny_config, caplog):
    """A projector whose last layer is zero maps every clip to its bias; an infinite bias leaves nan."""
    mesh = make_mesh()
    plan, networks = make_plan(tiny_config, mesh), Networks(Frames(), MLP((16, 8)), None)
    state = init_state(networks, build_optimizer(tiny_config, 24), jax.random.key(0), (8, 16, 16))
    measure = health.Probe(tiny_config, networks, plan.source, plan.videos, mesh).measure
    last = state.params['projector']['Dense_1']
    measured = {}
    for name, bias in (('collapsed', 1.0), ('broken', np.inf)):
        last |= {'kernel': 0 * last['kernel'], 'bias': jnp.full_like(last['bias'], bias)}
        caplog.clear()
        measured[name] = measure(state)
        assert ('THE EMBEDDINGS COLLAPSE' in caplog.text) == (name == 'collapsed')
    assert measured['collapsed']['health/effective_rank'] == 0
    assert np.isnan(measured['broken']['health/effective_rank'])
