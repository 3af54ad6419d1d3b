"""Fine-tuning and the SGD linear probe: supervised training on each fold, then a test of the result.

Reference: Chen et al., CPAL 2025, section 4 (downstream tasks).
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import ml_collections
import numpy as np
import optax
from jax.sharding import Mesh

from vididi_jax.collectives import gather
from vididi_jax.evaluate.gather import check_finite
from vididi_jax.evaluate.metrics import confusion, hits, top_k
from vididi_jax.evaluate.protocol import Fold
from vididi_jax.evaluate.recognition import Evaluation, Outcome, fingerprint_of, finish, open_evaluation
from vididi_jax.evaluate.results import alone, check_name
from vididi_jax.evaluate.views import average_over_views
from vididi_jax.models.classifier import Classifier
from vididi_jax.pixels.augment import Augmentation, augment
from vididi_jax.schedule import order_name
from vididi_jax.train import loop
from vididi_jax.train import mesh as meshes
from vididi_jax.train.processes import raise_together
from vididi_jax.train.run import check_same_run
from vididi_jax.train.state import TrainState
from vididi_jax.train.supervised import ANEW, run_config, supervised_task
from vididi_jax.train.update import compile_update


def make_step(
    model: Classifier, optimizer: optax.GradientTransformation, rate: optax.Schedule, spec: Augmentation, mesh: Mesh,
):
    """Build `step`, see `loop.Task`: the mean of the heads' cross-entropies."""

    def loss_fn(params, state, batch, key):
        pixels, labels = batch
        found, stats = model.logits({'params': params, 'batch_stats': state.batch_stats}, pixels, True, key)
        found, labels = jax.tree.map(gather, (found, labels))
        losses = {order: optax.softmax_cross_entropy_with_integer_labels(value, labels).mean()
                  for order, value in found.items()}
        right = {f'accuracy_{order_name(order)}': 100 * (value.argmax(1) == labels).mean()
                 for order, value in found.items()}
        return sum(losses.values()) / len(losses), (right, stats)

    update = compile_update(loss_fn, optimizer, rate, mesh)

    def step(
        state: TrainState, batch: dict[str, jax.Array], key: jax.Array, orders: tuple[int, ...],
        previous_finite=np.True_,
    ):
        del orders  # always those of the heads
        augment_key, dropout_key = jax.random.split(key)
        pixels = augment(augment_key, batch['clips'][:, 0], batch['size'], spec)
        return update(state, (pixels, batch['label']), dropout_key, previous_finite=previous_finite)

    return step


def fold_config(evaluation: Evaluation, fold: Fold) -> ml_collections.ConfigDict:
    """The config of the training run of a fold."""
    return run_config(
        evaluation, 'finetune', protocol=evaluation.protocol.name, fold=fold.name,
        data={'dir': str(fold.train.source.place), 'workers': evaluation.config.data.workers,
              'split': fold.train.source.split},
        clip={name: evaluation.config.eval[name] for name in ('frames', 'stride', 'short_video')})


def judge(fold: Fold, probabilities: dict[int, np.ndarray]) -> Outcome:
    """The figures of a fold: of each head and of 'joined', their mean, where there are several.

    A head has an output for every class; one without a training video cannot be chosen, so its test videos are misses.

    Args:
      fold: of the N test videos.
      probabilities: {order: (N, classes)}.
    """
    kinds = {order_name(order): value for order, value in probabilities.items()}
    if len(kinds) > 1:
        kinds['joined'] = np.mean(list(kinds.values()), axis=0)
    labels, classes = fold.test.labels, len(fold.test.source.label_names)
    scores = {kind: np.where(np.isin(np.arange(classes), fold.train.labels), value, -np.inf)
              for kind, value in kinds.items()}
    return Outcome({kind: top_k(value, labels) for kind, value in scores.items()}, 100 / classes,
                   confusion(labels, list(scores.values())[-1].argmax(1), classes),
                   {kind: hits(value, labels)[:, 0] for kind, value in scores.items()})


class FoldRun(NamedTuple):
    """The training run of a fold: `loop.run(config, folder, make_task)` of `model`."""

    config: ml_collections.ConfigDict
    folder: Path
    make_task: Callable
    model: Classifier


def fold_run(evaluation: Evaluation, number: int, fold: Fold) -> FoldRun:
    """The run of a fold; it is in `eval/NAME/fold_NUMBER`."""
    config = fold_config(evaluation, fold)
    model = Classifier(evaluation.encoder.module, tuple(config.finetune.orders), len(fold.test.source.label_names),
                       config.finetune.dropout, frozen=config.finetune.encoder_rate == 0)
    return FoldRun(config, evaluation.folder / f'fold_{number}', partial(
        supervised_task, model=model, source=fold.train.source, videos=fold.train.videos, recipe=config.finetune,
        name=fold.name, placement='single', inputs=('clips', 'size', 'label'), make_step=make_step,
        fingerprint=fold.train.source.fingerprint), model)


def train_and_test(evaluation: Evaluation, number: int, fold: Fold) -> Outcome:
    """One fold; its run goes on if it was stopped, and the last epoch is tested.

    Raises:
      UserError: see `loop.run`; also probabilities that are not finite, which in evaluation mode a finite loss allows.
    """
    config, folder, make_task, model = fold_run(evaluation, number, fold)
    state = loop.run(config, folder, make_task)
    probabilities = average_over_views(
        model, {'params': state.params, 'batch_stats': state.batch_stats}, fold.test.source, fold.test.videos,
        augment=evaluation.encoder.augment, views=evaluation.views, workers=config.data.workers)
    check_finite(probabilities.values(), fold.test.source.ids[fold.test.videos], 'probabilities', ANEW)
    return judge(fold, probabilities)._replace(details={'steps': int(state.step)})


@raise_together
def prepare(config, workdir: str) -> Evaluation:
    """Check the config, the data and the run of each fold, and load the encoder."""
    evaluation = open_evaluation(config, workdir, tuple(config.finetune.orders))
    for number, fold in enumerate(evaluation.protocol.folds):
        training = fold_run(evaluation, number, fold)
        check_same_run(training.config, training.folder)
        training.make_task(training.config, meshes.make_mesh())
    check_name(workdir, config, protocol=evaluation.protocol.name, fingerprint=fingerprint_of(evaluation.protocol))
    return evaluation


@alone
def evaluate(evaluation: Evaluation) -> dict:
    """What `run` does after `prepare`."""
    outcomes = [train_and_test(evaluation, number, fold) for number, fold in enumerate(evaluation.protocol.folds)]
    return finish(evaluation, 'finetune', outcomes, epoch=f'the last one, {evaluation.config.epochs}')


def run(config, workdir: str) -> dict:
    """Fine-tune the encoder of `workdir` on each fold; prints a table and writes `eval/NAME/results.json`."""
    return evaluate(prepare(config, workdir))
