"""Linear probe: multinomial logistic regression on the features of a frozen encoder."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.special
from tqdm import tqdm

from vididi_jax.errors import UserError
from vididi_jax.evaluate.metrics import confusion, hits, top_k
from vididi_jax.evaluate.protocol import Fold, deal
from vididi_jax.evaluate.recognition import Evaluation, Outcome, features_of, finish, open_evaluation
from vididi_jax.evaluate.results import alone
from vididi_jax.train.processes import on_process_zero

logger = logging.getLogger(__name__)

ORDERS = (0, 1)
PARTS = 5  # of train; the first is held out to choose the strength
BLOCK = 1024  # videos
ITERATIONS = 2000
TOLERANCE = 1e-6  # of an entry of the gradient; in float32 some problems get no lower than 5e-7
SOLVER = optax.lbfgs()  # its line search bears the rounding of values, where scipy's gives up in float32


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
        out = np.full((len(x), count), -np.inf)
        for rows in blocks(len(x)):
            logits = (x[rows] - self.mean) * self.scale @ self.weights + self.bias
            out[rows, self.classes] = scipy.special.log_softmax(logits, axis=1)
        return out


def blocks(count: int) -> list[slice]:
    """The rows 0 to `count` - 1, BLOCK at a time."""
    return [slice(start, min(start + BLOCK, count)) for start in range(0, count, BLOCK)]


def standardisation(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(mean, scale) of the columns of (N, D), in float64: `(x - mean) * scale` has deviation 1, or 0 if constant."""
    mean = x.mean(0, dtype=np.float64)
    std = np.sqrt(sum(((x[rows] - mean) ** 2).sum(0) for rows in blocks(len(x))) / len(x))
    return mean, np.where(std > 1e-9 * max(std.max(), 1e-300), 1 / np.where(std > 0, std, 1), 0)


@partial(jax.jit, donate_argnums=0)
def _put(whole: jax.Array, number: int, block: jax.Array) -> jax.Array:
    return whole.at[number].set(block)


def on_device(x: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> jax.Array:
    """Standardised features (blocks, videos of a block, D), zeros at the end: put there one by one, without a copy.

    A block has BLOCK videos, or, if all are fewer, the next power of two: folds of about a size share a program.
    """
    videos = min(BLOCK, 1 << (len(x) - 1).bit_length())
    found = jnp.zeros((len(blocks(len(x))), videos, x.shape[1]))
    for number, rows in enumerate(blocks(len(x))):
        block = np.zeros(found.shape[1:], found.dtype)
        block[:rows.stop - rows.start] = (x[rows] - mean) * scale
        found = _put(found, number, block)
    return found


class Problem(NamedTuple):
    """`sum_i -log p(target_i | x_i) / count + penalty * |weights|^2 / 2`, of which the parameters are the unknown.

    Attributes:
      x: (blocks, videos of a block, D), see `on_device`.
      target: (blocks, videos of a block) columns of the logits; -1 for the zeros at the end.
      count: how many videos those are.
      penalty: of the weights.
    """

    x: jax.Array
    target: jax.Array
    count: int
    penalty: float


Parameters = tuple[jax.Array, jax.Array]  # weights (D, K) and bias (K,)


def _value_and_gradient(parameters: Parameters, problem: Problem) -> tuple[jax.Array, Parameters]:
    """Of a `Problem`; the logits of one block are the only large temporary."""

    def loss(parameters, x, target):
        weights, bias = parameters
        log_p = jax.nn.log_softmax(x @ weights + bias)
        return -(jax.nn.one_hot(target, len(bias)) * log_p).sum() / problem.count

    def add(total, block):
        return jax.tree.map(jnp.add, total, jax.value_and_grad(loss)(parameters, *block)), None

    def of_penalty(parameters):
        return problem.penalty * (parameters[0] ** 2).sum() / 2

    return jax.lax.scan(add, jax.value_and_grad(of_penalty)(parameters), (problem.x, problem.target))[0]


@jax.custom_vjp  # else the gradient of a sum over blocks is a second pass, which computes the logits again
def objective(parameters: Parameters, problem: Problem) -> jax.Array:
    """The value of a `Problem`."""
    return _value_and_gradient(parameters, problem)[0]


objective.defvjp(_value_and_gradient, lambda gradient, by: (jax.tree.map(lambda g: by * g, gradient), None))


@jax.jit
def _start(parameters: Parameters):
    """The solver's state; optax begins with weakly typed numbers, with which `_iterate` would be compiled twice."""
    return jax.tree.map(lambda x: jnp.asarray(x, x.dtype), SOLVER.init(parameters))


@jax.jit  # compiled once for all strengths, and for all folds with as many blocks and classes
def _iterate(parameters: Parameters, state, problem: Problem) -> tuple:
    """One step of L-BFGS: parameters, state, the value before it, and the largest entry of the gradient there."""
    with jax.default_matmul_precision('highest'):  # not TF32 or bfloat16, as accelerators have it
        value_of = partial(objective, problem=problem)
        value, gradient = optax.value_and_grad_from_state(value_of)(parameters, state=state)
        update, state = SOLVER.update(gradient, state, parameters, value=value, grad=gradient, value_fn=value_of)
        steepest = jnp.max(jnp.array([jnp.abs(g).max() for g in gradient]))
        return optax.apply_updates(parameters, update), state, value, steepest


def minimise(problem: Problem, parameters: Parameters, name: str) -> Parameters:
    """L-BFGS from `parameters` until no entry of the gradient is above TOLERANCE; a bar after some seconds."""
    state = _start(parameters)
    with tqdm(desc=name, unit='iteration', delay=5, leave=False) as bar:
        for _ in range(ITERATIONS):
            before, (parameters, state, value, steepest) = parameters, _iterate(parameters, state, problem)
            if steepest <= TOLERANCE:
                return before
            bar.set_postfix(loss=f'{value:.6f}', gradient=f'{steepest:.1e}', refresh=False)
            bar.update()
    logger.warning('the logistic regression, %s, did not converge in %d iterations: an entry of the gradient is %.1e.',
                   name, ITERATIONS, steepest)
    return parameters


def fit(x: np.ndarray, labels: np.ndarray, strengths: Sequence[float]) -> list[Regression]:
    """For each strength minimise `strength * sum_i -log p(label_i | x_i) + |weights|^2 / 2`, with L-BFGS.

    Features are standardised to mean 0 and standard deviation 1 over the training videos: the penalty counts all
    weights alike, and activations differ in scale. The bias is free. This is scikit-learn's `LogisticRegression` with
    `C = strength` on standardised features; of two classes with `C = 2 * strength`, as it has one column of weights
    then, and here are two. It runs on JAX's default device, in float32 unless `jax_enable_x64` is set, and each
    strength starts where the one before ended.

    Args:
      x: (N, D).
      labels: (N,) ints.
      strengths: of the data against the penalty.
    """
    classes, target = np.unique(labels, return_inverse=True)
    mean, scale = standardisation(x)
    features = on_device(x, mean, scale)
    padded = np.full(features.shape[:2], -1, np.int32)
    padded.flat[:len(x)] = target
    parameters = jnp.zeros((x.shape[1], len(classes))), jnp.zeros(len(classes))
    found = []
    for strength in strengths:
        # A mean over videos: the tolerance does not depend on their number.
        problem = Problem(features, jnp.asarray(padded), len(x), 1 / (strength * len(x)))
        parameters = minimise(problem, parameters, f'strength {strength:g}')
        found.append(Regression(mean, scale, *(np.asarray(p, np.float64) for p in parameters), classes))
    return found


def held_out(labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """(N,) bool, which videos are held out to choose by: a fifth, whole groups; of fewer than five groups one.

    Raises:
      UserError: there is nothing to hold out, or nothing of the classes of those is left.
    """
    if len(set(groups)) < 2:
        raise UserError('all training videos are of one group, so none can be held out to choose among '
                        'linear.strengths: give one strength.')
    held = deal(labels, groups, min(PARTS, len(set(groups)))) == 0
    if not np.isin(labels[held], labels[~held]).any():
        raise UserError('the classes of the groups that are held out to choose among linear.strengths have no other '
                        'group in train: give one strength.')
    return held


def choose_strength(x: np.ndarray, labels: np.ndarray, groups: np.ndarray, strengths: tuple[float, ...]) -> float:
    """The strength with the best accuracy on a part of train that is held out; of equal ones the lowest.

    That part is `held_out`, which raises `UserError`.
    """
    if len(strengths) == 1:
        return strengths[0]
    held, classes = held_out(labels, groups), labels.max() + 1
    ascending = sorted(strengths)
    accuracies = [top_k(regression.scores(x[held], classes), labels[held])['top-1']
                  for regression in fit(x[~held], labels[~held], ascending)]
    return ascending[int(np.argmax(accuracies))]


def probe(fold: Fold, features: Callable, strengths: tuple[float, ...]) -> Outcome:
    """Train on one side of a fold, and test on the other, for each kind of feature; `features(side)` are its own."""
    train, test = map(features, (fold.train, fold.test))
    labels, asked, classes = fold.train.labels, fold.test.labels, len(fold.test.source.label_names)
    metrics, right, chosen = {}, {}, {}
    for kind, orders in {'V': (0,), 'dV': (1,), 'joined': (0, 1)}.items():
        x, y = (np.concatenate([side[order] for order in orders], axis=1) for side in (train, test))
        chosen[kind] = choose_strength(x, labels, fold.train.groups, strengths)
        scores = fit(x, labels, [chosen[kind]])[0].scores(y, classes)
        metrics[kind], right[kind] = top_k(scores, asked), hits(scores, asked)[:, 0]
    return Outcome(metrics, 100 / classes, confusion(asked, scores.argmax(1), classes), right, {'strength': chosen})


def prepare(config, workdir: str) -> Evaluation:
    """Check the config and the data, and load the encoder."""
    evaluation = open_evaluation(config, workdir, ORDERS)
    for fold in evaluation.protocol.folds if len(config.linear.strengths) > 1 else ():
        held_out(fold.train.labels, fold.train.groups)
    return evaluation


@on_process_zero
def probe_folds(evaluation: Evaluation, features: Callable) -> list[Outcome]:
    """The outcome of each fold, from `features_of(evaluation, ORDERS)`."""
    folds, strengths = evaluation.protocol.folds, tuple(evaluation.config.linear.strengths)
    return [probe(fold, features, strengths)
            for fold in (tqdm(folds, unit='fold', leave=False) if len(folds) > 1 else folds)]


@alone
def evaluate(evaluation: Evaluation) -> dict:
    """What `run` does after `prepare`."""
    outcomes = probe_folds(evaluation, features_of(evaluation, ORDERS))
    return finish(evaluation, 'linear', outcomes, features='standardised over the training videos of each fold')


def run(config, workdir: str) -> dict:
    """Linear probe of the encoder of `workdir`; prints a table and writes `eval/NAME/results.json`."""
    return evaluate(prepare(config, workdir))
