"""The linear probe against scikit-learn, and how its strength is chosen."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix, top_k_accuracy_score
from sklearn.preprocessing import StandardScaler

from vididi_jax.errors import UserError
from vididi_jax.evaluate import linear
from vididi_jax.evaluate.linear import BLOCK, choose_strength, fit, probe
from vididi_jax.evaluate.metrics import confusion, over_folds, top_k
from vididi_jax.evaluate.protocol import Fold, Side


def problem(seed=0, videos=60, dim=7, classes=4):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, videos)
    x = rng.normal(size=(videos, dim)) * 10.0 ** rng.integers(-2, 3, dim) + 5
    x[:, 0] += 0.05 * labels * x[:, 0].std()
    return x, labels


def value(weights, bias, x, labels, strength):
    """What is minimised, a mean over videos, in float64; x is standardised."""
    log_p = log_softmax(x @ weights + bias, axis=1)
    return -log_p[np.arange(len(x)), labels].mean() + (weights**2).sum() / 2 / strength / len(x)


@pytest.mark.parametrize(('videos', 'classes'), [(60, 4), (60, 2), (2 * BLOCK + 452, 4)])
def test_the_probe_is_scikit_learns_logistic_regression(videos, classes):
    """In one block and in several: what is minimised to 1e-9, probabilities to 2e-5, and those of videos that lie far
    from train, with logits in the hundreds, to 5e-4: in float32, and up to a gradient of 1e-6."""
    x, labels = problem(videos=videos, classes=classes)
    scaler = StandardScaler().fit(x)
    scaled, far = scaler.transform(x), scaler.transform(problem(1)[0])
    strengths = [0.01, 1.0, 100.0]
    for strength, found in zip(strengths, fit(x.astype(np.float32), labels, strengths), strict=True):
        pair = classes == 2  # of which scikit-learn has the difference of two opposite columns
        expected = LogisticRegression(C=(1 + pair) * strength, tol=1e-8, max_iter=10_000).fit(scaled, labels)
        coefficients, intercept = expected.coef_, expected.intercept_
        if pair:
            coefficients, intercept = (np.concatenate([-one / 2, one / 2]) for one in (coefficients, intercept))
        reached, lowest = (value(weights, bias, scaled, labels, strength) for weights, bias in (
            (found.weights, found.bias), (coefficients.T, intercept)))
        assert reached == pytest.approx(lowest, abs=1e-9)
        for new, tolerance in ((scaled, 2e-5), (far, 5e-4)):
            got = np.exp(found.scores(scaler.inverse_transform(new), classes))
            np.testing.assert_allclose(got, expected.predict_proba(new), atol=tolerance)
            np.testing.assert_array_equal(got.argmax(1), expected.predict(new))


def test_an_iteration_is_compiled_once(caplog):
    x, labels = problem(dim=9)  # a shape of its own
    with jax.log_compiles(), caplog.at_level('WARNING', logger='jax'):
        fit(x, labels, [1.0, 10.0])
    assert sum('jit(_iterate)' in message and message.startswith('Finished XLA') for message in caplog.messages) == 1


def test_features_that_are_constant_in_train_and_classes_without_videos_have_no_say():
    x, labels = problem()
    labels = np.where(labels == 2, 5, labels)
    with_constant = np.concatenate([x, np.full((len(x), 1), 3.0)], axis=1)
    new = np.concatenate([x, np.full((len(x), 1), 1e6)], axis=1)
    scores = fit(with_constant, labels, [1.0])[0].scores(new, 7)
    without = fit(x, labels, [1.0])[0].scores(x, 7)
    np.testing.assert_allclose(scores[:, [0, 1, 3, 5]], without[:, [0, 1, 3, 5]], atol=1e-6)
    assert np.isneginf(scores[:, [2, 4, 6]]).all()


def test_the_strength_is_the_best_on_held_out_groups_and_the_lowest_of_equals():
    """Nearly as many features as videos, most of them noise: fitting them hard must lose."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(10), 12)
    labels = np.tile(np.arange(2), 60)
    x = rng.normal(size=(120, 60))
    x[:, :10] += 0.6 * labels[:, None]
    strengths = (100.0, 1e-3)
    chosen = choose_strength(x, labels, groups.astype(str), strengths)
    held = np.isin(groups, [0, 5])  # every fifth group
    np.testing.assert_array_equal(linear.held_out(labels, groups.astype(str)), held)
    accuracy = {strength: (found.scores(x[held], 2).argmax(1) == labels[held]).mean()
                for strength, found in zip(strengths, fit(x[~held], labels[~held], strengths), strict=True)}
    assert accuracy[1e-3] > accuracy[100.0] and chosen == 1e-3
    assert choose_strength(np.zeros((120, 2)), labels, groups.astype(str), (1.0, 0.1, 10.0)) == 0.1
    assert choose_strength(x[:12], labels[:12], groups[:12].astype(str), (7.0,)) == 7
    with pytest.raises(UserError, match='one group'):
        choose_strength(x[:12], labels[:12], groups[:12].astype(str), strengths)


def test_accuracies_and_confusion_are_scikit_learns():
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(50, 6)), np.arange(50) % 6
    got = top_k(scores, labels, (1, 3))
    for k in (1, 3):
        assert got[f'top-{k}'] == pytest.approx(100 * top_k_accuracy_score(labels, scores, k=k))
    np.testing.assert_array_equal(confusion(labels, scores.argmax(1), 6), confusion_matrix(labels, scores.argmax(1)))
    tied = np.zeros((3, 4))  # the lower class counts as the higher score
    assert top_k(tied, np.array([0, 1, 3]), (1, 2, 4)) == pytest.approx(
        {'top-1': 100 / 3, 'top-2': 200 / 3, 'top-4': 100})
    lacking = np.where(np.arange(4) == 3, -np.inf, tied)  # of a class that was not trained
    assert top_k(lacking, np.array([0, 1, 3]), (3, 4, 9)) == pytest.approx(dict.fromkeys(('top-3', 'top-4', 'top-9'),
                                                                                        200 / 3))


def test_folds_are_summed_up_by_mean_and_standard_deviation():
    mean, std = over_folds([{'V': {'top-1': 10.0}}, {'V': {'top-1': 20.0}}, {'V': {'top-1': 60.0}}])
    assert mean == {'V': {'top-1': 30.0}} and std['V']['top-1'] == pytest.approx(np.std([10, 20, 60], ddof=1))


def test_each_kind_is_of_its_order():
    rng = np.random.default_rng(3)

    def side(n):
        labels = rng.integers(0, 4, n)
        return Side(SimpleNamespace(labels=labels, groups=labels, label_names=list('abcde')), np.arange(n))

    train, test = side(60), side(50)
    own = {id(s): {order: rng.normal(size=(len(s.videos), 7)).astype(np.float32) for order in (0, 1)}
           for s in (train, test)}
    found = probe(Fold('', train, test), lambda s: own[id(s)], (1.0,))
    for kind, orders in {'V': (0,), 'dV': (1,), 'joined': (0, 1)}.items():
        x, y = (np.hstack([own[id(s)][order] for order in orders]) for s in (train, test))
        scaler = StandardScaler().fit(x)
        model = LogisticRegression(C=1.0, tol=1e-8, max_iter=10_000).fit(scaler.transform(x), train.labels)
        assert found.metrics[kind]['top-1'] == pytest.approx(100 * model.score(scaler.transform(y), test.labels))
    expected = confusion_matrix(test.labels, model.predict(scaler.transform(y)), labels=range(5))  # of 'joined'
    np.testing.assert_array_equal(found.confusion, expected)
    assert found.chance == 20  # of five classes, of which none has a video


def test_folds_without_a_group_to_hold_out_are_refused_before_features_are_computed(monkeypatch):
    folds = [SimpleNamespace(train=SimpleNamespace(groups=np.array(names), labels=np.zeros(2, int)))
             for names in (list('ab'), list('cc'))]
    monkeypatch.setattr(linear, 'open_evaluation', lambda *_: SimpleNamespace(protocol=SimpleNamespace(folds=folds)))
    with pytest.raises(UserError, match='one group'):
        linear.prepare(SimpleNamespace(linear=SimpleNamespace(strengths=(0.1, 1.0))), '')
    linear.prepare(SimpleNamespace(linear=SimpleNamespace(strengths=(1.0,))), '')


def test_the_strength_of_a_probe_is_chosen_on_train_alone():
    """Where train tells nothing, all are equal there, and the lowest is taken; on test the highest would be best."""
    groups, even, rare = np.arange(60).astype(str), np.arange(60) % 4, np.maximum(np.arange(60) % 15 - 11, 0)
    own = {'train': np.zeros((60, 7)), 'test': 5 * np.eye(7)[rare] + np.random.default_rng(0).normal(size=(60, 7))}
    train, test = (
        Side(SimpleNamespace(labels=labels, groups=groups, label_names=list('abcd'), name=name), np.arange(60))
        for name, labels in (('train', even), ('test', rare)))
    found = probe(Fold('', train, test), lambda side: dict.fromkeys((0, 1), own[side.source.name]), (10.0, 1e-3))
    assert found.details['strength'] == dict.fromkeys(('V', 'dV', 'joined'), 1e-3)


def test_a_class_that_is_one_group_cannot_be_held_out():
    labels = np.repeat(np.arange(6), 20)
    with pytest.raises(UserError, match='held out to choose among linear.strengths have no other group in train'):
        choose_strength(np.zeros((120, 3)), labels, labels.astype(str), (0.1, 1.0))
    assert choose_strength(np.zeros((120, 3)), labels, labels.astype(str), (1.0,)) == 1.0
