"""One optimiser step as a pure function: batch -> two views -> embeddings -> loss -> gradients -> new state."""

from collections.abc import Callable
from functools import partial
from inspect import signature
from operator import itemgetter

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from vididi_jax import losses
from vididi_jax import schedule as schedules
from vididi_jax.collectives import gather, mean_over_devices
from vididi_jax.derivatives import time_derivative
from vididi_jax.errors import UserError
from vididi_jax.pixels.augment import Augmentation, augment
from vididi_jax.train import statistics
from vididi_jax.train.state import EVALUATED, Networks, TrainState
from vididi_jax.train.update import compile_update

PAIR_LOSSES = {'vicreg': losses.vicreg_loss, 'info_nce': losses.info_nce_loss, 'nt_xent': losses.nt_xent_loss}
LOSSES = (*PAIR_LOSSES, 'byol')


@partial(jax.jit, static_argnames=('spec', 'dtype'))
def augment_views(
    key: jax.Array, clips: jax.Array, sizes: jax.Array, *, spec: Augmentation, dtype,
) -> tuple[jax.Array, jax.Array]:
    """Both clips of each video, augmented independently and normalised, see `augment`.

    Args:
      key: of this step; view i has `fold_in(key, i)`.
      clips: uint8 (B, 2, T, H, W, 3).
      sizes: int32 (B, 2), true height and width of the frames of a video.
      spec: the augmentation; static under jit.
      dtype: of the views, float32 or float64; static under jit.

    Returns:
      Two arrays (B, T, size, size, 3), normalised.
    """
    return tuple(augment(jax.random.fold_in(key, view), clips[:, view], sizes, spec, dtype) for view in (0, 1))


@partial(jax.jit, static_argnames=('orders', 'frames'))
def differentiate_views(first: jax.Array, second: jax.Array, *, orders: tuple[int, int], frames: int) -> tuple:
    """The derivative of order `orders[i]` of view i, both cut to their first `frames` frames.

    A jit of its own: values that the augmentation has rounded are subtracted exactly, so what does not move becomes
    zero, and the encoder's step compiles once per number of frames instead of once per pair of orders.
    """
    return tuple(time_derivative(view, order)[:, :frames] for view, order in zip((first, second), orders, strict=True))


def view_frames(frames: int, orders: tuple[int, int], length: str) -> int:
    """Frames of the views made from clips of `frames`: all that both have ('shrink'), or always `frames` ('constant').

    With 'constant' the clips that are read are longer, see `frames_to_read`.
    """
    return frames if length == 'constant' else frames - max(orders)


def frames_to_read(frames: int, max_order: int, length: str) -> int:
    """Frames of the clips that the pipeline must deliver."""
    return frames + max_order if length == 'constant' else frames


def check_framework(framework) -> None:
    """Raises `UserError` if `config.framework` does not fit together."""
    if framework.loss == 'byol':
        if framework.scope == 'per_device':
            raise UserError("framework.scope is 'per_device', and BYOL's loss has no statistics over the batch: set it "
                            'to global.')
        if not framework.predictor or framework.predictor[-1] != framework.projector[-1]:
            raise UserError(f'framework.predictor {tuple(framework.predictor)} must end with the size of the projector '
                            f'{tuple(framework.projector)}.')
        known = set()
    else:
        if framework.predictor:
            raise UserError(f'framework.predictor is for BYOL, and framework.loss is {framework.loss!r}: set it to ().')
        parameters = signature(PAIR_LOSSES[framework.loss]).parameters.values()
        known = {parameter.name for parameter in parameters if parameter.kind == parameter.KEYWORD_ONLY}
    unknown = set(framework.loss_options) - known
    if unknown:
        raise UserError(f'framework.loss_options has {", ".join(sorted(unknown))}, which {framework.loss} does not '
                        f'take: it takes {", ".join(sorted(known)) or "none"}.')
    if framework.loss_options and not any(framework.loss_options.values()):
        raise UserError('the weights in framework.loss_options are all 0, so there is nothing to learn: raise one.')


def pair_loss(framework) -> Callable:
    """`z -> (loss, terms)` for `config.framework`, from a device's embeddings (2, B, D) of both views.

    With the scope 'global' each device computes the loss of all devices' embeddings; with 'per_device' that of its own,
    and the result is the mean.
    """
    loss = partial(PAIR_LOSSES[framework.loss], **framework.loss_options)
    if framework.scope == 'per_device':
        return lambda z: mean_over_devices(loss(*z))
    return lambda z: loss(*gather(z, axis=1))


def make_update(
    networks: Networks, optimizer: optax.GradientTransformation, learning_rate: optax.Schedule, config,
    total_steps: int, mesh: Mesh,
) -> Callable:
    """Build `update(state, (first, second), orders) -> (state, metrics)` for two views (B, T, H, W, 3).

    `orders` (2,) int32 are those of the views. `state` is donated; where it has `by_order`, its running statistics are
    those of `vididi_jax.train.statistics`, else plain averages.

    The two views pass through the encoder as one batch, in which BatchNorm normalises each with its own statistics
    (frames and derivatives differ in scale) and the running statistics see both. If the loss, a gradient or anything
    of the new state is not finite, the state comes back unchanged and `metrics['finite']` is False.

    BYOL's target runs in training mode too: its BatchNorm normalises each view with the statistics of that batch, and
    its running statistics are averages of those, not a moving average of the online network's, as its parameters are.
    No step reads them, and health and evaluation use the online network.

    Args:
      networks: the modules, see `build_networks`.
      optimizer, learning_rate: see `rate_and_optimizer`; the rate is only reported.
      config: of the run; reads `framework`, `optimizer.accumulate` and `schedule`.
      total_steps: of the run.
      mesh: the devices.
    """
    shares = schedules.resolve(config.schedule).shares

    def apply(parts, params, batch_stats, x):
        """Modules one after the other, in training mode -> output, statistics after them, those of the two views."""
        after, seen = dict(batch_stats), {}
        for part in parts:
            variables = {'params': params[part], 'batch_stats': batch_stats[part]}
            x, moved = getattr(networks, part).apply(
                variables, x, train=True, views=2, mutable=['batch_stats', 'moments'])
            after[part], seen[part] = moved.get('batch_stats', {}), moved.get('moments', {})
        return x, after, seen

    def halves(x):
        """Embeddings (2 B, D) of both views as (2, B, D)."""
        return x.reshape(2, -1, x.shape[-1])

    def keep(state, batch_stats, orders, seen):
        """The statistics after both views, as fields of the state."""
        by_order = state.by_order
        if by_order is None:
            return {'batch_stats': batch_stats}
        for view, order in enumerate(orders):
            by_order = statistics.remember(by_order, order, jax.tree.map(itemgetter(view), seen))
        return {'batch_stats': {**batch_stats, **statistics.mixed(by_order, shares)}, 'by_order': by_order}

    def two_views(params, state, views, orders):
        z, batch_stats, seen = apply(EVALUATED, params, state.batch_stats, jnp.concatenate(views))
        loss, terms = pair_loss(config.framework)(halves(z))
        return loss, (terms, keep(state, batch_stats, orders, seen))

    def online_and_target(params, state, views, orders):
        views = jnp.concatenate(views)
        z, batch_stats, seen = apply(EVALUATED, params, state.batch_stats, views)
        p, batch_stats, _ = apply(('predictor',), params, batch_stats, z)
        t, target_stats, _ = apply(EVALUATED, state.target['params'], state.target['batch_stats'], views)
        predictions, targets = (gather(halves(x), axis=1) for x in (p, jax.lax.stop_gradient(t)))
        forward, _ = losses.byol_loss(predictions[0], targets[1])
        backward, _ = losses.byol_loss(predictions[1], targets[0])
        terms = {'view1_to_view2': forward, 'view2_to_view1': backward}
        return forward + backward, (terms, (keep(state, batch_stats, orders, seen), target_stats))

    def move_target(state, params, kept):
        fields, target_stats = kept
        tau = losses.ema_tau(state.step, total_steps, config.framework.ema_base)
        # While gradients are accumulated the online network stands still, and so does its average.
        tau = jnp.where((state.step + 1) % config.optimizer.accumulate == 0, tau, 1.0)
        online = {name: params[name] for name in state.target['params']}
        moved = optax.incremental_update(state.target['params'], online, tau)  # tau is the target's share
        return {**fields, 'target': {'params': moved, 'batch_stats': target_stats}}

    def rate(step):  # that of the update which the step is a part of
        return learning_rate(step // config.optimizer.accumulate * config.optimizer.accumulate)

    shared = (optimizer, rate, mesh)
    if networks.predictor is None:
        return compile_update(two_views, *shared, lambda state, params, fields: fields)
    return compile_update(online_and_target, *shared, move_target)


def pixel_dtype(model) -> jnp.dtype:
    """Of views: float32, whatever the activations of `config.model` are rounded to, and float64 where they are that."""
    return jnp.dtype('float64' if model.dtype == 'float64' else 'float32')


def make_train_step(
    networks: Networks, optimizer: optax.GradientTransformation, learning_rate: optax.Schedule, config,
    total_steps: int, mesh: Mesh,
) -> Callable:
    """Build `train_step(state, batch, key, orders, previous_finite=True) -> (state, metrics)`.

    It calls three compiled programs, with options of their own, and so is not for use inside another `jax.jit`.

    Args:
      config: of the run; reads `augment`, `clip`, `model.dtype` and what `make_update` reads.
      networks, optimizer, learning_rate, total_steps, mesh: see `make_update`.

    Args of the returned function:
      state: `TrainState`, donated.
      batch: `clips` uint8 (B, 2, T, H, W, 3) and `size` int32 (B, 2), on the devices.
      key: of the augmentation of this step.
      orders: (int, int), derivative orders of the two views.
      previous_finite: see `keep_if_finite`.
    """
    spec = Augmentation(**config.augment)
    dtype = pixel_dtype(config.model)
    update = make_update(networks, optimizer, learning_rate, config, total_steps, mesh)

    def train_step(
        state: TrainState, batch: dict[str, jax.Array], key: jax.Array, orders: tuple[int, int],
        previous_finite=np.True_,
    ):
        views = augment_views(key, batch['clips'], batch['size'], spec=spec, dtype=dtype)
        frames = view_frames(config.clip.frames, orders, config.clip.length)
        views = differentiate_views(*views, orders=orders, frames=frames)
        return update(state, views, np.asarray(orders, np.int32), previous_finite=previous_finite)

    return train_step
