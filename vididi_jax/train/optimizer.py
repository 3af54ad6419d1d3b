"""Optimisers of pretraining and their learning rate."""

import jax
import jax.numpy as jnp
import optax

from vididi_jax.errors import UserError


def learning_rate(config, total_steps: int, steps_per_epoch: int) -> optax.Schedule:
    """Warm-up from 0, then a cosine from `base_rate * batch_size / 256` to `final_fraction` of it.

    Args:
      config: of the run; reads `batch_size`, `epochs` and `optimizer`.
      total_steps, steps_per_epoch: of the run.

    Returns:
      step -> rate.
    """
    optimizer = config.optimizer
    peak = optimizer.base_rate * config.batch_size / 256
    if optimizer.warmup_epochs and optimizer.warmup_epochs >= config.epochs:
        raise UserError(f'optimizer.warmup_epochs is {optimizer.warmup_epochs} and there are {config.epochs} epochs: '
                        'warm up for fewer.')
    warmup = round(optimizer.warmup_epochs * steps_per_epoch)
    cosine = optax.cosine_decay_schedule(peak, total_steps - warmup, alpha=optimizer.final_fraction)
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), cosine], [warmup]) if warmup else cosine


def _rank_above_one(params):
    return jax.tree.map(lambda p: p.ndim > 1, params)


def scale_by_trust_ratio(coefficient: float) -> optax.GradientTransformation:
    """`d *= coefficient * |p| / |d|` for each parameter, unchanged where either norm is 0."""

    def update(updates, state, params):
        def scale(d, p):
            p_norm, d_norm = (jnp.linalg.norm(x.astype(jnp.promote_types(x.dtype, jnp.float32))) for x in (p, d))
            apart = (p_norm > 0) & (d_norm > 0)
            return d * jnp.where(apart, coefficient * p_norm / jnp.where(apart, d_norm, 1), 1).astype(d.dtype)

        return jax.tree.map(scale, updates, params), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def lars(
    rate: optax.ScalarOrSchedule, *, weight_decay: float = 1e-6, momentum: float = 0.9,
    trust_coefficient: float = 0.001,
) -> optax.GradientTransformation:
    """LARS with the rate outside the momentum, as PyTorch's self-supervised code bases have it.

    `d = g + weight_decay * p;  d *= trust_coefficient * |p| / |d|;  m = momentum * m + d;  p -= rate * m`.
    Parameters of rank 0 and 1 (biases, norms) get neither decay nor the trust ratio. optax.lars multiplies by the rate
    before the momentum, which differs wherever the rate changes.

    Reference: You et al., "Large Batch Training of Convolutional Networks", arXiv 1708.03888; recipe of Chen et al., CPAL 2025.
    """
    return optax.chain(
        optax.masked(optax.add_decayed_weights(weight_decay), _rank_above_one),
        optax.masked(scale_by_trust_ratio(trust_coefficient), _rank_above_one),
        optax.trace(decay=momentum),
        optax.scale_by_learning_rate(rate),
    )


def build_optimizer(config, total_steps: int, steps_per_epoch: int) -> optax.GradientTransformation:
    """The optimiser of `config.optimizer`: 'lars' or 'adamw', with clipping and accumulation if asked for."""
    settings = config.optimizer
    if settings.accumulate < 1:
        raise UserError(f'optimizer.accumulate is {settings.accumulate}: it must be at least 1.')
    schedule = learning_rate(config, total_steps, steps_per_epoch)

    def rate(update):  # the optimiser counts updates, the schedule steps
        return schedule(update * settings.accumulate)

    if settings.name == 'lars':
        optimizer = lars(rate, weight_decay=settings.weight_decay, momentum=settings.momentum,
                         trust_coefficient=settings.trust_coefficient)
    elif settings.name == 'adamw':
        optimizer = optax.adamw(rate, weight_decay=settings.weight_decay, mask=_rank_above_one)
    else:
        raise UserError(f'optimizer.name is {settings.name!r}: choose lars or adamw.')
    if settings.clip_norm:
        optimizer = optax.chain(optax.clip_by_global_norm(settings.clip_norm), optimizer)
    return optax.MultiSteps(optimizer, settings.accumulate) if settings.accumulate > 1 else optimizer
