"""Run by launch.py; process I writes lines to OUT/I: first the sha256 of eight global batches, as on the devices.

Then errors: of one that works for all, and of one among all.
"""

import argparse
import hashlib
from pathlib import Path

import jax
from jax.experimental import multihost_utils

from configs import motion_vicreg
from vididi_jax.data import pipeline
from vididi_jax.errors import UserError
from vididi_jax.train import mesh as meshes
from vididi_jax.train import pretrain, processes


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--data')
    parser.add_argument('--out', type=Path)
    parser.add_argument('--coordinator')
    parser.add_argument('--num_processes', type=int)
    parser.add_argument('--process_id', type=int)
    arguments = parser.parse_args()
    processes.join(False, arguments.coordinator, arguments.num_processes, arguments.process_id)
    print('joined', flush=True)
    config = motion_vicreg.get_config('smoke')
    config.data.dir, config.augment.size, config.batch_size = arguments.data, 16, 16
    mesh = meshes.make_mesh()
    task = pretrain.make_task(config, mesh)
    lines = []
    with pipeline.iterate(task.batches, workers=0) as batches:
        for _ in range(8):
            example = next(batches)
            placed = meshes.to_devices(mesh, {name: example[name] for name in ('clips', 'size', 'label', 'record')})
            whole = multihost_utils.process_allgather(placed, tiled=True)
            lines.append(hashlib.sha256(b''.join(value.tobytes() for value in jax.tree.leaves(whole))).hexdigest())
    for how in (processes.on_process_zero, processes.raise_together):
        try:
            lines.append(how(fail_in_one)())
        except UserError as error:
            lines.append(f'{how.__name__}: {error}')
    for seed in (0, jax.process_index()):
        try:
            processes.check_alike({'seed': seed, 'data.dir': arguments.out / str(jax.process_index())}, ('data',))
            lines.append('alike')
        except UserError as error:
            lines.append(f'check_alike: {error}')
    (arguments.out / str(jax.process_index())).write_text('\n'.join(lines))


def fail_in_one() -> str:
    if jax.process_index() == jax.process_count() - 1:
        raise UserError('The last one fails.')
    return f'made by {jax.process_index()}'


if __name__ == '__main__':
    main()
