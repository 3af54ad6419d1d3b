"""Time of a whole pretraining step of a config on random clips, and of compiling it, for each length of the views.

python benchmarks/pretrain_step.py [--config=configs/motion_vicreg.py] [--rounds=10]

The first step of a length compiles: 'cold' without any compiled program, 'warm' with those of the cache on disk.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import numpy as np

from benchmarks.timing import check_rounds, interleave, summary
from vididi_jax import schedule as schedules
from vididi_jax.config import load_config
from vididi_jax.errors import UserError, one_sentence
from vididi_jax.models.build import compute_dtype
from vididi_jax.train.mesh import first_device, make_mesh
from vididi_jax.train.optimizer import rate_and_optimizer
from vididi_jax.train.state import build_networks, make_init
from vididi_jax.train.step import frames_to_read, make_train_step, view_frames


def clips_shape(config) -> tuple[int, ...]:
    """(B, 2, T, H, W, 3) of a batch as it is read; frames are as UCF101's, or as `crop='none'` wants them."""
    clip, size = config.clip, config.augment.size
    frames = frames_to_read(clip.frames, schedules.resolve(config.schedule).max_order, clip.length)
    return (config.batch_size, 2, frames, *((size, size) if config.augment.crop == 'none' else (128, 171)), 3)


def make_steps(config) -> dict[int, Callable]:
    """{frames of the views: a function that runs a step}."""
    mesh, total = make_mesh(), 1000  # steps of a run
    networks = build_networks(config, first_device(mesh))
    rate, optimizer = rate_and_optimizer(config, total)
    step = make_train_step(networks, optimizer, rate, config, total, mesh)
    clip, key = config.clip, jax.random.key(0)
    held = [make_init(config, networks, optimizer)(key)]
    highest = schedules.resolve(config.schedule).max_order
    shape = clips_shape(config)
    batch = {'clips': np.random.default_rng(0).integers(0, 256, shape, np.uint8),
             'size': np.tile(np.array(shape[3:5], np.int32), (config.batch_size, 1))}

    def run(orders):
        held[0], _ = jax.block_until_ready(step(held[0], batch, key, orders))

    every = [(order, order) for order in range(highest + 1)]
    return {view_frames(clip.frames, orders, clip.length): partial(run, orders) for orders in every}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--config', default='configs/motion_vicreg.py', help='FILE or FILE:VARIANT, of a pretraining')
    parser.add_argument('--rounds', type=int, default=10)
    arguments = parser.parse_args()
    check_rounds(arguments.rounds)
    config = load_config(arguments.config)
    if config.get('task') != 'pretrain':
        raise UserError(f'the task of {arguments.config} is {config.get("task")}: give a config whose task is '
                        'pretrain.')
    print(f'{arguments.config}: {config.model.name} of width {config.model.width}, {config.batch_size} videos, '
          f'{compute_dtype(config.model, first_device(make_mesh()))}, {jax.devices()[0].device_kind}, '
          f'jax {jax.__version__}', flush=True)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
    with tempfile.TemporaryDirectory() as folder:
        jax.config.update('jax_compilation_cache_dir', folder)
        steps = make_steps(config)
        first = []
        for _ in ('cold', 'warm'):
            jax.clear_caches()
            first.append(interleave(steps, 1, skip=0))  # the longest views come first: theirs compiles the augmentation
    for frames, seconds in interleave(steps, arguments.rounds).items():
        cold, warm = (found[frames][0] for found in first)
        print(f'{frames} frames: first step cold {cold:.1f} s, warm {warm:.1f} s; then {summary(seconds).strip()}')


if __name__ == '__main__':
    with one_sentence():
        main()
