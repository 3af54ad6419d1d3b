"""Retrieval metrics against scikit-learn and a brute-force loop."""

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from vididi_jax.evaluate import retrieval
from vididi_jax.evaluate.protocol import Fold, Protocol, Side
from vididi_jax.evaluate.retrieval import chance_recall, neighbours, recall_at, search
from vididi_jax.measures import join, unit

KS = (1, 5, 10, 20, 50)


def problem(seed=0, queries=40, gallery=60, classes=6):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(queries, 8)), rng.integers(0, classes, queries),
            rng.normal(size=(gallery, 8)), rng.integers(0, classes, gallery))


def brute_force(query, query_labels, gallery, gallery_labels, k):
    """R@k with plain loops; of equally near videos the one that stands first in the gallery is nearer."""
    hits = 0
    for i, q in enumerate(query):
        similarity = [np.float64(q @ g) / np.sqrt((q @ q) * (g @ g)) for g in gallery]
        order = sorted(range(len(gallery)), key=lambda j: (-round(similarity[j], 9), j))[:k]
        hits += any(gallery_labels[j] == query_labels[i] for j in order)
    return 100 * hits / len(query)


def test_neighbours_equal_scikit_learns():
    query, _, gallery, _ = problem()
    expected = NearestNeighbors(n_neighbors=60, metric='cosine', algorithm='brute').fit(gallery).kneighbors(query)[1]
    np.testing.assert_array_equal(neighbours(query, gallery, 60), expected)
    np.testing.assert_array_equal(neighbours(query, gallery, 100), expected)


@pytest.mark.parametrize('ties', [False, True])
def test_recall_equals_brute_force(ties):
    query, query_labels, gallery, gallery_labels = problem(1)
    if ties:  # each gallery video three times, with other labels
        gallery = np.repeat(gallery[:20], 3, axis=0)
    got = recall_at(neighbours(query, gallery, max(KS)), query_labels, gallery_labels, KS)
    for k in KS:
        assert got[f'R@{k}'] == pytest.approx(brute_force(query, query_labels, gallery, gallery_labels, k))


def test_ties_keep_the_gallerys_order_in_float32():
    """Equal rows in columns that a matrix product works on differently: 183 are no multiple of a vector's length."""
    rng = np.random.default_rng(0)
    query, gallery = (rng.normal(size=(n, 512)).astype(np.float32) for n in (40, 61))
    order = neighbours(query, np.repeat(gallery, 3, axis=0), 183).reshape(40, 61, 3)
    np.testing.assert_array_equal(order, order[..., :1] + np.arange(3))
    np.testing.assert_array_equal(order[..., 0], 3 * neighbours(query, gallery, 61))


@pytest.mark.parametrize('count', [1, 7, 200])
def test_neighbours_in_blocks_are_those_of_the_whole(monkeypatch, count):
    """Whole numbers: many ties, and similarities of equal rows that no block rounds in another way."""
    rng = np.random.default_rng(4)
    query, gallery = (rng.integers(-1, 2, size=(n, 4)) for n in (37, 101))
    whole = np.argsort(-np.round(unit(query) @ unit(gallery).T, 12), axis=1, kind='stable')[:, :count]
    monkeypatch.setattr(retrieval, 'BLOCK', 16)
    np.testing.assert_array_equal(neighbours(query, gallery, count), whole)


def test_parts_that_are_apart_are_not_near(monkeypatch):
    rng = np.random.default_rng(5)
    x, part = rng.integers(-1, 2, size=(90, 4)), rng.integers(0, 3, 90)
    similar = np.round(unit(x) @ unit(x).T, 12)
    for count, block in ((10, 16), (80, 1024)):
        monkeypatch.setattr(retrieval, 'BLOCK', block)
        found = neighbours(x, x, count, (part, part))
        for i in range(90):
            others = np.flatnonzero(part != part[i])
            expected = others[np.argsort(-similar[i, others], kind='stable')][:count]
            np.testing.assert_array_equal(found[i], np.pad(expected, (0, count - len(expected)), constant_values=-1))


class MadeUp(list):
    """A source of videos that has labels alone."""

    label_names = ('a', 'b', 'c')

    def __init__(self, labels):
        super().__init__(labels)
        self.labels = labels


def test_parts_left_out_in_turn_are_searched_as_each_alone():
    """Parts of one to twelve videos, of a source of which not every video is used; k beyond the smaller galleries."""
    rng = np.random.default_rng(6)
    source, used = MadeUp(rng.integers(0, 3, 30)), np.setdiff1d(np.arange(30), (4, 17))
    part = np.repeat(np.arange(5), (12, 7, 5, 3, 1))[rng.permutation(28)]
    features = {order: rng.integers(-1, 2, size=(30, 4)).astype(np.float32) for order in (0, 1, 2)}
    folds = tuple(Fold(str(n), Side(source, used[part != n]), Side(source, used[part == n])) for n in range(5))
    config = SimpleNamespace(retrieval=SimpleNamespace(ks=(1, 5, 18)))

    def found(protocol):
        return search(SimpleNamespace(protocol=protocol, config=config),
                      lambda side: {order: value[side.videos] for order, value in features.items()})

    at_once = found(Protocol('', folds, {'all': (Side(source, used),)}))
    alone = [found(Protocol('', (fold,), {'train': (fold.train,), 'test': (fold.test,)}))[0] for fold in folds]
    for one, other in zip(at_once, alone, strict=True):
        assert one.metrics == other.metrics and one.chance == other.chance
        np.testing.assert_array_equal(one.confusion, other.confusion)
        assert {kind: value.tolist() for kind, value in one.scores.items()} == {
            kind: value.tolist() for kind, value in other.scores.items()}


def test_a_class_that_the_gallery_lacks_is_a_miss():
    x = np.eye(3)
    found = recall_at(neighbours(x, x, 3), np.array([0, 1, 7]), np.array([0, 1, 2]), (1, 3))
    assert found == pytest.approx({'R@1': 200 / 3, 'R@3': 200 / 3})


def test_join_weighs_both_features_the_same():
    query, _, gallery, _ = problem(3)
    joined = [join(x, 100 * x[:, ::-1]) for x in (query, gallery)]
    cosine = lambda a, b: (a @ b.T) / np.outer(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1))  # noqa: E731
    expected = (cosine(query, gallery) + cosine(query[:, ::-1], gallery[:, ::-1])) / 2
    np.testing.assert_allclose(cosine(*joined), expected, atol=1e-12)


def test_chance_is_the_share_of_the_class_in_the_gallery():
    assert chance_recall(np.array([0, 1, 2]), np.array([0, 0, 1, 3])) == pytest.approx(100 * (0.5 + 0.25 + 0) / 3)


def test_each_kind_is_of_its_order_and_the_joint_of_the_first_two():
    rng = np.random.default_rng(7)
    train, test = (Side(MadeUp(rng.integers(0, 3, n)), np.arange(n)) for n in (40, 30))
    own = {id(side): {order: rng.normal(size=(len(side.videos), 5)) for order in (0, 1, 2)} for side in (train, test)}
    protocol = Protocol('', (Fold('', train, test),), {'train': (train,), 'test': (test,)})
    config = SimpleNamespace(retrieval=SimpleNamespace(ks=(1, 5)))
    found, = search(SimpleNamespace(protocol=protocol, config=config), lambda side: own[id(side)])
    normal = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)  # noqa: E731
    for kind, build in {'V': lambda f: f[0], 'dV': lambda f: f[1], 'd2V': lambda f: f[2],
                        'joined': lambda f: np.hstack([normal(f[0]), normal(f[1])])}.items():
        query, gallery = (build(own[id(side)]) for side in (test, train))
        for k in (1, 5):
            assert found.metrics[kind][f'R@{k}'] == pytest.approx(
                brute_force(query, test.labels, gallery, train.labels, k))
    expected = np.zeros((3, 3), int)  # of the last kind, joined; rows are true classes
    for label, near in zip(test.labels, (normal(query) @ normal(gallery).T).argmax(1), strict=True):
        expected[label, train.labels[near]] += 1
    np.testing.assert_array_equal(found.confusion, expected)
