"""What a config would do, without training: `--config.task=inspect`."""

import json
import time
from collections.abc import Iterator
from functools import partial
from math import prod

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from vididi_jax import schedule as schedules
from vididi_jax.config import flatten, to_dict
from vididi_jax.data.readers import free_memory
from vididi_jax.keys import root_key
from vididi_jax.models import create_encoder
from vididi_jax.pixels.augment import Augmentation
from vididi_jax.train import mesh as meshes
from vididi_jax.train.optimizer import build_optimizer, rate_and_optimizer
from vididi_jax.train.pretrain import describe, make_plan
from vididi_jax.train.processes import on_process_zero
from vididi_jax.train.state import build_networks, make_init
from vididi_jax.train.step import make_update, pixel_dtype, view_frames

TIMED, ENOUGH = 3, 20  # updates after a first one, unless so many seconds have gone by
SHARE = 0.8  # of the free memory, in which an update is tried


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


def longest_view(config) -> int:
    """Frames of the longest views that a step of `config` can get."""
    schedule = schedules.resolve(config.schedule)
    return max(view_frames(config.clip.frames, orders, config.clip.length)
               for phase in range(len(schedule.phases)) for orders in schedule.possible(phase))


def view_shape(config, frames: int) -> tuple[int, ...]:
    """(B, T, H, W, 3) of each view in an update."""
    size = config.augment.size
    return config.batch_size, frames, size, size, 3


def lower_update(config, mesh: Mesh, frames: int, total_steps: int) -> jax.stages.Lowered:
    """The update of a pretraining step for the devices of `mesh` and views of `frames` frames, ready to be compiled."""
    networks = build_networks(config, meshes.first_device(mesh))
    rate, optimizer = rate_and_optimizer(config, total_steps)
    whole = partial(shapes, sharding=meshes.replicated(mesh))
    view = jax.ShapeDtypeStruct(view_shape(config, frames), pixel_dtype(config.model))
    state = jax.eval_shape(make_init(config, networks, optimizer), jax.random.key(0))
    return make_update(networks, optimizer, rate, config, total_steps, mesh).lower(
        whole(state), shapes((view, view), meshes.split_over_batch(mesh)), np.zeros(2, np.int32),
        whole(jax.ShapeDtypeStruct((), bool)))


def shapes(tree, sharding):
    """A tree of arrays, or of their shapes, as shapes that are placed on devices."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)


def needed(update: jax.stages.Compiled) -> int:
    """Bytes of each device that an update needs at most, by its compiler; a CPU's peak has no temporaries in it."""
    found = update.memory_analysis()
    return max(found.peak_memory_in_bytes, found.argument_size_in_bytes + found.output_size_in_bytes
               - found.alias_size_in_bytes + found.temp_size_in_bytes)


def room(mesh: Mesh) -> float:
    """Bytes of a device that can still be had; CPUs share those of the machine."""
    device = mesh.local_devices[0]
    stats = device.memory_stats() or {}
    if 'bytes_limit' in stats:
        return stats['bytes_limit'] - stats['bytes_in_use']
    return free_memory() / len(mesh.local_devices)


def time_of(update: jax.stages.Compiled, config, mesh: Mesh, total_steps: int) -> str:
    """How long an update takes on these devices: the median of a few from a fresh state and random views."""
    optimizer = build_optimizer(config, total_steps)
    init = make_init(config, build_networks(config, meshes.first_device(mesh)), optimizer)
    rng = np.random.default_rng(0)
    shape, dtype = view_shape(config, longest_view(config)), pixel_dtype(config.model)
    views = meshes.to_devices(mesh, {name: rng.normal(size=shape).astype(dtype) for name in ('first', 'second')})
    seconds = []
    try:
        state = meshes.replicate(mesh, init(root_key(config.seed)))
        previous_finite = meshes.replicate(mesh, np.True_)
        while len(seconds) < 1 + TIMED and sum(seconds) < ENOUGH:
            start = time.perf_counter()
            state, _ = jax.block_until_ready(
                update(state, tuple(views.values()), np.zeros(2, np.int32), previous_finite))
            seconds.append(time.perf_counter() - start)
    except jax.errors.JaxRuntimeError as error:
        return f'time: no update can run here ({str(error).splitlines()[0]:.100})'
    found = float(np.median(seconds[1:] or seconds))  # the first one may prepare something
    device = mesh.devices.flat[0].device_kind
    return (f'time: {1e3 * found:,.0f} ms an update on {mesh.size} x {device}, {found * total_steps / 60:,.0f} minutes '
            f'for {total_steps:,}; reading, augmentation and health come on top')


def measure_update(config, mesh: Mesh, total_steps: int) -> Iterator[str]:
    """Lines that say what the longest update of a config takes, each as soon as it is known."""
    start = time.perf_counter()
    try:
        update = lower_update(config, mesh, longest_view(config), total_steps).compile()
    except jax.errors.JaxRuntimeError as error:  # compilers for TPUs say so themselves
        yield f'memory: no update can be compiled for these devices ({str(error).splitlines()[0]:.200})'
        return
    yield f'compiled in {time.perf_counter() - start:.0f} s'
    need, free = needed(update), room(mesh)
    yield (f'memory: at most {need / 1e9:,.2f} GB of each device in an update, '
           f'{update.memory_analysis().alias_size_in_bytes / 1e9:,.2f} GB of it the state')
    if need > SHARE * free:
        yield f'time: not measured, as {free / 1e9:,.2f} GB of each device are free'
    else:
        yield time_of(update, config, mesh, total_steps)


@on_process_zero
def run(config, workdir: str | None) -> None:
    """Print config, data, schedule, parameters, shapes, steps, operations, memory and time of a pretraining config."""
    del workdir  # nothing is written
    mesh = meshes.make_mesh()
    plan = make_plan(config, mesh)
    networks = build_networks(config, meshes.first_device(mesh))
    rate, optimizer = rate_and_optimizer(config, plan.total_steps)
    size, frames = Augmentation(**config.augment).size, longest_view(config)
    state = jax.eval_shape(make_init(config, networks, optimizer), root_key(config.seed))

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
        print('compiling an update ...', flush=True)
        for line in measure_update(config, mesh, plan.total_steps):
            print(line, flush=True)
