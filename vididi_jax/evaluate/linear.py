"""Linear probe: multinomial logistic regression on the features of a frozen encoder."""

import logging
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.optimize
import scipy.special
from tqdm import tqdm

from vididi_jax.errors import UserError
from vididi_jax.evaluate.metrics import confusion, hits, top_k
from vididi_jax.evaluate.protocol import Fold, deal
from vididi_jax.evaluate.recognition import Evaluation, Outcome, features_of, finish, open_evaluation
from vididi_jax.train.processes import by_first

logger = logging.getLogger(__name__)

ORDERS = (0, 1)
PARTS = 5  # of train; the first is held out to choose the strength
ITERATIONS = 2000


class Regression(NamedTuple):
    """Logits `((x - mean) * scale) @ weights + bias`; columns are `classes`.

    Attributes:
      mean, scale: (D,) of the training features; a feature that is constant there has scale 0.
      weights, bias: (D, K) and (K,).
      classes: (K,) numbers of the classes that were trained on.
    """

    mean: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    bias: np.ndarray
    classes: np.ndarray

    def scores(self, x: np.ndarray, count: int) -> np.ndarray:
        """Log-probabilities (N, count) of classes 0 to `count` - 1; minus infinity for those not trained on."""
        logits = (x - self.mean) * self.scale @ self.weights + self.bias
        out = np.full((len(x), count), -np.inf)
        out[:, self.classes] = scipy.special.log_softmax(logits, axis=1)
        return out


def fit(x: np.ndarray, labels: np.ndarray, strength: float) -> Regression:
    """Minimise `strength * sum_i -log p(label_i | x_i) + |weights|^2 / 2`, with L-BFGS in float64.

    Features are standardised to mean 0 and standard deviation 1 over the training videos: the penalty counts all
    weights alike, and activations differ in scale. The bias is free. This is scikit-learn's `LogisticRegression` with
    `C = strength` on standardised features.

    Args:
      x: (N, D).
      labels: (N,) ints.
      strength: of the data against the penalty.
    """
    x = np.asarray(x, np.float64)
    classes, target = np.unique(labels, return_inverse=True)
    mean, std = x.mean(0), x.std(0)
    scale = np.where(std > 1e-9 * max(std.max(), 1e-300), 1 / np.where(std > 0, std, 1), 0)
    x = (x - mean) * scale
    count, dim = x.shape
    onehot = np.eye(len(classes))[target]
    factor = 1 / (strength * count)  # a mean over videos: the tolerance does not depend on their number

    def objective(flat):
        weights, bias = flat[: -len(classes)].reshape(dim, -1), flat[-len(classes):]
        log_p = scipy.special.log_softmax(x @ weights + bias, axis=1)
        value = -log_p[np.arange(count), target].mean() + factor * (weights**2).sum() / 2
        residual = (np.exp(log_p) - onehot) / count
        return value, np.concatenate([(x.T @ residual + factor * weights).ravel(), residual.sum(0)])

    found = scipy.optimize.minimize(
        objective, np.zeros((dim + 1) * len(classes)), jac=True, method='L-BFGS-B',
        options={'maxiter': ITERATIONS, 'maxfun': 2 * ITERATIONS, 'gtol': 1e-7, 'ftol': 1e-14})
    if found.nit >= ITERATIONS:
        logger.warning('the logistic regression of strength %g did not converge in %d iterations.', strength,
                       ITERATIONS)
    return Regression(mean, scale, found.x[: -len(classes)].reshape(dim, -1), found.x[-len(classes):], classes)


def choose_strength(x: np.ndarray, labels: np.ndarray, groups: np.ndarray, strengths: tuple[float, ...]) -> float:
    """The strength with the best accuracy on a held-out fifth of train, whole groups; of equal ones the lowest.

    Raises:
      UserError: there is nothing to hold out.
    """
    if len(strengths) == 1:
        return strengths[0]
    number = len(set(groups))
    if number < 2:
        raise UserError('all training videos are of one group, so none can be held out to choose among '
                        'linear.strengths: give one strength.')
    held = deal(labels, groups, min(PARTS, number)) == 0
    classes = labels.max() + 1

    def accuracy(strength: float) -> float:
        return top_k(fit(x[~held], labels[~held], strength).scores(x[held], classes), labels[held])['top-1']

    return max(sorted(strengths), key=accuracy)


def probe(fold: Fold, features: Callable, strengths: tuple[float, ...]) -> Outcome:
    """Train on one side of a fold, and test on the other, for each kind of feature; `features(side)` are its own."""
    train, test = map(features, (fold.train, fold.test))
    labels, asked, classes = fold.train.labels, fold.test.labels, len(fold.test.source.label_names)
    metrics, right, chosen = {}, {}, {}
    for kind, orders in {'V': (0,), 'dV': (1,), 'joined': (0, 1)}.items():
        x, y = (np.concatenate([side[order] for order in orders], axis=1) for side in (train, test))
        chosen[kind] = choose_strength(x, labels, fold.train.groups, strengths)
        scores = fit(x, labels, chosen[kind]).scores(y, classes)
        metrics[kind], right[kind] = top_k(scores, asked), hits(scores, asked)[:, 0]
    return Outcome(metrics, 100 / classes, confusion(asked, scores.argmax(1), classes), right, {'strength': chosen})


def prepare(config, workdir: str) -> Evaluation:
    """Check the config and the data, and load the encoder."""
    return open_evaluation(config, workdir, ORDERS)


@by_first
def probe_folds(evaluation: Evaluation, features: Callable) -> list[Outcome]:
    """The outcome of each fold, from `features_of(evaluation, ORDERS)`."""
    folds, strengths = evaluation.protocol.folds, tuple(evaluation.config.linear.strengths)
    return [probe(fold, features, strengths)
            for fold in tqdm(folds, unit='fold', leave=False, disable=len(folds) == 1)]


def evaluate(evaluation: Evaluation) -> dict:
    """What `run` does after `prepare`."""
    outcomes = probe_folds(evaluation, features_of(evaluation, ORDERS))
    return finish(evaluation, 'linear', outcomes, features='standardised over the training videos of each fold')


def run(config, workdir: str) -> dict:
    """Linear probe of the encoder of `workdir`; prints a table and writes `eval/NAME/results.json`."""
    return evaluate(prepare(config, workdir))
