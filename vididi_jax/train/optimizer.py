"""Optimisers of pretraining and of supervised training, and their learning rates."""

import jax
import jax.numpy as jnp
import optax

from vididi_jax.errors import UserError


def learning_rate(config, total_steps: int) -> optax.Schedule:
    """Warm-up from 0, then a cosine from `peak = base_rate * batch_size / 256` to `final_fraction * peak`.

    Args:
      config: of the run; reads `batch_size` and, in `optimizer`, `base_rate`, `warmup_fraction`, `final_fraction`.
      total_steps: of the run.

    Returns:
      step -> rate.
    """
    settings = config.optimizer
    peak = settings.base_rate * config.batch_size / 256
    warmup = int(settings.warmup_fraction * total_steps)
    return optax.warmup_cosine_decay_schedule(0.0, peak, warmup, total_steps, settings.final_fraction * peak)


def _rank_above_one(params):
    return jax.tree.map(lambda p: p.ndim > 1, params)


def lars(
    rate: optax.ScalarOrSchedule, *, weight_decay: float = 1e-6, momentum: float = 0.9, trust_coefficient: float = 0.001
) -> optax.GradientTransformation:
    """LARS with the rate outside the momentum, as PyTorch's self-supervised code bases have it.

    `d = g + weight_decay * p;  d *= trust_coefficient * |p| / |d|;  m = momentum * m + d;  p -= rate * m`.
    Parameters of rank 0 and 1 (biases, norms) get neither decay nor the trust ratio. optax.lars multiplies by the rate
    before the momentum, which differs wherever the rate changes.

    Args:
      rate: a number, or a schedule from the count of updates.
      weight_decay, momentum, trust_coefficient: as above.

    Reference: You et al., "Large Batch Training of Convolutional Networks", arXiv 1708.03888; Chen et al., CPAL 2025.
    """
    return optax.chain(
        optax.masked(optax.add_decayed_weights(weight_decay), _rank_above_one),
        optax.masked(optax.scale_by_trust_ratio(trust_coefficient=trust_coefficient), _rank_above_one),
        optax.trace(decay=momentum),
        optax.scale_by_learning_rate(rate),
    )


OPTIMIZERS = {  # of pretraining: (rate, config.optimizer) -> optimiser
    'lars': lambda rate, settings: lars(rate, **{
        name: settings[name] for name in ('weight_decay', 'momentum', 'trust_coefficient')}),
    'adamw': lambda rate, settings: optax.adamw(rate, weight_decay=settings.weight_decay, mask=_rank_above_one),
}


def build_optimizer(config, total_steps: int) -> optax.GradientTransformation:
    """The optimiser that `config.optimizer` describes.

    Args:
      config: of the run; reads `batch_size` and `optimizer`: `name` is 'lars' or 'adamw' (which has no use for
        `momentum` and `trust_coefficient`); `predictor_rate` is a factor on the rate of BYOL's predictor; `accumulate`
        steps average their gradients into one update; `clip_norm` bounds the global norm of what an update gets, 0 for
        no bound; the rest as in `learning_rate`.
      total_steps: of the run.

    Raises:
      UserError: accumulation that leaves the run's last steps without effect.
    """
    settings = config.optimizer
    if total_steps % settings.accumulate:
        raise UserError(f'optimizer.accumulate is {settings.accumulate} and the run has {total_steps} steps: take a '
                        'number that divides them, so that no gradient is lost at the end.')
    schedule = learning_rate(config, total_steps)

    def rate(update):  # the optimiser counts updates, the schedule steps
        return schedule(update * settings.accumulate)

    optimizer = optax.chain(OPTIMIZERS[settings.name](rate, settings), optax.stateless(lambda updates, _: {
        part: optax.tree.scale(settings.predictor_rate, tree) if part == 'predictor' else tree
        for part, tree in updates.items()}))
    if settings.clip_norm:
        optimizer = optax.chain(optax.clip_by_global_norm(settings.clip_norm), optimizer)
    if settings.accumulate > 1:
        optimizer = optax.MultiSteps(  # float64 means float32 but where JAX's 64 bits are switched on
            optimizer, settings.accumulate, accumulator_dtype=jnp.float64).gradient_transformation()
    return optimizer


def rate_and_optimizer(config, total_steps: int) -> tuple[optax.Schedule, optax.GradientTransformation]:
    """`learning_rate` and `build_optimizer` of a pretraining, as `step.make_update` takes them."""
    return learning_rate(config, total_steps), build_optimizer(config, total_steps)


def step_rate(config, steps_per_epoch: int) -> optax.Schedule:
    """`peak = base_rate * batch_size / 128`, times `decay` from each epoch of `milestones` on.

    Args:
      config: of the run; reads `batch_size` and, in `optimizer`, `base_rate`, `milestones` and `decay`.
      steps_per_epoch: of the run.

    Returns:
      step -> rate.
    """
    settings = config.optimizer
    boundaries = {epoch * steps_per_epoch: settings.decay for epoch in settings.milestones}
    return optax.piecewise_constant_schedule(settings.base_rate * config.batch_size / 128, boundaries)


def layer_rates(params: dict, encoder_rate: float, layer_decay: float) -> dict:
    """Factors on the rate, a tree like `params`: `encoder_rate * layer_decay^(L - i)` for the encoder's layer i of L.

    Layers (the encoder's blocks) count from 0 at the stem; everything that is not the encoder has factor 1.

    Reference: Bao et al., BEiT, ICLR 2022 (layer-wise decay).
    """
    layers = sorted(params['encoder'], key=lambda name: (name != 'stem', name))  # the names of the others are in order
    depth = {name: len(layers) - i for i, name in enumerate(layers)}
    encoder = {name: jax.tree.map(lambda _, n=name: encoder_rate * layer_decay ** depth[n], tree)
               for name, tree in params['encoder'].items()}
    return {name: encoder if name == 'encoder' else jax.tree.map(lambda _: 1.0, tree) for name, tree in params.items()}


def sgd(
    rate: optax.ScalarOrSchedule, *, momentum: float, weight_decay: float, encoder_rate: float = 1.0,
    layer_decay: float = 1.0, clip_norm: float = 0.0,
) -> optax.GradientTransformation:
    """SGD as PyTorch has it: `d = g + weight_decay * p;  m = momentum * m + d;  p -= rate * factor * m`.

    Args:
      rate: a number, or a schedule from the count of updates.
      momentum, weight_decay: as above, of all parameters.
      encoder_rate, layer_decay: the factors, see `layer_rates`; an `encoder_rate` of 0 freezes the encoder.
      clip_norm: bound of the global norm of g, 0 for none.
    """
    return optax.chain(
        *([optax.clip_by_global_norm(clip_norm)] if clip_norm else []),
        optax.add_decayed_weights(weight_decay),
        optax.trace(decay=momentum),
        optax.scale_by_learning_rate(rate),
        optax.stateless(lambda updates, p: optax.tree.mul(updates, layer_rates(p, encoder_rate, layer_decay))),
    )
