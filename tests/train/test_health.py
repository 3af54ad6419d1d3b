"""Measures of collapse and agreement against plain numpy, and the probe of a run."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from vididi_jax.train import health
from vididi_jax.train.mesh import make_mesh
from vididi_jax.train.metrics import read_metrics
from vididi_jax.train.optimizer import build_optimizer
from vididi_jax.train.pretrain import make_plan
from vididi_jax.train.state import build_networks, init_state


def rows(n=40, d=6, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


def test_std_is_one_on_the_sphere_and_zero_for_one_point():
    smallest, mean = health.embedding_std(rows(20_000))
    assert 0.98 < smallest <= mean < 1.02
    assert health.embedding_std(np.ones((5, 3)) * np.arange(1, 6)[:, None]) == pytest.approx((0, 0), abs=1e-12)


def test_effective_rank_counts_directions():
    basis = np.repeat(np.eye(4), 10, axis=0) * np.where(np.arange(40) % 2, 1, -1)[:, None]
    assert health.effective_rank(basis) == pytest.approx(4)
    assert health.effective_rank(np.arange(10.0)[:, None] * np.ones(3)) == pytest.approx(1)
    assert health.effective_rank(np.ones((5, 3))) == 0
    z = rows()
    values = np.sqrt(np.linalg.eigvalsh((z - z.mean(0)).T @ (z - z.mean(0))))
    p = values / values.sum()
    assert health.effective_rank(z) == pytest.approx(np.exp(-(p * np.log(p)).sum()))


def test_alignment_and_uniformity_are_their_definitions():
    z1, z2 = rows(8), rows(8, seed=1)
    u1, u2 = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (z1, z2))
    distances = [np.sum((a - b) ** 2) for a, b in zip(u1, u2, strict=True)]
    assert health.alignment(z1, z2) == pytest.approx(np.mean(distances))
    pairs = [np.exp(-2 * np.sum((u1[i] - u1[j]) ** 2)) for i in range(8) for j in range(8) if i != j]
    assert health.uniformity(z1) == pytest.approx(np.log(np.mean(pairs)))
    assert health.alignment(z1, 3 * z1) == pytest.approx(0, abs=1e-12)
    assert health.uniformity(np.ones((4, 3))) == pytest.approx(0)


def test_order_agreement_is_the_mean_cosine_of_pairs():
    z = np.stack([rows(seed=s) for s in range(3)])
    u = z / np.linalg.norm(z, axis=-1, keepdims=True)
    expected = np.mean([(u[i] * u[j]).sum(-1).mean() for i, j in ((0, 1), (0, 2), (1, 2))])
    assert health.order_agreement(z) == pytest.approx(expected)
    assert health.order_agreement(np.stack([z[0], 2 * z[0]])) == pytest.approx(1)


@pytest.mark.parametrize('k', [1, 3])
def test_knn_is_scikit_learns_leave_one_out(k):
    """On two classes, where an odd k leaves no tie."""
    x, labels = rows(60), np.arange(60) % 2
    x[:, 0] += 2 * labels
    u = x / np.linalg.norm(x, axis=1, keepdims=True)
    right = [KNeighborsClassifier(k).fit(np.delete(u, i, 0), np.delete(labels, i)).predict(u[i : i + 1])[0] == labels[i]
             for i in range(60)]
    assert health.knn_accuracy(x, labels, k) == pytest.approx(100 * np.mean(right))


def test_a_tied_vote_goes_to_the_nearer_class():
    angles = np.deg2rad([0, 10, 20, 100, 110])
    x = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    assert health.knn_accuracy(x, np.array([0, 0, 1, 1, 1]), k=2) == 80  # only the third one is taken for a 0


def test_collapse_is_called_out(caplog):
    with caplog.at_level(logging.WARNING):
        health.warn_of_collapse({'embedding_std_mean': 0.8, 'effective_rank': 12.0})
        assert not caplog.records
        health.warn_of_collapse({'embedding_std_mean': 0.01, 'effective_rank': 12.0})
        health.warn_of_collapse({'embedding_std_mean': 0.8, 'effective_rank': 1.1})
    assert len(caplog.records) == 2 and 'base_rate' in caplog.text


def test_a_run_measures_itself(finished):
    measured = [row for row in read_metrics(finished[0]) if 'health/effective_rank' in row]
    assert [row['step'] for row in measured] == [4, 8, 12, 16, 20, 24]
    for row in measured:
        assert 0 <= row['health/embedding_std_min'] <= row['health/embedding_std_mean'] <= 1.01
        assert 1 <= row['health/effective_rank'] <= 15  # of 16 videos
        assert 0 <= row['health/alignment'] <= 4 and -4 <= row['health/uniformity'] <= 0
        assert -1 <= row['health/order_agreement'] <= 1 and 0 <= row['health/knn_accuracy'] <= 100


def test_what_is_not_finite_is_nan():
    for bad in (np.nan, np.inf):
        z = rows(8)
        z[3, 1] = bad
        values = [*health.embedding_std(z), health.effective_rank(z), health.alignment(z, rows(8)),
                  health.uniformity(z), health.order_agreement(np.stack([z, rows(8)])),
                  health.knn_accuracy(z, np.arange(8) % 2)]
        assert np.isnan(values[1:]).all()


def test_a_probe_warns_of_a_collapse_and_survives_what_is_not_finite(tiny_config, caplog):
    """A projector whose last layer is zero maps every clip to its bias; an infinite bias leaves nan."""
    mesh = make_mesh()
    plan, networks = make_plan(tiny_config, mesh), build_networks(tiny_config)
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
