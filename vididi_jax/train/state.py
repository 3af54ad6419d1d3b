"""What training carries from step to step, and how it starts."""

from typing import Any, NamedTuple

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from vididi_jax.errors import UserError
from vididi_jax.models import create_encoder
from vididi_jax.models.heads import MLP

INIT, AUGMENT = range(2)  # tags that split the keys of one seed by what they are for; the schedule has its own


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
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any
    target: Any = None


class Networks(NamedTuple):
    """The modules behind a state; `predictor` is None but for BYOL."""

    encoder: nn.Module
    projector: nn.Module
    predictor: nn.Module | None


DTYPES = ('auto', 'float32', 'bfloat16', 'float64')


def compute_dtype(model) -> jnp.dtype:
    """Dtype of the activations: 'auto' is bfloat16 on GPU and TPU, and float32 on a CPU, where bfloat16 is slower."""
    if model.dtype not in DTYPES:
        raise UserError(f'model.dtype is {model.dtype!r}: choose one of {", ".join(DTYPES)}.')
    if model.dtype == 'auto':
        return jnp.dtype(jnp.float32 if jax.default_backend() == 'cpu' else jnp.bfloat16)
    return jnp.dtype(model.dtype)


def build_networks(config) -> Networks:
    """Modules for `config.model` and `config.framework`."""
    dtype = compute_dtype(config.model)
    head = lambda widths: MLP(tuple(widths), dtype=dtype)  # noqa: E731
    return Networks(
        build_encoder(config.model),
        head(config.framework.projector),
        head(config.framework.predictor) if config.framework.loss == 'byol' else None,
    )


def build_encoder(model, **options) -> nn.Module:
    """The encoder that `config.model` describes; `options` of `create_encoder` besides."""
    return create_encoder(
        model.name, width=model.width, dtype=compute_dtype(model), conv_impl=model.conv_impl, remat=model.remat,
        **options)


def init_state(
    networks: Networks, optimizer: optax.GradientTransformation, key: jax.Array, clip_shape: tuple[int, int, int]
) -> TrainState:
    """A fresh state.

    Args:
      networks: see `build_networks`.
      optimizer: see `build_optimizer`.
      key: of the initial weights.
      clip_shape: (T, H, W) of the clips that the encoder gets.
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

    variables = jax.jit(init)(keys)
    params = {name: tree['params'] for name, tree in variables.items()}
    batch_stats = {name: tree.get('batch_stats', {}) for name, tree in variables.items()}
    target = None
    if networks.predictor is not None:
        online = ('encoder', 'projector')
        target = {'params': {name: params[name] for name in online},
                  'batch_stats': {name: batch_stats[name] for name in online}}
        target = jax.tree.map(jnp.copy, target)  # donated buffers must not be shared
    return TrainState(jnp.zeros((), jnp.int32), params, batch_stats, optimizer.init(params), target)


def with_encoder(state: TrainState, variables) -> TrainState:
    """`state` with the encoder's parameters and statistics replaced, in BYOL's target too."""

    def put(params, batch_stats):
        copy = jax.tree.map(jnp.copy, variables)
        return {**params, 'encoder': copy['params']}, {**batch_stats, 'encoder': copy['batch_stats']}

    params, batch_stats = put(state.params, state.batch_stats)
    target = state.target
    if target is not None:
        target = dict(zip(('params', 'batch_stats'), put(target['params'], target['batch_stats']), strict=True))
    return state.replace(params=params, batch_stats=batch_stats, target=target)


def check_same_shapes(expected, given, origin: str) -> None:
    """Raises `UserError` naming the first parameter of `given` that does not fit."""
    shapes = [{jax.tree_util.keystr(path, simple=True, separator='/'): leaf.shape
               for path, leaf in jax.tree_util.tree_leaves_with_path(tree)} for tree in (expected, given)]
    for name in sorted(shapes[0].keys() | shapes[1].keys()):
        here, there = (s.get(name, 'absent') for s in shapes)
        if here != there:
            raise UserError(f'the encoder of {origin} does not fit this config ({name} is {there} there and {here} '
                            'here): set config.model to what it was trained with.')
