"""An update of the train state as one compiled program, and the one guard against a step that is not finite."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, PartitionSpec

from vididi_jax.collectives import as_varying
from vididi_jax.compilation import compiler_options
from vididi_jax.train.mesh import platform
from vididi_jax.train.state import TrainState


def all_finite(tree) -> jax.Array:
    """Whether every entry of every array of `tree` is finite, a bool scalar."""
    return jax.tree.reduce(lambda finite, leaf: finite & jnp.isfinite(leaf).all(), tree, jnp.array(True))


def keep_if_finite(
    new: TrainState, metrics: dict, old: TrainState, previous_finite: jax.Array | np.bool_,
) -> tuple[TrainState, dict]:
    """`new` if all of it, the loss and the gradients are finite, else `old`; and which parts of the step are.

    A finite loss is not enough: a parameter can overflow in the update, and a running variance in the forward pass,
    where dividing by its root leaves zeros. What is kept can be saved.

    Args:
      new, old: the state after the step, and before it.
      metrics: 'loss' and 'finite_gradients' are read.
      previous_finite: 'finite' of the step before. After one that was not, no step changes the state: whoever launched
        some more before they heard of it finds it as it was.

    Returns:
      The state, and `metrics` with 'finite_PART' of each part and 'finite' of all and of the steps before. A loss that
      is not finite spoils the gradients, and these all that follows: of the three only the first is named.
    """
    loss = all_finite(metrics['loss'])
    computed = loss & metrics['finite_gradients']
    parts = {'parameters': new.params, 'statistics': (new.batch_stats, new.by_order),
             'optimizer_state': new.opt_state, 'target': new.target}
    found = {'finite_loss': loss, 'finite_gradients': metrics['finite_gradients'] | ~loss,
             **{f'finite_{name}': all_finite(part) | ~computed for name, part in parts.items()}}
    finite = jnp.stack([previous_finite, *found.values()]).all()
    state = jax.tree.map(lambda after, before: jnp.where(finite, after, before), new, old)
    return state, {**metrics, 'finite': finite, **found}


def compile_update(
    loss_fn: Callable, optimizer: optax.GradientTransformation, rate: optax.Schedule, mesh: Mesh,
    finish: Callable = lambda state, params, batch_stats: {'batch_stats': batch_stats},
) -> Callable:
    """Build `update(state, batch, shared, previous_finite=True) -> (state, metrics)` by the gradients of a loss.

    `batch` is a tuple of arrays whose rows are split over the devices, and `shared` the same for all rows. `state` is
    donated; it comes back as it was if anything is not finite, see `keep_if_finite`. Whoever launches a step before it
    has heard of the one before passes that one's 'finite' as `previous_finite`.

    Where there are several devices, each runs `loss_fn` on its own rows, and what they tell each other is written out:
    see `vididi_jax.collectives`. Gradients are summed over the devices once, in the dtype of the parameters. Left to
    the compiler, gradients were summed in bfloat16 on TPUs, and of each use of a parameter by itself.

    What it makes is compiled with options of its own, and so is not for use inside another `jax.jit` or `lax.scan`.

    Args:
      loss_fn: `(params, state, batch, shared) -> (loss, (metrics, kept))`, all of which are of the whole batch.
      optimizer, rate: the rate is only reported.
      mesh: the devices.
      finish: `(state, params, kept) -> {field: value}` of the new state beside step, parameters and optimiser; from the
        state before the step and the parameters after it.
    """

    def gradient(params, state: TrainState, batch, shared):
        def loss(params):
            return loss_fn(as_varying(params), state, batch, shared)

        return jax.value_and_grad(loss, has_aux=True)(params)

    if mesh.size > 1:
        whole, rows = PartitionSpec(), PartitionSpec(mesh.axis_names)
        gradient = jax.shard_map(gradient, mesh=mesh, in_specs=(whole, whole, rows, whole), out_specs=whole)

    @partial(jax.jit, compiler_options=compiler_options(platform(mesh)), donate_argnames='state')
    def update(
        state: TrainState, batch: tuple[jax.Array, ...], shared, previous_finite: jax.Array | np.bool_ = np.True_,
    ) -> tuple[TrainState, dict]:
        (loss, (metrics, kept)), grads = gradient(state.params, state, batch, shared)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        new = state.replace(step=state.step + 1, params=params, opt_state=opt_state, **finish(state, params, kept))
        metrics = {'loss': loss, **metrics, 'gradient_norm': optax.tree.norm(grads),
                   'learning_rate': rate(state.step), 'finite_gradients': all_finite(grads)}
        return keep_if_finite(new, metrics, state, previous_finite)

    return update
