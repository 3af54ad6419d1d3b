"""Fine-tuning and the SGD linear probe: supervised training through the one training loop, then a test of the result.

Reference: Chen et al., CPAL 2025, section 4 (downstream tasks).
"""

from dataclasses import dataclass
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from vididi_jax.augment import Augmentation, augment
from vididi_jax.config import to_dict
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
from vididi_jax.train.step import keep_if_finite

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

    def logits(self, variables: dict, pixels: jax.Array, train: bool, key: jax.Array | None = None):
        """({order: (B, classes)}, BatchNorm statistics after it) of normalised clips (B, T, H, W, 3)."""
        params, stats = variables['params'], variables['batch_stats']['encoder']
        found = {}
        for order in self.orders:
            encoder = {'params': params['encoder'], 'batch_stats': stats}
            view = time_derivative(pixels, order)
            if train and not self.frozen:
                features, moved = self.encoder.apply(encoder, view, train=True, mutable=['batch_stats'])
                stats = moved['batch_stats']
            else:
                features = self.encoder.apply(encoder, view, train=False)
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


def make_step(model: Classifier, optimizer: optax.GradientTransformation, rate: optax.Schedule, spec: Augmentation):
    """Build `step(state, batch, key, orders) -> (state, metrics)`: the mean of the heads' cross-entropies."""

    def loss_fn(params, state, pixels, labels, key):
        found, stats = model.logits({'params': params, 'batch_stats': state.batch_stats}, pixels, True, key)
        losses = {order: optax.softmax_cross_entropy_with_integer_labels(value, labels).mean()
                  for order, value in found.items()}
        right = {f'accuracy_{NAMES[order]}': 100 * (value.argmax(1) == labels).mean()
                 for order, value in found.items()}
        return sum(losses.values()) / len(losses), (right, stats)

    @partial(jax.jit, donate_argnames='state', compiler_options=compiler_options())
    def update(state: TrainState, pixels: jax.Array, labels: jax.Array, key: jax.Array):
        gradient = jax.value_and_grad(loss_fn, has_aux=True)
        (loss, (right, stats)), grads = gradient(state.params, state, pixels, labels, key)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        new = TrainState(state.step + 1, optax.apply_updates(state.params, updates), stats, opt_state)
        new, finite = keep_if_finite(loss, grads, new, state)
        return new, {'loss': loss, **right, 'gradient_norm': optax.tree.norm(grads),
                     'learning_rate': rate(state.step), 'finite': finite}

    def step(state: TrainState, batch: dict[str, jax.Array], key: jax.Array, orders: tuple[int, ...]):
        del orders  # always those of the heads
        augment_key, dropout_key = jax.random.split(key)
        pixels = augment(augment_key, batch['clips'][:, 0], batch['size'], spec)
        return update(state, pixels, batch['label'], dropout_key)

    return step


def check(evaluation: Evaluation) -> None:
    """Raises `UserError` if the fields of `config.finetune` do not fit."""
    config = evaluation.config.finetune
    if not config.orders or len(set(config.orders)) < len(config.orders) or not set(config.orders) <= set(NAMES):
        raise UserError(f'finetune.orders is {tuple(config.orders)}: give one or more of 0, 1, 2, each once.')
    if not 0 <= config.dropout < 1:
        raise UserError(f'finetune.dropout is {config.dropout}: it must be from 0 to below 1.')
    if config.encoder_rate < 0 or config.layer_decay <= 0:
        raise UserError('finetune.encoder_rate must be at least 0 and finetune.layer_decay above 0.')


def fold_config(evaluation: Evaluation, fold: Fold) -> ml_collections.ConfigDict:
    """The config of the training run of a fold: that of the evaluation, and all that it takes from the pretraining."""
    config, training = to_dict(evaluation.config), to_dict(evaluation.training)
    values = {name: config[name] for name in ('task', 'seed', 'epochs', 'batch_size', 'finetune', 'optimizer',
                                              'checkpoint', 'log')}
    values |= {name: training[name] for name in ('model', 'augment')}
    untrained = evaluation.config.eval.untrained
    values |= {
        'data': {'dir': str(fold.train.source.directory), 'workers': config['data']['workers']},
        'clip': {'frames': evaluation.views.frames, 'stride': evaluation.views.stride},
        'protocol': evaluation.protocol.name, 'fold': fold.name,
        'init_from': '' if untrained else str(evaluation.workdir),
        'encoder': 'untrained' if untrained else evaluation.encoder.fingerprint()}
    return ml_collections.ConfigDict(values).lock()


def make_task(config, mesh, *, model: Classifier, side: Side) -> loop.Task:
    """Supervised training on the videos of one side of a fold, as the loop takes it.

    Raises:
      UserError: a batch that does not fit the devices or the videos, frames that do not fit the augmentation.
    """
    meshes.check_batch_size(config.batch_size, mesh)
    spec = Augmentation(**config.augment)
    spec.check_frames(*([row[name] for row in side.rows] for name in ('height', 'width')))
    steps = loop.steps_per_epoch(config, len(side.videos), f'the training part of {config.fold}')
    rate = step_rate(config, steps)
    optimizer = sgd(rate, **{name: config.optimizer[name] for name in ('momentum', 'weight_decay', 'clip_norm')},
                    **{name: config.finetune[name] for name in ('encoder_rate', 'layer_decay')})

    def init(key: jax.Array) -> TrainState:
        variables = jax.jit(partial(model.init, clip_shape=(config.clip.frames, spec.size, spec.size)))(key)
        return TrainState(jnp.zeros((), jnp.int32), **variables, opt_state=optimizer.init(variables['params']))

    return loop.Task(
        description=f'fine-tuning on {len(side.videos):,} videos of {config.fold}: {config.epochs} epochs x {steps} '
                    f'steps of {config.batch_size}; heads on {", ".join(NAMES[order] for order in model.orders)}, '
                    f'encoder {"frozen" if model.frozen else "trained"}, from {config.init_from or "scratch"}',
        fingerprint=side.source.fingerprint,
        batches=pipeline.training_stream(
            side.source, side.videos, length=config.clip.frames, stride=config.clip.stride, placement='single',
            batch_size=config.batch_size, seed=config.seed, process=jax.process_index(),
            processes=jax.process_count()),
        inputs=('clips', 'size', 'label'),
        steps_per_epoch=steps,
        init=init,
        step=make_step(model, optimizer, rate, spec),
        orders=lambda step: model.orders,
        phases=('',),
    )


def train_and_test(evaluation: Evaluation, number: int, fold: Fold) -> Outcome:
    """One fold: its run is in `eval/NAME/fold_NUMBER`, and goes on if it was stopped; the last epoch is tested."""
    config = fold_config(evaluation, fold)
    classes = len(fold.test.source.label_names)
    model = Classifier(evaluation.encoder.module, tuple(config.finetune.orders), classes, config.finetune.dropout,
                       frozen=config.finetune.encoder_rate == 0)
    state = loop.run(config, evaluation.folder / f'fold_{number}', partial(make_task, model=model, side=fold.train))
    probabilities = average_over_views(
        model, {'params': state.params, 'batch_stats': state.batch_stats}, fold.test.source, fold.test.videos,
        augment=evaluation.encoder.augment, views=evaluation.views, workers=config.data.workers)
    kinds = {NAMES[order]: value for order, value in probabilities.items()}
    if len(kinds) > 1:
        kinds['joined'] = np.mean(list(kinds.values()), axis=0)
    labels = fold.test.labels
    return Outcome({kind: top_k(value, labels) for kind, value in kinds.items()}, 100 / classes,
                   confusion(labels, list(kinds.values())[-1].argmax(1), classes), {'steps': int(state.step)})


def run(config, workdir: str) -> dict:
    """Fine-tune the encoder of `workdir` on each fold; prints a table and writes `eval/NAME/results.json`."""
    evaluation = open_evaluation(config, workdir, tuple(config.finetune.orders) or (0,))
    check(evaluation)
    outcomes = [train_and_test(evaluation, number, fold) for number, fold in enumerate(evaluation.protocol.folds)]
    return finish(evaluation, 'finetune', outcomes, epoch=f'the last one, {config.epochs}')
