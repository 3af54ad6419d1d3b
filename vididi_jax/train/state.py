"""What training carries from step to step, and how it starts."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from vididi_jax import schedule as schedules
from vididi_jax.compilation import run_init
from vididi_jax.models.build import build_encoder, compute_dtype
from vididi_jax.models.heads import MLP
from vididi_jax.train import statistics

INIT, AUGMENT = range(2)  # tags that split the keys of one seed by what they are for; the schedule has its own
EVALUATED = ('encoder', 'projector')  # what is also run in evaluation mode


@flax.struct.dataclass
class TrainState:
    """Everything that a step reads and writes.

    Attributes:
      step: int32 scalar, optimiser steps taken.
      params: {'encoder', 'projector'} and for BYOL 'predictor'.
      batch_stats: running BatchNorm statistics, same keys.
      opt_state: optax state.
      target: BYOL's target network {'params', 'batch_stats'} of encoder and projector; None elsewhere. Its parameters
        are a moving average of the online ones; its running statistics are its own, see `step.make_update`.
      by_order: what `batch_stats` of encoder and projector are mixed from, see `statistics`; None where they are plain
        running averages.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any
    target: Any = None
    by_order: statistics.ByOrder | None = None


class Networks(NamedTuple):
    """The modules behind a state; `predictor` is None but for BYOL."""

    encoder: nn.Module
    projector: nn.Module
    predictor: nn.Module | None


def build_networks(config, device: jax.Device) -> Networks:
    """Modules for `config.model` and `config.framework`, for devices like this one, see `build_encoder`."""
    dtype = compute_dtype(config.model, device)

    def head(widths) -> MLP:
        return MLP(tuple(widths), dtype=dtype)

    return Networks(
        build_encoder(config.model, device),
        head(config.framework.projector),
        head(config.framework.predictor) if config.framework.loss == 'byol' else None,
    )


def init_state(
    networks: Networks, optimizer: optax.GradientTransformation, key: jax.Array, clip_shape: tuple[int, int, int],
    orders: int = 0,
) -> TrainState:
    """A fresh state.

    Args:
      networks: see `build_networks`.
      optimizer: see `build_optimizer`.
      key: of the initial weights.
      clip_shape: (T, H, W) of the clips that the encoder gets.
      orders: how many derivative orders have running statistics of their own; 0 for plain ones.
    """
    keys = dict(zip(('encoder', 'projector', 'predictor'), jax.random.split(key, 3), strict=True))

    def init(keys):
        clip = jnp.zeros((2, *clip_shape, 3), networks.encoder.dtype)
        variables = {'encoder': networks.encoder.init(keys['encoder'], clip)}
        features = jnp.zeros((2, networks.encoder.feature_dim), networks.encoder.dtype)
        variables['projector'] = networks.projector.init(keys['projector'], features)
        if networks.predictor is not None:
            embeddings = jnp.zeros((2, networks.projector.features[-1]), networks.encoder.dtype)
            variables['predictor'] = networks.predictor.init(keys['predictor'], embeddings)
        return variables

    variables = run_init(init, keys)
    params = {name: tree['params'] for name, tree in variables.items()}
    batch_stats = {name: tree.get('batch_stats', {}) for name, tree in variables.items()}
    target = None
    if networks.predictor is not None:
        target = {'params': {name: params[name] for name in EVALUATED},
                  'batch_stats': {name: batch_stats[name] for name in EVALUATED}}
        target = jax.tree.map(jnp.copy, target)  # donated buffers must not be shared
    by_order = statistics.start({name: batch_stats[name] for name in EVALUATED}, orders) if orders else None
    return TrainState(jnp.zeros((), jnp.int32), params, batch_stats, optimizer.init(params), target, by_order)


def make_init(config, networks: Networks, optimizer: optax.GradientTransformation) -> Callable[[jax.Array], TrainState]:
    """Build `init(key)`, the fresh state of a pretraining: `init_state` for the clips and statistics of `config`."""
    orders = len(schedules.resolve(config.schedule).shares) if config.statistics == 'by_order' else 0
    size = config.augment.size
    return partial(init_state, networks, optimizer, clip_shape=(config.clip.frames, size, size), orders=orders)


def with_encoder(state: TrainState, variables: dict[str, Any]) -> TrainState:
    """A state with another encoder, in BYOL's target too.

    Args:
      state: gives the dtypes.
      variables: {'params', 'batch_stats'} of an encoder of the same shapes.

    Returns:
      `state` with copies of the encoder's parameters and running statistics; the optimiser's state, the step and
      `by_order` are as they were.
    """

    def put(trees: dict) -> dict:
        return {part: {**trees[part], 'encoder': jax.tree.map(
            lambda new, old: jnp.array(new, old.dtype), variables[part], trees[part]['encoder'])} for part in variables}

    online = put({'params': state.params, 'batch_stats': state.batch_stats})
    return state.replace(**online, target=None if state.target is None else put(state.target))
