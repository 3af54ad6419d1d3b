"""Supervised training of an encoder with heads, through the one training loop: what fine-tuning and detection share."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.sharding import Mesh

from vididi_jax.compilation import run_init
from vididi_jax.config import to_dict
from vididi_jax.data import pipeline
from vididi_jax.data.source import RecordSource
from vididi_jax.models.classifier import Classifier
from vididi_jax.pixels.augment import Augmentation
from vididi_jax.schedule import order_name
from vididi_jax.train import loop
from vididi_jax.train import mesh as meshes
from vididi_jax.train.optimizer import sgd, step_rate
from vididi_jax.train.state import TrainState

# What to do about a run whose loss was finite to its end, and what it learned is not.
ANEW = ('lower config.optimizer.base_rate, or set config.optimizer.clip_norm, and train anew, under another '
        '--config.eval.name')


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
        'init_checkpoint': 'latest' if untrained else str(evaluation.encoder.step),  # the one that was looked at
        'encoder': 'untrained' if untrained else evaluation.encoder.fingerprint(), **values}).lock()


def supervised_task(
    config, mesh: Mesh, *, model: Classifier, source: RecordSource, videos: np.ndarray, recipe, name: str,
    placement: str, inputs: tuple[str, ...], make_step: Callable, fingerprint: str,
    complete: Callable[[dict], dict] = dict,
) -> loop.Task:
    """Supervised training as the loop takes it.

    Args:
      config: of the run: `augment`, `batch_size`, `clip`, `epochs`, `init_from`, `optimizer`, `seed` are read.
      mesh: the devices.
      model: what is trained.
      source, videos: on what: the records, and (N,) indices into them.
      recipe: `encoder_rate` and `layer_decay`.
      name: of the data, for messages.
      placement: of the clips, see `pipeline.training_stream`.
      inputs, fingerprint, complete: see `loop.Task`.
      make_step: `(model, optimizer, rate, spec, mesh) -> step`, see `compile_update`.

    Raises:
      UserError: a batch that does not fit the devices or the videos, frames that do not fit the augmentation.
    """
    meshes.check_batch_size(config.batch_size, mesh)
    spec = Augmentation(**config.augment)
    spec.check_frames(*source.sizes[videos].T)
    steps = loop.steps_per_epoch(config, len(videos), f'the training part of {name}')
    rate = step_rate(config, steps)
    optimizer = sgd(rate, **{name: config.optimizer[name] for name in ('momentum', 'weight_decay', 'clip_norm')},
                    **{name: recipe[name] for name in ('encoder_rate', 'layer_decay')})

    def init(key: jax.Array) -> TrainState:
        variables = run_init(partial(model.init, clip_shape=(config.clip.frames, spec.size, spec.size)), key)
        return TrainState(jnp.zeros((), jnp.int32), **variables, opt_state=optimizer.init(variables['params']))

    return loop.Task(
        description=f'{config.task} on {len(videos):,} videos of {name}: {config.epochs} epochs x {steps} steps '
                    f'of {config.batch_size}; heads on {", ".join(map(order_name, model.orders))}, encoder '
                    f'{"frozen" if model.frozen else "trained"}, from {config.init_from or "scratch"}',
        fingerprint=fingerprint,
        batches=pipeline.training_stream(
            source, videos, length=config.clip.frames, stride=config.clip.stride, placement=placement,
            batch_size=config.batch_size, seed=config.seed, rows=meshes.rows_here(mesh, config.batch_size)),
        inputs=inputs,
        steps_per_epoch=steps,
        init=init,
        step=make_step(model, optimizer, rate, spec, mesh),
        orders=lambda step: model.orders,
        phases=('',),
        complete=complete,
    )
