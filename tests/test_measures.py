"""Measures of collapse and agreement against plain numpy."""

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from vididi_jax import measures


def rows(n=40, d=6, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


def test_std_is_one_on_the_sphere_and_zero_for_one_point():
    smallest, mean = measures.embedding_std(rows(20_000))
    assert 0.98 < smallest <= mean < 1.02
    assert measures.embedding_std(np.ones((5, 3)) * np.arange(1, 6)[:, None]) == pytest.approx((0, 0), abs=1e-12)


def test_effective_rank_counts_directions():
    basis = np.repeat(np.eye(4), 10, axis=0) * np.where(np.arange(40) % 2, 1, -1)[:, None]
    assert measures.effective_rank(basis) == pytest.approx(4)
    assert measures.effective_rank(np.arange(10.0)[:, None] * np.ones(3)) == pytest.approx(1)
    assert measures.effective_rank(np.ones((5, 3))) == 0
    z = rows()
    values = np.sqrt(np.linalg.eigvalsh((z - z.mean(0)).T @ (z - z.mean(0))))
    p = values / values.sum()
    assert measures.effective_rank(z) == pytest.approx(np.exp(-(p * np.log(p)).sum()))
    assert measures.effective_rank(z + 1e5) == pytest.approx(measures.effective_rank(z))  # of the spread alone


def test_alignment_and_uniformity_are_their_definitions():
    z1, z2 = rows(8), rows(8, seed=1)
    u1, u2 = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (z1, z2))
    distances = [np.sum((a - b) ** 2) for a, b in zip(u1, u2, strict=True)]
    assert measures.alignment(z1, z2) == pytest.approx(np.mean(distances))
    pairs = [np.exp(-2 * np.sum((u1[i] - u1[j]) ** 2)) for i in range(8) for j in range(8) if i != j]
    assert measures.uniformity(z1) == pytest.approx(np.log(np.mean(pairs)))
    assert measures.alignment(z1, 3 * z1) == pytest.approx(0, abs=1e-12)
    assert measures.uniformity(np.ones((4, 3))) == pytest.approx(0)


def test_order_agreement_is_the_mean_cosine_of_pairs():
    z = np.stack([rows(seed=s) for s in range(3)])
    u = z / np.linalg.norm(z, axis=-1, keepdims=True)
    expected = np.mean([(u[i] * u[j]).sum(-1).mean() for i, j in ((0, 1), (0, 2), (1, 2))])
    assert measures.order_agreement(z) == pytest.approx(expected)
    assert measures.order_agreement(np.stack([z[0], 2 * z[0]])) == pytest.approx(1)


@pytest.mark.parametrize('k', [1, 3])
def test_knn_is_scikit_learns_leave_one_out(k):
    """On two classes, where an odd k leaves no tie."""
    x, labels = rows(60), np.arange(60) % 2
    x[:, 0] += 2 * labels
    u = x / np.linalg.norm(x, axis=1, keepdims=True)
    right = [KNeighborsClassifier(k).fit(np.delete(u, i, 0), np.delete(labels, i)).predict(u[i : i + 1])[0] == labels[i]
             for i in range(60)]
    assert measures.knn_accuracy(x, labels, k) == pytest.approx(100 * np.mean(right))


def test_of_fewer_videos_than_neighbours_each_asks_all_others_and_not_itself():
    """Of two classes of two: one of its own class and two of the other."""
    x = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
    assert measures.knn_accuracy(x, np.array([0, 0, 1, 1])) == 0


def test_a_tied_vote_goes_to_the_nearer_class():
    angles = np.deg2rad([0, 10, 20, 100, 110])
    x = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    assert measures.knn_accuracy(x, np.array([0, 0, 1, 1, 1]), k=2) == 80  # only the third one is taken for a 0


def test_what_is_not_finite_is_nan():
    for bad in (np.nan, np.inf):
        z = rows(8)
        z[3, 1] = bad
        values = [*measures.embedding_std(z), measures.effective_rank(z), measures.alignment(z, rows(8)),
                  measures.uniformity(z), measures.order_agreement(np.stack([z, rows(8)])),
                  measures.knn_accuracy(z, np.arange(8) % 2)]
        assert np.isnan(values).all()
