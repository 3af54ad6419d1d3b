"""Pretraining on pairs of clips: an epoch is one phase of the schedule of derivative orders."""

from pathlib import Path
from typing import NamedTuple

import jax
import ml_collections
import numpy as np

from vididi_jax import schedule as schedules
from vididi_jax.data import clips, pipeline
from vididi_jax.data.source import RecordSource
from vididi_jax.errors import UserError
from vididi_jax.fields import check_fields
from vididi_jax.models import LEAST_FRAMES
from vididi_jax.models.build import compute_dtype
from vididi_jax.pixels.augment import Augmentation
from vididi_jax.train import loop
from vididi_jax.train import mesh as meshes
from vididi_jax.train.checkpoint import trained_data
from vididi_jax.train.health import Probe
from vididi_jax.train.optimizer import rate_and_optimizer
from vididi_jax.train.state import TrainState, build_networks, make_init
from vididi_jax.train.step import check_framework, frames_to_read, make_train_step, view_frames


class Plan(NamedTuple):
    """What a config and its data fix before the first step."""

    schedule: schedules.Schedule
    orders: list[list[schedules.Orders]]  # see `schedules.run_orders`
    source: RecordSource
    videos: np.ndarray
    frames: int  # of the clips that are read
    steps_per_epoch: int
    total_steps: int


def trained_source(config, workdir: str | Path, directory: str = '') -> RecordSource:
    """The data that the run of `config` in `workdir` was trained on, which lie in `directory` if they were moved.

    Raises:
      UserError: they are not there, or are others by now.
    """
    source = RecordSource(directory or config.data.dir, config.data.split)
    if trained_data(workdir) not in (None, source.fingerprint):
        raise UserError(f'the data in {source.directory} are not those that {workdir} was trained on: set '
                        'config.data.dir to where they lie.')
    return source


def used_videos(config, source: RecordSource) -> np.ndarray:
    """The records of `source` that a run of `config` trains on; raises `UserError` as `clips.usable_videos`."""
    frames = frames_to_read(config.clip.frames, schedules.resolve(config.schedule).max_order, config.clip.length)
    needed = clips.frames_needed(frames, config.clip.stride, config.clip.placement)
    return clips.usable_videos(source.num_frames, needed, config.clip.short_video)


def make_plan(config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh) -> Plan:
    """Check a config against its data and the devices.

    Raises:
      UserError: the first thing that would go wrong, before any expensive work.
    """
    check_fields(config)
    meshes.check_batch_size(config.batch_size, mesh)
    check_framework(config.framework)
    if config.optimizer.predictor_rate != 1 and not config.framework.predictor:
        raise UserError(f'optimizer.predictor_rate is {config.optimizer.predictor_rate}, and framework.loss '
                        f'{config.framework.loss!r} has no predictor: set it to 1.')
    if config.init_checkpoint != 'latest' and not config.init_from:
        raise UserError(f'init_checkpoint is {config.init_checkpoint!r}, and init_from is empty: give it the workdir '
                        'whose checkpoint that is.')
    if config.framework.scope == 'per_device' and config.batch_size < 2 * mesh.size:
        raise UserError(f"framework.scope is 'per_device', and a batch_size of {config.batch_size} leaves one video to "
                        f'each of {mesh.size} devices: set config.batch_size to at least {2 * mesh.size}.')
    schedule = schedules.resolve(config.schedule)
    if config.clip.length == 'shrink' and config.clip.frames <= schedule.max_order:
        raise UserError(f'clips of {config.clip.frames} frames have no derivative of order {schedule.max_order}, which '
                        f'schedule {config.schedule!r} asks for: raise config.clip.frames.')
    shortest = view_frames(config.clip.frames, (schedule.max_order,) * 2, config.clip.length)
    least = LEAST_FRAMES.get(config.model.name, 1)
    if shortest < least:
        raise UserError(f'{config.model.name} takes clips of at least {least} frames, and views of order '
                        f'{schedule.max_order} have {shortest}: raise config.clip.frames'
                        + (', or set config.clip.length to constant.' if config.clip.length == 'shrink' else '.'))
    source = RecordSource(config.data.dir, config.data.split)
    frames = frames_to_read(config.clip.frames, schedule.max_order, config.clip.length)
    clips.check_stride(source.num_frames, config.clip.stride, 'clip.stride')
    videos = used_videos(config, source)
    Augmentation(**config.augment).check_frames(*source.sizes[videos].T)
    steps = loop.steps_per_epoch(config, len(videos), f'split {config.data.split!r} of {config.data.dir}')
    orders = schedules.run_orders(schedule, config.seed, config.epochs, steps)
    return Plan(schedule, orders, source, videos, frames, steps, steps * config.epochs)


def describe(plan: Plan, config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh) -> str:
    """One line on the data and one on the run."""
    counts, device = plan.source.counts, meshes.first_device(mesh)
    needed = clips.frames_needed(plan.frames, config.clip.stride, config.clip.placement)
    short = int((plan.source.num_frames < needed).sum())
    return (
        f'data: {len(plan.videos):,} videos used of {counts["listed"]:,} listed in split {config.data.split!r} of '
        f'{plan.source.name} ({counts["missing"]:,} missing, {counts["broken"]:,} broken; {short:,} shorter than '
        f'{needed} frames: {config.clip.short_video}{pipeline.describe_partly_seen(plan.source, plan.videos)})\n'
        f'run: {config.epochs} epochs x {plan.steps_per_epoch} steps of {config.batch_size} videos on '
        f'{mesh.size} {device.platform} device(s), {config.model.name} of width {config.model.width} in '
        f'{compute_dtype(config.model, device)}, schedule {config.schedule}, seed {config.seed}'
    )


def make_task(config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh) -> loop.Task:
    """Pretraining as the loop takes it; raises as `make_plan`."""
    plan = make_plan(config, mesh)
    networks = build_networks(config, meshes.first_device(mesh))
    rate, optimizer = rate_and_optimizer(config, plan.total_steps)
    return loop.Task(
        description=describe(plan, config, mesh),
        fingerprint=plan.source.fingerprint,
        batches=pipeline.training_stream(
            plan.source, plan.videos, length=plan.frames, stride=config.clip.stride, placement=config.clip.placement,
            batch_size=config.batch_size, seed=config.seed, rows=meshes.rows_here(mesh, config.batch_size)),
        inputs=('clips', 'size'),
        steps_per_epoch=plan.steps_per_epoch,
        init=make_init(config, networks, optimizer),
        step=make_train_step(networks, optimizer, rate, config, plan.total_steps, mesh),
        orders=lambda step: plan.orders[step // plan.steps_per_epoch][step % plan.steps_per_epoch],
        phases=tuple(f'phase {number}: {schedules.describe_phase(plan.schedule, number)}'
                     for number in range(len(plan.schedule.phases))),
        probe_every=config.health.every_cycles,
        make_probe=lambda: Probe(config, networks, plan.source, plan.videos, mesh).measure,
    )


def run(config: ml_collections.ConfigDict, workdir: str) -> TrainState:
    """Pretrain, or go on pretraining, in `workdir`; returns the final state. Raises as `make_plan` and `loop.run`."""
    return loop.run(config, workdir, make_task)
