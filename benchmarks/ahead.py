"""Compile a config's pretraining step for accelerators that are not here, and print what their compilers say of it.

python benchmarks/ahead.py --target=v5e:2x4 --config=configs/ucf101_vicreg.py [--config.FIELD=VALUE ...]

Targets are TPUs by their topology (v5e:1x1, v6e:2x4, v4:2x2x1, v5p:2x2x2), or GPUs by their number and the file of
benchmarks/ that describes them (h100:1, h100:8 for h100.txtpb). No device is needed, only its compiler, here for jax V:

  TPU: pip install "jax[tpu]==V"
  GPU: pip install jax-cuda12-plugin==V jax-cuda12-pjrt==V nvidia-cuda-nvcc-cu12 nvidia-cuda-nvrtc-cu12
           nvidia-cuda-runtime-cu12 nvidia-cuda-cupti-cu12 nvidia-nvjitlink-cu12

For each program of the step: seconds of compiling; memory of a device; operations, and bytes that go through its
memory, as far as the compiler counts them; collectives, with their number, bytes a device and the largest; custom
calls; and whether the outputs lie where the next program wants them. A GPU's numbers are without cuDNN's workspace and
without autotuning, which needs the device.
"""

import collections
import importlib.util
import json
import os
import re
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ['JAX_PLATFORMS'] = 'cpu'  # what is computed here, a few keys, needs no accelerator
os.environ['TPU_SKIP_MDS_QUERY'] = '1'  # the compiler shall not ask the cloud which chips this machine has
os.environ.setdefault('TPU_ACCELERATOR_TYPE', 'v5litepod-8')  # of any kind: it is asked for, and the topology counts
os.environ.setdefault('TPU_WORKER_HOSTNAMES', 'localhost')
os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')  # several at a time, as none opens a chip
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')  # compilers that say how long they take

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from jax.experimental import topologies
from jax.sharding import Mesh

from benchmarks.hlo import bytes_by_layer, collectives, cycles_by_layer
from benchmarks.pretrain_step import clips_shape
from vididi_jax.errors import UserError, one_sentence
from vididi_jax.flags import define_config_flag, parse_flags
from vididi_jax.pixels.augment import Augmentation
from vididi_jax.tasks import TASKS, choose_task
from vididi_jax.train import mesh as meshes
from vididi_jax.train.inspection import lower_update, shapes
from vididi_jax.train.step import augment_views, differentiate_views, view_frames

CONFIG = define_config_flag()
TARGET = flags.DEFINE_string('target', None, 'KIND:TOPOLOGY of a TPU, or KIND:NUMBER of GPUs.', required=True)
flags.mark_flag_as_required('config')
ORDERS = flags.DEFINE_list('orders', ['0', '0'], 'Derivative orders of the two views.')
PROGRAMS = flags.DEFINE_list('programs', ['augment', 'differentiate', 'update'], 'Which to compile.')
RECORD = flags.DEFINE_string('record', None, 'JSON file for the figures that benchmarks/ahead_all.py compares.')
BY_LAYER = flags.DEFINE_bool('by_layer', False, 'Print bytes and cycles of each part of the encoder; of TPUs.')
KEEP = flags.DEFINE_string('keep', None, 'Folder for the optimised HLO of each program.')

TPUS = {'v4': {'chip_config_name': 'megacore'}, 'v5p': {'chip_config_name': 'megacore'}, 'v5e': {}, 'v6e': {}}
HOST = (2, 2, 1)  # most chips of a host, along each axis
STEPS = 1000  # of the run; any number
COSTS = {'flops': 'GFLOP', 'bytes accessed': 'GB read and written'}  # what a compiler may count


def check_installed(target: str, module: str, packages: str) -> None:
    """Raises `UserError` if a compiler is not there."""
    if importlib.util.find_spec(module) is None:
        raise UserError(f'--target={target} needs a compiler that is not installed: pip install {packages}.')


def target_mesh(target: str) -> Mesh:
    """The devices of a target, described and not there; raises `UserError` for one that cannot be."""
    kind, _, shape = target.partition(':')
    file = Path(__file__).with_name(f'{kind}.txtpb')
    if not re.fullmatch(r'\d+(x\d+)*', shape) or not (kind in TPUS or file.is_file()):
        raise UserError(f'--target is {target!r}: give a TPU ({", ".join(TPUS)}) and its topology, such as v5e:2x4, or '
                        'a GPU that a file of benchmarks/ describes and a number, such as h100:8.')
    version = jax.__version__
    if kind in TPUS:
        check_installed(target, 'libtpu', f'"jax[tpu]=={version}"')
        chips = (*map(int, shape.split('x')), 1, 1)[:3]
        options = dict(platform='tpu', topology_name=target, **TPUS[kind],
                       chips_per_host_bounds=tuple(map(min, chips, HOST)))
    else:
        check_installed(target, 'jax_cuda12_plugin', f'jax-cuda12-plugin=={version} jax-cuda12-pjrt=={version} and the '
                        'others that benchmarks/ahead.py --help names')
        options = dict(platform='cuda', topology_name='', topology=f'1x1x{shape}',
                       target_config=file.read_text(encoding='utf-8'))
    try:
        return Mesh(np.asarray(topologies.get_topology_desc(**options).devices), ('data',))
    except jax.errors.JaxRuntimeError as error:
        raise UserError(f'the compiler knows no devices {target!r} ({str(error).splitlines()[0]}).') from error


def lower_step(config, mesh: Mesh, orders: tuple[int, int]) -> dict:
    """{program: (what lowers to it, the sharding that its outputs should have)}, in the order in which a step runs."""
    whole, split = meshes.replicated(mesh), meshes.split_over_batch(mesh)
    key = shapes(jax.eval_shape(jax.random.key, 0), whole)
    clips, sizes = (shapes(jax.ShapeDtypeStruct(shape, dtype), split)
                    for shape, dtype in ((clips_shape(config), jnp.uint8), ((config.batch_size, 2), jnp.int32)))
    augment = augment_views.lower(key, clips, sizes, spec=Augmentation(**config.augment), dtype=jnp.float32)
    frames = view_frames(config.clip.frames, orders, config.clip.length)
    differentiate = differentiate_views.lower(*shapes(augment.out_info, split), orders=orders, frames=frames)
    return {'augment': (augment, split), 'differentiate': (differentiate, split),
            'update': (lower_update(config, mesh, frames, STEPS), whole)}


def misplaced(lowered, compiled, sharding) -> list[str]:
    """Outputs that the compiler did not leave where the next program wants them."""
    leaves = jax.tree_util.tree_leaves_with_path(lowered.out_info)
    return [f'{jax.tree_util.keystr(path)}: {found.spec}'
            for (path, leaf), found in zip(leaves, jax.tree.leaves(compiled.output_shardings), strict=True)
            if not found.is_equivalent_to(sharding, len(leaf.shape))]


def report(name: str, lowered, sharding, options: dict) -> dict[str, float]:
    """Compile and print; what a change must not raise, of one device."""
    start = time.perf_counter()
    compiled = lowered.compile(compiler_options=options)
    seconds = time.perf_counter() - start
    memory = compiled.memory_analysis()
    parts = ', '.join(f'{part} {getattr(memory, f"{part}_size_in_bytes") / 1e6:,.1f}'
                      for part in ('argument', 'output', 'alias', 'temp'))
    costs = compiled.cost_analysis() or {}
    counted = ''.join(f'; {costs[cost] / 1e9:,.1f} {unit} a device' for cost, unit in COSTS.items() if costs.get(cost))
    print(f'{name}: compiled in {seconds:.0f} s; MB a device: peak {memory.peak_memory_in_bytes / 1e6:,.1f} ({parts})'
          + counted)
    program = compiled.as_text()
    if KEEP.value:
        Path(KEEP.value).mkdir(parents=True, exist_ok=True)
        (Path(KEEP.value) / f'{name}.hlo').write_text(program, encoding='utf-8')
    exchanges = collectives(program)
    for (kind, dtypes), found in sorted(exchanges.items()):
        size, shape, origin = max(found)
        print(f'  {len(found)} {kind} of {dtypes}, {sum(bytes for bytes, *_ in found) / 1e6:,.3f} MB; the largest '
              f'{size / 1e6:,.3f} MB: {shape} {origin}')
    calls = collections.Counter(re.findall(r'custom_call_target="([^"]*)"', program))
    if calls:
        print('  custom calls: ' + ', '.join(f'{count} {call}' for call, count in calls.most_common()))
    wrong = misplaced(lowered, compiled, sharding)
    if wrong:
        print(f'  {len(wrong)} outputs lie elsewhere than the next program wants them: {"; ".join(wrong[:5])}')
    if BY_LAYER.value:
        sizes, cycles = bytes_by_layer(program), cycles_by_layer(program)
        print('  forward and backward, GB, and millions of cycles as the compiler estimates them, in all '
              f'{sum(map(sum, cycles.values())) / 1e6:,.1f}:')
        for layer in sorted(sizes | cycles):
            numbers = *(size / 1e9 for size in sizes.get(layer, (0, 0))), *(n / 1e6 for n in cycles.get(layer, (0, 0)))
            print(f'  {layer:16}', *(f'{number:8.2f}' for number in numbers))
    sys.stdout.flush()
    sizes = [size for found in exchanges.values() for size, *_ in found]
    moved = {'moved, GB': round(costs['bytes accessed'] / 1e9, 2)} if costs.get('bytes accessed') else {}
    return {'peak, MB': round(memory.peak_memory_in_bytes / 1e6), **moved, 'collectives': len(sizes),
            'exchanged, MB': round(sum(sizes) / 1e6, 2)}


@one_sentence()
def main(_) -> None:
    config = CONFIG.value
    choose_task(config, {'pretrain': TASKS['pretrain']})
    mesh = target_mesh(TARGET.value)
    meshes.check_batch_size(config.batch_size, mesh)
    lowered = lower_step(config, mesh, tuple(map(int, ORDERS.value)))
    unknown = set(PROGRAMS.value) - set(lowered)
    if unknown:
        raise UserError(f'--programs has {", ".join(sorted(unknown))}: choose of {", ".join(lowered)}.')
    print(f'{TARGET.value}: {mesh.size} x {mesh.devices.flat[0].device_kind}, jax {jax.__version__}; '
          f'{config.model.name} of width {config.model.width}, {config.framework.loss}, {config.batch_size} videos, '
          f'{config.augment.size} pixels, orders {",".join(ORDERS.value)}', flush=True)
    options = {'xla_gpu_autotune_level': '0'} if meshes.platform(mesh) == 'gpu' else {}
    figures = {name: report(name, *lowered[name], options) for name in PROGRAMS.value}
    if RECORD.value:
        Path(RECORD.value).write_text(json.dumps(figures), encoding='utf-8')


if __name__ == '__main__':
    app.run(main, flags_parser=parse_flags)
