"""Fine-tuning and the SGD linear probe: supervised training through the one training loop, then a test of the result.

Reference: Chen et al., CPAL 2025, section 4 (downstream tasks).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from vididi_jax.augment import Augmentation, augment
from vididi_jax.config import check_same_run, to_dict
from vididi_jax.data import pipeline
from vididi_jax.derivatives import time_derivative
from vididi_jax.errors import UserError
from vididi_jax.evaluate.evaluation import Evaluation, Outcome, finish, open_evaluation
from vididi_jax.evaluate.features import average_over_views
from vididi_jax.evaluate.metrics import confusion, top_k
from vididi_jax.evaluate.protocol import Fold, Side
from vididi_jax.models.conv3d import compiler_options
from vididi_jax.train import loop
from vididi_jax.train import mesh as meshes
from vididi_jax.train.optimizer import sgd, step_rate
from vididi_jax.train.state import TrainState
from vididi_jax.train.step import checked, keep_if_finite

NAMES = {0: 'V', 1: 'dV', 2: 'd2V'}


@dataclass(frozen=True)
class Classifier:
    """An encoder with a head for each derivative order: `logits = Linear(dropout(encoder(D^order clip)))`.

    Attributes:
      encoder: the linen module.
      orders: derivative orders that have a head.
      classes: outputs of a head.
      dropout: probability, in training.
      frozen: whether the encoder stays as it is, BatchNorm statistics included.
    """

    encoder: nn.Module
    orders: tuple[int, ...]
    classes: int
    dropout: float
    frozen: bool

    def head(self) -> nn.Dense:
        return nn.Dense(self.classes)  # in float32, and so are the logits

    def init(self, key: jax.Array, clip_shape: tuple[int, int, int]) -> dict:
        """'params' of 'encoder' and 'head0', ..., 'batch_stats' of 'encoder'; `clip_shape` is (T, H, W)."""
        encoder_key, *keys = jax.random.split(key, 1 + len(self.orders))
        encoder = self.encoder.init(encoder_key, jnp.zeros((1, *clip_shape, 3), self.encoder.dtype))
        features = jnp.zeros((1, self.encoder.feature_dim))
        heads = {f'head{order}': self.head().init(k, features)['params']
                 for order, k in zip(self.orders, keys, strict=True)}
        return {'params': {'encoder': encoder['params'], **heads}, 'batch_stats': {'encoder': encoder['batch_stats']}}

    def encode(self, variables: dict, view: jax.Array, train: bool, method: str = '__call__'):
        """(What `method` of the encoder gives, BatchNorm statistics after it)."""
        if not train:
            return self.encoder.apply(variables, view, train=False, method=method), variables['batch_stats']
        found, moved = self.encoder.apply(variables, view, train=True, method=method, mutable=['batch_stats'])
        return found, moved['batch_stats']

    def features(self, variables: dict, view: jax.Array, train: bool):
        """(Features (B, D), BatchNorm statistics after them) of a view (B, T', H, W, 3)."""
        return self.encode(variables, view, train)

    def logits(self, variables: dict, pixels: jax.Array, train: bool, key: jax.Array | None = None, **regions):
        """({order: (B, classes)}, BatchNorm statistics after it) of normalised clips (B, T, H, W, 3).

        `regions` are given on to `features`.
        """
        params, stats = variables['params'], variables['batch_stats']['encoder']
        found = {}
        for order in self.orders:
            encoder = {'params': params['encoder'], 'batch_stats': stats}
            view = time_derivative(pixels, order)
            features, stats = self.features(encoder, view, train and not self.frozen, **regions)
            features = jax.lax.stop_gradient(features) if self.frozen else features
            if train and self.dropout:
                dropout = nn.Dropout(self.dropout, deterministic=False)
                features = dropout.apply({}, features, rngs={'dropout': jax.random.fold_in(key, order)})
            found[order] = self.head().apply({'params': params[f'head{order}']}, features.astype(jnp.float32))
        return found, {'encoder': stats}

    def __call__(self, variables: dict, pixels: jax.Array) -> dict[int, jax.Array]:
        """{order: class probabilities (B, classes)} in evaluation mode."""
        found, _ = self.logits(variables, pixels, train=False)
        return {order: nn.softmax(value) for order, value in found.items()}


def make_update(loss_fn: Callable, optimizer: optax.GradientTransformation, rate: optax.Schedule) -> Callable:
    """Build `update(state, *inputs) -> (state, metrics)`; `state` is donated, and comes back as it was if not finite.

    Args:
      loss_fn: `(params, state, *inputs) -> (loss, (metrics, batch_stats))`.
      optimizer, rate: the rate is only reported.
    """

    @checked
    @partial(jax.jit, compiler_options=compiler_options())
    def update(state: TrainState, *inputs):
        gradient = jax.value_and_grad(loss_fn, has_aux=True)
        (loss, (metrics, stats)), grads = gradient(state.params, state, *inputs)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        new = TrainState(state.step + 1, optax.apply_updates(state.params, updates), stats, opt_state)
        new, finite = keep_if_finite(loss, grads, new, state)
        return new, {'loss': loss, **metrics, 'gradient_norm': optax.tree.norm(grads),
                     'learning_rate': rate(state.step), 'finite': finite}

    return update


def make_step(model: Classifier, optimizer: optax.GradientTransformation, rate: optax.Schedule, spec: Augmentation):
    """Build `step(state, batch, key, orders) -> (state, metrics)`: the mean of the heads' cross-entropies."""

    def loss_fn(params, state, pixels, labels, key):
        found, stats = model.logits({'params': params, 'batch_stats': state.batch_stats}, pixels, True, key)
        losses = {order: optax.softmax_cross_entropy_with_integer_labels(value, labels).mean()
                  for order, value in found.items()}
        right = {f'accuracy_{NAMES[order]}': 100 * (value.argmax(1) == labels).mean()
                 for order, value in found.items()}
        return sum(losses.values()) / len(losses), (right, stats)

    update = make_update(loss_fn, optimizer, rate)

    def step(state: TrainState, batch: dict[str, jax.Array], key: jax.Array, orders: tuple[int, ...]):
        del orders  # always those of the heads
        augment_key, dropout_key = jax.random.split(key)
        pixels = augment(augment_key, batch['clips'][:, 0], batch['size'], spec)
        return update(state, pixels, batch['label'], dropout_key)

    return step


def check(recipe, name: str) -> None:
    """Raises `UserError` if the fields of `recipe`, that is `config.NAME`, do not fit."""
    if not recipe.orders or len(set(recipe.orders)) < len(recipe.orders) or not set(recipe.orders) <= set(NAMES):
        raise UserError(f'{name}.orders is {tuple(recipe.orders)}: give one or more of 0, 1, 2, each once.')
    if not 0 <= recipe.dropout < 1:
        raise UserError(f'{name}.dropout is {recipe.dropout}: it must be from 0 to below 1.')
    if recipe.encoder_rate < 0 or recipe.layer_decay <= 0:
        raise UserError(f'{name}.encoder_rate must be at least 0 and {name}.layer_decay above 0.')


def run_config(evaluation, recipe: str, **values) -> ml_collections.ConfigDict:
    """The config of a training run of an evaluation: its own fields, and all that it takes from the pretraining.

    Args:
      evaluation: `config`, `training`, `encoder`, `workdir` are read.
      recipe: name of the sub-config that the task has to itself.
      **values: what else decides the run.
    """
    config, training = to_dict(evaluation.config), to_dict(evaluation.training)
    untrained = evaluation.config.eval.untrained
    return ml_collections.ConfigDict({
        **{name: config[name] for name in ('task', 'seed', 'epochs', 'batch_size', recipe, 'optimizer', 'checkpoint',
                                           'log')},
        **{name: training[name] for name in ('model', 'augment')},
        'init_from': '' if untrained else str(evaluation.workdir),
        'encoder': 'untrained' if untrained else evaluation.encoder.fingerprint(), **values}).lock()


def fold_config(evaluation: Evaluation, fold: Fold) -> ml_collections.ConfigDict:
    """The config of the training run of a fold."""
    return run_config(
        evaluation, 'finetune', protocol=evaluation.protocol.name, fold=fold.name,
        data={'dir': str(fold.train.source.directory), 'workers': evaluation.config.data.workers},
        clip={name: evaluation.config.eval[name] for name in ('frames', 'stride', 'short_video')})


def supervised_task(
    config, mesh, *, model: Classifier, side: Side, recipe, name: str, placement: str, inputs: tuple[str, ...],
    make_step: Callable, complete: Callable[[dict], dict] = dict,
) -> loop.Task:
    """Supervised training on the videos of a side, as the loop takes it.

    Args:
      config: of the run: `augment`, `batch_size`, `clip`, `epochs`, `init_from`, `optimizer`, `seed` are read.
      mesh: the devices.
      model: what is trained.
      side: on what.
      recipe: `encoder_rate` and `layer_decay`.
      name: of the side, for messages.
      placement: of the clips, see `pipeline.training_stream`.
      inputs, complete: see `loop.Task`.
      make_step: `(model, optimizer, rate, spec) -> step`.

    Raises:
      UserError: a batch that does not fit the devices or the videos, frames that do not fit the augmentation.
    """
    meshes.check_batch_size(config.batch_size, mesh)
    spec = Augmentation(**config.augment)
    spec.check_frames(*([row[name] for row in side.rows] for name in ('height', 'width')))
    steps = loop.steps_per_epoch(config, len(side.videos), f'the training part of {name}')
    rate = step_rate(config, steps)
    optimizer = sgd(rate, **{name: config.optimizer[name] for name in ('momentum', 'weight_decay', 'clip_norm')},
                    **{name: recipe[name] for name in ('encoder_rate', 'layer_decay')})

    def init(key: jax.Array) -> TrainState:
        variables = jax.jit(partial(model.init, clip_shape=(config.clip.frames, spec.size, spec.size)))(key)
        return TrainState(jnp.zeros((), jnp.int32), **variables, opt_state=optimizer.init(variables['params']))

    return loop.Task(
        description=f'{config.task} on {len(side.videos):,} videos of {name}: {config.epochs} epochs x {steps} steps '
                    f'of {config.batch_size}; heads on {", ".join(NAMES[order] for order in model.orders)}, encoder '
                    f'{"frozen" if model.frozen else "trained"}, from {config.init_from or "scratch"}',
        fingerprint=side.source.fingerprint,
        batches=pipeline.training_stream(
            side.source, side.videos, length=config.clip.frames, stride=config.clip.stride, placement=placement,
            batch_size=config.batch_size, seed=config.seed, process=jax.process_index(),
            processes=jax.process_count()),
        inputs=inputs,
        steps_per_epoch=steps,
        init=init,
        step=make_step(model, optimizer, rate, spec),
        orders=lambda step: model.orders,
        phases=('',),
        complete=complete,
    )


def judge(fold: Fold, probabilities: dict[int, np.ndarray]) -> Outcome:
    """The figures of a fold: of each head and of 'joined', their mean, where there are several.

    A head has an output for every class; one without a training video cannot be chosen, so its test videos are misses.

    Args:
      fold: of the N test videos.
      probabilities: {order: (N, classes)}.
    """
    kinds = {NAMES[order]: value for order, value in probabilities.items()}
    if len(kinds) > 1:
        kinds['joined'] = np.mean(list(kinds.values()), axis=0)
    labels, classes = fold.test.labels, len(fold.test.source.label_names)
    scores = {kind: np.where(np.isin(np.arange(classes), fold.train.labels), value, -np.inf)
              for kind, value in kinds.items()}
    return Outcome({kind: top_k(value, labels) for kind, value in scores.items()}, 100 / classes,
                   confusion(labels, list(scores.values())[-1].argmax(1), classes))


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
        supervised_task, model=model, side=fold.train, recipe=config.finetune, name=fold.name, placement='single',
        inputs=('clips', 'size', 'label'), make_step=make_step), model)


def train_and_test(evaluation: Evaluation, number: int, fold: Fold) -> Outcome:
    """One fold; its run goes on if it was stopped, and the last epoch is tested."""
    config, folder, make_task, model = fold_run(evaluation, number, fold)
    state = loop.run(config, folder, make_task)
    probabilities = average_over_views(
        model, {'params': state.params, 'batch_stats': state.batch_stats}, fold.test.source, fold.test.videos,
        augment=evaluation.encoder.augment, views=evaluation.views, workers=config.data.workers)
    return judge(fold, probabilities)._replace(details={'steps': int(state.step)})


def prepare(config, workdir: str) -> Evaluation:
    """Check the config, the data and the run of each fold, and load the encoder."""
    evaluation = open_evaluation(config, workdir, tuple(config.finetune.orders) or (0,))
    check(config.finetune, 'finetune')
    for number, fold in enumerate(evaluation.protocol.folds):
        training = fold_run(evaluation, number, fold)
        check_same_run(training.config, training.folder)
        training.make_task(training.config, meshes.make_mesh())
    return evaluation


def evaluate(evaluation: Evaluation) -> dict:
    """What `run` does after `prepare`."""
    outcomes = [train_and_test(evaluation, number, fold) for number, fold in enumerate(evaluation.protocol.folds)]
    return finish(evaluation, 'finetune', outcomes, epoch=f'the last one, {evaluation.config.epochs}')


def run(config, workdir: str) -> dict:
    """Fine-tune the encoder of `workdir` on each fold; prints a table and writes `eval/NAME/results.json`."""
    return evaluate(prepare(config, workdir))
