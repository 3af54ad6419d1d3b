"""Motion over background: is a video nearer to one of its class elsewhere, or to one of another class at its place?

Classes pull one way and places the other; a group of videos is a place (a scene, a background, a person).
"""

from collections.abc import Callable

import numpy as np

from vididi_jax.errors import UserError
from vididi_jax.evaluate.metrics import confusion
from vididi_jax.evaluate.protocol import Fold, Protocol, Side, open_complete, usable
from vididi_jax.evaluate.recognition import Evaluation, Outcome, features_of, finish, open_evaluation
from vididi_jax.evaluate.results import alone
from vididi_jax.evaluate.retrieval import ORDERS, kinds
from vididi_jax.measures import DECIMALS, unit
from vididi_jax.train.processes import on_process_zero

METRIC = 'motion over background'
CHANCE = 50.0


def can_ask(labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """(N,) bool: which videos have one of their class in another group, and one of another class in their group."""
    same_class, same_group = (x[:, None] == x[None] for x in (labels, groups))
    return (same_class & ~same_group).any(1) & (~same_class & same_group).any(1)


def won(positives: np.ndarray, negatives: np.ndarray) -> float:
    """Share of all pairs of a positive (P,) and a negative (N,) similarity of which the positive is larger; ties half.

    This is the area under the ROC curve of telling the two apart.
    """
    negatives = np.sort(negatives)
    below, not_above = (np.searchsorted(negatives, positives, side) for side in ('left', 'right'))
    return float((below + not_above).mean() / (2 * len(negatives)))


def shares(features: np.ndarray, labels: np.ndarray, groups: np.ndarray, asked: np.ndarray) -> tuple:
    """How often class wins over group.

    Args:
      features: (N, D), compared by cosine, in float64 and rounded to DECIMALS.
      labels, groups: (N,).
      asked: (Q,) indices of the queries, see `can_ask`.

    Returns:
      (Q,) for each query `won` of its positives (same class, other group) and negatives (other class, same group), and
      (Q,) the class of its nearest negative.
    """
    x, found, nearest = unit(features), [], []
    for query in asked:
        similarity = np.round(x @ x[query], DECIMALS)
        same_class, same_group = labels == labels[query], groups == groups[query]
        negative = ~same_class & same_group
        found.append(won(similarity[same_class & ~same_group], similarity[negative]))
        nearest.append(labels[negative][similarity[negative].argmax()])
    return np.array(found), np.array(nearest)


def open_queries(config, directory: str) -> Protocol:
    """The videos of split `config.eval.split`, all of which are searched, and the queries among them.

    Raises:
      UserError: nothing can be asked; videos that are missing or broken, unless `config.allow_missing`.
    """
    source = open_complete(directory, config.eval.split, config.allow_missing)
    everything = usable(source, config.eval)
    asked = can_ask(everything.labels, everything.groups)
    if not asked.any():
        raise UserError(f'split {config.eval.split!r} of {directory} has no video with one of its class in another '
                        'group and one of another class in its own group: set data.dir to what `data_prep motion '
                        '--triples` or `data_prep folder --group` wrote.')
    name = f'{source.name}/{config.eval.split}'
    fold = Fold(name, everything, Side(source, everything.videos[asked]))
    return Protocol(f'{name} (same class elsewhere, other class here)', (fold,), {'all': (everything,)})


def prepare(config, workdir: str) -> Evaluation:
    """Check the config and the data, and load the encoder."""
    return open_evaluation(config, workdir, ORDERS, open_queries)


@on_process_zero
def pull(evaluation: Evaluation, features: Callable) -> list[Outcome]:
    """The outcome, from `features_of(evaluation, ORDERS)`.

    Its confusion counts each query once, by features of V: for its class if that wins at least half of its pairs, else
    for the class of its nearest negative.
    """
    fold, = evaluation.protocol.folds
    everything, labels = fold.train, fold.train.labels
    asked = np.flatnonzero(np.isin(everything.videos, fold.test.videos))
    found = {kind: shares(value, labels, everything.groups, asked)
             for kind, value in kinds(features(everything)).items()}
    scores, nearest = found.pop('V')
    counts = confusion(labels[asked], np.where(scores >= 0.5, labels[asked], nearest),
                       len(everything.source.label_names))
    scores = {'V': scores, **{kind: share for kind, (share, _) in found.items()}}
    metrics = {kind: {METRIC: 100 * float(share.mean())} for kind, share in scores.items()}
    return [Outcome(metrics, CHANCE, counts, scores)]


@alone
def evaluate(evaluation: Evaluation) -> dict:
    """What `run` does after `prepare`."""
    fold, = evaluation.protocol.folds
    return finish(evaluation, 'tug', pull(evaluation, features_of(evaluation, ORDERS)), confusion_of='V',
                  queries={'asked': len(fold.test.videos), 'searched': len(fold.train.videos)})


def run(config, workdir: str) -> dict:
    """Motion over background with the encoder of `workdir`; prints a table and writes `eval/NAME/results.json`."""
    return evaluate(prepare(config, workdir))
