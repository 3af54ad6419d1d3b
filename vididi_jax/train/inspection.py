"""What a config would do, without training: `--config.task=inspect`."""

import json
import time
from functools import partial
from math import prod

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from vididi_jax import schedule as schedules
from vididi_jax.config import flatten, to_dict
from vididi_jax.models import create_encoder
from vididi_jax.pixels.augment import Augmentation
from vididi_jax.train import mesh as meshes
from vididi_jax.train.optimizer import build_optimizer, learning_rate
from vididi_jax.train.pretrain import describe, make_plan
from vididi_jax.train.processes import by_first
from vididi_jax.train.state import build_networks, make_init
from vididi_jax.train.step import make_update


def parameter_table(params) -> list[tuple[str, str, int]]:
    """(path, shape, number of entries) of every parameter."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return [(jax.tree_util.keystr(path, simple=True, separator='/'), 'x'.join(map(str, leaf.shape)) or '1', leaf.size)
            for path, leaf in leaves]


def multiply_adds(jaxpr) -> int:
    """Multiply-adds of every convolution and matrix product of a jaxpr, those with padding's zeros included."""
    total = 0
    for equation in jaxpr.eqns:
        shapes = [variable.aval.shape for variable in equation.invars if hasattr(variable.aval, 'shape')]
        out = equation.outvars[0].aval
        if equation.primitive.name == 'conv_general_dilated':
            kernel_out = shapes[1][equation.params['dimension_numbers'].rhs_spec[0]]
            total += out.size * prod(shapes[1]) // kernel_out
        elif equation.primitive.name == 'dot_general':
            (contracted, _), _ = equation.params['dimension_numbers']
            total += out.size * prod(shapes[0][axis] for axis in contracted)
        for value in equation.params.values():
            inner = getattr(value, 'jaxpr', value)
            total += multiply_adds(inner) if hasattr(inner, 'eqns') else 0
    return total


def forward_flops(model, frames: int, size: int) -> int:
    """Operations (two a multiply-add, the literature's count) of the encoder of `config.model` on one clip."""
    encoder = create_encoder(model.name, width=model.width, conv_impl='xla')  # one convolution a layer
    clip = jax.ShapeDtypeStruct((1, frames, size, size, 3), jnp.float32)
    variables = jax.eval_shape(encoder.init, jax.random.key(0), clip)
    return 2 * multiply_adds(jax.make_jaxpr(lambda v, x: encoder.apply(v, x, train=False))(variables, clip).jaxpr)


def step_forwards(config) -> int:
    """What a step costs in forward passes: backward is two, BYOL's target and `model.remat` are one more each."""
    return 3 + (config.framework.loss == 'byol') + config.model.remat


def lower_update(config, mesh: Mesh, frames: int, total_steps: int) -> jax.stages.Lowered:
    """The update of a pretraining step for the devices of `mesh` and views of `frames` frames, ready to be compiled."""
    networks = build_networks(config, meshes.platform(mesh))
    rate, optimizer = (build(config, total_steps) for build in (learning_rate, build_optimizer))
    whole = partial(shapes, sharding=meshes.replicated(mesh))
    size = config.augment.size
    view = jax.ShapeDtypeStruct((config.batch_size, frames, size, size, 3), jnp.float32)
    state = jax.eval_shape(make_init(config, networks, optimizer), jax.random.key(0))
    return make_update(networks, optimizer, rate, config, total_steps, mesh).lower(
        whole(state), shapes((view, view), meshes.split_over_batch(mesh)), np.zeros(2, np.int32),
        whole(jax.ShapeDtypeStruct((), bool)))


def shapes(tree, sharding):
    """A tree of arrays, or of their shapes, as shapes that are placed on devices."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)


def memory_of_update(config, mesh: Mesh, total_steps: int) -> str:
    """What the longest update needs of a device, by its compiler, which this runs."""
    start = time.perf_counter()
    found = lower_update(config, mesh, config.clip.frames, total_steps).compile().memory_analysis()
    peak, state = (size / 1e9 for size in (found.peak_memory_in_bytes, found.alias_size_in_bytes))
    return (f'memory: at most {peak:,.2f} GB of each device in an update, {state:,.2f} GB of it the state (compiled in '
            f'{time.perf_counter() - start:.0f} s)')


@by_first
def run(config, workdir: str | None) -> None:
    """Print config, data, schedule, parameters, shapes, steps, operations and memory of a pretraining config."""
    del workdir  # nothing is written
    mesh = meshes.make_mesh()
    plan = make_plan(config, mesh)
    networks = build_networks(config, meshes.platform(mesh))
    settings = (config, plan.total_steps)
    optimizer, rate = build_optimizer(*settings), learning_rate(*settings)
    size, frames = Augmentation(**config.augment).size, config.clip.frames
    state = jax.eval_shape(make_init(config, networks, optimizer), jax.random.key(config.seed))

    print('config')
    for name, value in sorted(flatten(to_dict(config)).items()):
        print(f'  {name:34} {json.dumps(value)}')
    print('\n' + describe(plan, config, mesh))
    print(f'steps: {plan.steps_per_epoch} an epoch, {plan.total_steps} in all; learning rate '
          f'{float(rate(0)):.3g} at first, {float(rate(plan.total_steps - 1)):.3g} at last')
    print('\nschedule')
    for phase in range(len(plan.schedule.phases)):
        print(f'  phase {phase}: {schedules.describe_phase(plan.schedule, phase)}')
    first = plan.source[int(plan.videos[0])]
    print(f'\nrecord: {first.num_frames} frames of {first.height}x{first.width}, label {first.label}, id '
          f'{first.row["id"]!r}')
    print(f'batch: clips uint8 ({config.batch_size}, 2, {plan.frames}, height, width, 3), '
          f'views ({config.batch_size}, {frames} or fewer, {size}, {size}, 3)')

    print(f'\n{"parameter":68} {"shape":>16} {"entries":>12}')
    for name, shape, count in parameter_table(state.params):
        print(f'{name:68} {shape:>16} {count:12,}')
    for part, params in state.params.items():
        total = sum(leaf.size for leaf in jax.tree.leaves(params))
        print(f'{part} in all: {total:,} parameters')

    forward = forward_flops(config.model, frames, size)
    views, passes = 2 * config.batch_size, step_forwards(config)
    print(f'\noperations: {forward / 1e9:,.2f} GFLOP forward for a clip of {frames} frames; about '
          f'{passes * views * forward / 1e12:,.3f} TFLOP a step (as many as {passes} forward passes of {views} clips)')
    if jax.process_count() == 1:  # several would have to compile together
        print('memory: compiling an update ...', flush=True)
        print(memory_of_update(config, mesh, plan.total_steps))
