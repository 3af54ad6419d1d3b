"""Retrieval metrics against scikit-learn and a brute-force loop."""

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from vididi_jax.evaluate.retrieval import chance_recall, join, neighbours, recall_at

KS = (1, 5, 10, 20)


def problem(seed=0, queries=40, gallery=60, classes=6):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(queries, 8)), rng.integers(0, classes, queries),
            rng.normal(size=(gallery, 8)), rng.integers(0, classes, gallery))


def brute_force(query, query_labels, gallery, gallery_labels, k, forbidden=None):
    """R@k with plain loops; of equally near videos the one that stands first in the gallery is nearer."""
    hits = 0
    for i, q in enumerate(query):
        similarity = [-np.inf if forbidden is not None and forbidden[i, j] else
                      np.float64(q @ g) / np.sqrt((q @ q) * (g @ g)) for j, g in enumerate(gallery)]
        order = sorted(range(len(gallery)), key=lambda j: (-round(similarity[j], 9), j))[:k]
        hits += any(gallery_labels[j] == query_labels[i] for j in order if similarity[j] > -np.inf)
    return 100 * hits / len(query)


def test_neighbours_equal_scikit_learns():
    query, _, gallery, _ = problem()
    expected = NearestNeighbors(n_neighbors=60, metric='cosine', algorithm='brute').fit(gallery).kneighbors(query)[1]
    np.testing.assert_array_equal(neighbours(query, gallery), expected)


@pytest.mark.parametrize('ties', [False, True])
def test_recall_equals_brute_force(ties):
    query, query_labels, gallery, gallery_labels = problem(1)
    if ties:  # each gallery video three times, with other labels
        gallery = np.repeat(gallery[:20], 3, axis=0)
    got = recall_at(query, query_labels, gallery, gallery_labels, KS)
    for k in KS:
        assert got[f'R@{k}'] == pytest.approx(brute_force(query, query_labels, gallery, gallery_labels, k))


def test_forbidden_pairs_never_match():
    query, labels, *_ = problem(2)
    groups = np.arange(40) // 4
    forbidden = groups[:, None] == groups[None]
    got = recall_at(query, labels, query, labels, KS, forbidden)
    for k in KS:
        assert got[f'R@{k}'] == pytest.approx(brute_force(query, labels, query, labels, k, forbidden))
    everything = np.ones((40, 40), bool)
    assert recall_at(query, labels, query, labels, (1,), everything) == {'R@1': 0}


def test_a_class_that_the_gallery_lacks_is_a_miss():
    x = np.eye(3)
    found = recall_at(x, np.array([0, 1, 7]), x, np.array([0, 1, 2]), (1, 3))
    assert found == pytest.approx({'R@1': 200 / 3, 'R@3': 200 / 3})


def test_join_weighs_both_features_the_same():
    query, _, gallery, _ = problem(3)
    joined = [join(x, 100 * x[:, ::-1]) for x in (query, gallery)]
    cosine = lambda a, b: (a @ b.T) / np.outer(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1))  # noqa: E731
    expected = (cosine(query, gallery) + cosine(query[:, ::-1], gallery[:, ::-1])) / 2
    np.testing.assert_allclose(cosine(*joined), expected, atol=1e-12)


def test_chance_is_the_share_of_the_class_among_what_may_match():
    assert chance_recall(np.array([0, 1, 2]), np.array([0, 0, 1, 3])) == pytest.approx(100 * (0.5 + 0.25 + 0) / 3)
    own = np.eye(2, dtype=bool)
    assert chance_recall(np.array([0, 0]), np.array([0, 0]), own) == 100
