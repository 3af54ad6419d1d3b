"""What an evaluation was made of, taken up again: its videos, its encoder and its features.

The cache has the features on the machine that made them; others compute them anew.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from vididi_jax.config import from_dict
from vididi_jax.errors import UserError
from vididi_jax.evaluate import retrieval
from vididi_jax.evaluate.protocol import Fold
from vididi_jax.evaluate.recognition import Evaluation, features_of, fingerprint_of


class Evidence(NamedTuple):
    """The first fold of a retrieval.

    Attributes:
      evaluation: as it was made.
      fold: the videos.
      test, train: {kind of feature: (N, D)} of its two sides.
    """

    evaluation: Evaluation
    fold: Fold
    test: dict[str, np.ndarray]
    train: dict[str, np.ndarray]


def latest_retrieval(results: dict[str, dict]) -> dict | None:
    """The newest result of a retrieval with the trained encoder."""
    found = [result for result in results.values()
             if result['task'] == 'retrieval' and result['encoder'] == 'trained']
    return max(found, key=lambda result: result['date'], default=None)


def take_up(workdir: str | Path, result: dict, directory: str) -> Evidence:
    """Make a retrieval's features again, or read them from its cache.

    Args:
      workdir: of the run.
      result: its results.json.
      directory: where the data lie now; '' is where they were.

    Raises:
      UserError: the data or the encoder are not there, or not what they were.
    """
    config = from_dict(result['config'])
    with config.unlocked():
        config.task, config.data.dir = 'retrieval', directory or result['data']
        config.eval.checkpoint = str(result['checkpoint_step'])  # whatever is the latest by now
        if 'retrieval' not in config:  # a part of eval_all has it
            raise UserError('the result has no config of a retrieval: evaluate again.')
    evaluation = retrieval.prepare(config, str(workdir))
    if evaluation.protocol.name != result['protocol']:
        raise UserError(f'{config.data.dir} has {evaluation.protocol.name}, and the result is of {result["protocol"]}: '
                        'set config.data.dir to where the data lie.')
    if fingerprint_of(evaluation.protocol) != result.get('fingerprint'):
        raise UserError(f'the data in {config.data.dir} are not those of the result: set config.data.dir to where they '
                        'lie, or evaluate again.')
    features, folds = features_of(evaluation, retrieval.ORDERS), evaluation.protocol.folds
    fold = folds[0] if len(folds) == 1 else folds[0]._replace(name=f'{folds[0].name}, the first of {len(folds)} folds')
    return Evidence(evaluation, fold, retrieval.kinds(features(fold.test)), retrieval.kinds(features(fold.train)))


def evenly_by_class(labels: np.ndarray, count: int) -> np.ndarray:
    """Indices of at most `count` videos, ascending: one of each class in turns; of more classes than that, evenly some.
    """
    classes = np.unique(labels)
    if len(classes) > count:
        classes = classes[np.linspace(0, len(classes) - 1, count).round().astype(int)]
    turn = np.full(len(labels), len(labels))
    for label in classes:
        turn[labels == label] = np.arange((labels == label).sum())
    return np.sort(np.lexsort((labels, turn))[:count])
