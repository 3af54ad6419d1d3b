"""Pretraining: checks first, then epochs of one phase each, a checkpoint at the end of each."""

import logging
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import ml_collections
import numpy as np
from tqdm import tqdm

from vididi_jax import schedule as schedules
from vididi_jax.augment import Augmentation
from vididi_jax.config import check_same_run, write_config
from vididi_jax.data import clips, pipeline
from vididi_jax.data.source import RecordSource
from vididi_jax.errors import UserError
from vididi_jax.train import mesh as meshes
from vididi_jax.train.checkpoint import Checkpoints, load_encoder_variables
from vididi_jax.train.debug import save_bundle
from vididi_jax.train.health import Probe
from vididi_jax.train.metrics import MetricsWriter
from vididi_jax.train.optimizer import build_optimizer, learning_rate
from vididi_jax.train.state import TrainState, build_networks, compute_dtype, init_state, with_encoder
from vididi_jax.train.step import check_framework, frames_to_read, make_train_step

logger = logging.getLogger(__name__)

INIT, AUGMENT = range(2)  # tags that split the keys of one seed by what they are for; the schedule has its own


class Plan(NamedTuple):
    """What a config and its data fix before the first step."""

    schedule: schedules.Schedule
    source: RecordSource
    videos: np.ndarray
    frames: int  # of the clips that are read
    steps_per_epoch: int
    total_steps: int


def make_plan(config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh) -> Plan:
    """Check a config against its data and the devices.

    Raises:
      UserError: the first thing that would go wrong, before any expensive work.
    """
    meshes.check_batch_size(config.batch_size, mesh)
    check_framework(config.framework)
    schedule = schedules.resolve(config.schedule)
    if config.clip.length not in ('shrink', 'constant'):
        raise UserError(f'clip.length is {config.clip.length!r}: choose shrink or constant.')
    if config.clip.length == 'shrink' and config.clip.frames <= schedule.max_order:
        raise UserError(f'clips of {config.clip.frames} frames have no derivative of order {schedule.max_order}, which '
                        f'schedule {config.schedule!r} asks for: raise config.clip.frames.')
    if config.epochs < 1:
        raise UserError(f'epochs is {config.epochs}: it must be at least 1.')
    source = RecordSource(config.data.dir, config.data.split)
    frames = frames_to_read(config.clip.frames, schedule.max_order, config.clip.length)
    needed = clips.frames_needed(frames, config.clip.stride, config.clip.placement)
    Augmentation(**config.augment).check_frames(*([row[side] for row in source.rows] for side in ('height', 'width')))
    num_frames = np.array([row['frames'] for row in source.rows])
    videos = clips.usable_videos(num_frames, needed, config.clip.short_video)
    if len(videos) < config.batch_size:
        raise UserError(f'batch_size is {config.batch_size} and {config.data.dir} has {len(videos)} usable videos in '
                        f'split {config.data.split!r}: lower config.batch_size.')
    steps = len(videos) // config.batch_size
    return Plan(schedule, source, videos, frames, steps, steps * config.epochs)


def describe(plan: Plan, config: ml_collections.ConfigDict) -> str:
    """One line on the data and one on the run."""
    counts = plan.source.counts
    needed = clips.frames_needed(plan.frames, config.clip.stride, config.clip.placement)
    short = sum(row['frames'] < needed for row in plan.source.rows)
    return (
        f'data: {len(plan.videos):,} videos used of {counts["listed"]:,} listed in split {config.data.split!r} of '
        f'{plan.source.name} ({counts["missing"]:,} missing, {counts["broken"]:,} broken; {short:,} shorter than '
        f'{needed} frames: {config.clip.short_video})\n'
        f'run: {config.epochs} epochs x {plan.steps_per_epoch} steps of {config.batch_size} videos on '
        f'{jax.device_count()} {jax.default_backend()} device(s), {config.model.name} of width {config.model.width} in '
        f'{compute_dtype(config.model)}, schedule {config.schedule}, seed {config.seed}'
    )


def restore_or_init(config, plan: Plan, networks, optimizer, checkpoints: Checkpoints, mesh) -> tuple[TrainState, dict]:
    """The state to go on from and its `meta`: the latest checkpoint, or step 0."""
    size = Augmentation(**config.augment).size
    start = partial(init_state, networks, optimizer, clip_shape=(config.clip.frames, size, size))
    key = jax.random.fold_in(jax.random.key(config.seed), INIT)
    fingerprint = plan.source.fingerprint
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=meshes.replicated(mesh)),
        jax.eval_shape(start, key))
    restored = checkpoints.restore_latest(abstract)
    if restored is not None:
        state, meta = restored
        if meta['data'] != fingerprint:
            raise UserError(f'the data in {config.data.dir} changed since the checkpoint of step {meta["step"]} was '
                            'written: restore the data, or start a new workdir.')
        checkpoints.discard_after(meta['step'])
        return state, meta
    state = start(key)
    if config.init_from:
        variables, _ = load_encoder_variables(config.init_from)
        check_same_shapes(state.params['encoder'], variables['params'], config.init_from)
        state = with_encoder(state, variables)
    return meshes.replicate(mesh, state), {'step': 0, 'epoch_losses': [], 'data': fingerprint}


def check_same_shapes(expected, given, origin: str) -> None:
    """Raises `UserError` naming the first parameter of `given` that does not fit."""
    shapes = [{jax.tree_util.keystr(path, simple=True, separator='/'): leaf.shape
               for path, leaf in jax.tree_util.tree_leaves_with_path(tree)} for tree in (expected, given)]
    for name in sorted(shapes[0].keys() | shapes[1].keys()):
        here, there = (s.get(name, 'absent') for s in shapes)
        if here != there:
            raise UserError(f'the encoder of {origin} does not fit this config ({name} is {there} there and {here} '
                            'here): set config.model to what it was trained with.')


def run(config: ml_collections.ConfigDict, workdir: str) -> TrainState:
    """Train, or go on training, in `workdir`; returns the final state.

    Raises:
      UserError: see `make_plan`; also a workdir of another run, or a loss that is not finite.
    """
    mesh = meshes.make_mesh()
    check_same_run(config, workdir)
    plan = make_plan(config, mesh)
    networks = build_networks(config)
    rate = learning_rate(config, plan.total_steps)
    optimizer = build_optimizer(config, plan.total_steps)
    first_process = jax.process_index() == 0
    with Checkpoints(workdir, keep=config.checkpoint.keep) as checkpoints:
        state, meta = restore_or_init(config, plan, networks, optimizer, checkpoints, mesh)
        if first_process:
            write_config(config, workdir)
            print(describe(plan, config), flush=True)
            if meta['step']:
                print(f'resuming after step {meta["step"]} of {plan.total_steps}', flush=True)
        train_step = make_train_step(networks, optimizer, rate, config, plan.total_steps)
        if meta['step'] < plan.total_steps:
            state = train(config, plan, networks, train_step, state, meta, checkpoints, mesh, Path(workdir))
    if first_process:
        print(f'done: {plan.total_steps} steps, {config.epochs} epochs; checkpoints in '
              f'{Path(workdir) / "checkpoints"}', flush=True)
    return state


def train(config, plan: Plan, networks, train_step, state, meta: dict, checkpoints: Checkpoints, mesh, workdir: Path):
    """The steps from `meta['step']` to the end."""
    augment_key = jax.random.fold_in(jax.random.key(config.seed), AUGMENT)
    orders_key = schedules.schedule_key(config.seed)
    stream = pipeline.training_stream(
        plan.source, plan.videos, length=plan.frames, stride=config.clip.stride, placement=config.clip.placement,
        batch_size=config.batch_size, seed=config.seed, process=jax.process_index(), processes=jax.process_count())
    probe = Probe(config, networks, plan.source, plan.videos, mesh) if config.health.every_steps else None
    first = meta['step']
    losses = list(meta.get('losses', []))  # of the steps of a phase that a checkpoint cut in two
    epoch_losses = list(meta['epoch_losses'])
    reader = pipeline.iterate(stream[first:], workers=config.data.workers)
    with MetricsWriter(workdir, first) as writer, reader as batches:
        bar = None
        for step in range(first, plan.total_steps):
            epoch = step // plan.steps_per_epoch
            phase = epoch % len(plan.schedule.phases)
            if bar is None:
                bar = start_phase(plan, config, epoch, step)
            orders = schedules.view_orders(plan.schedule, epoch, jax.random.fold_in(orders_key, step))
            example = next(batches)
            local = {name: example[name] for name in ('clips', 'size')}
            key = jax.random.fold_in(augment_key, step)
            state, metrics = train_step(state, meshes.to_devices(mesh, local), key, orders)
            metrics = jax.device_get(metrics)
            if not metrics['finite']:
                stop(workdir, step + 1, state=state, batch=local, key=key, orders=orders, metrics=metrics)
            losses.append(float(metrics['loss']))
            bar.update()
            bar.set_postfix_str(f'loss {losses[-1]:.4f}')
            ends_phase = (step + 1) % plan.steps_per_epoch == 0
            checked = probe is not None and (step + 1) % config.health.every_steps == 0
            if ends_phase or checked or (step + 1) % config.log.every_steps == 0:
                writer.write({'step': step + 1, 'epoch': epoch, 'phase': phase, 'orders': list(orders),
                              **{name: float(value) for name, value in metrics.items() if name != 'finite'},
                              **(probe.measure(state) if checked else {})})
            if ends_phase:
                bar.close()
                bar = None
                epoch_losses = [*epoch_losses, float(np.mean(losses))][-len(plan.schedule.phases):]
                losses = []
            every = config.checkpoint.every_steps
            if ends_phase or (every and (step + 1) % every == 0):
                # Losses of different phases do not compare, so the best checkpoint is that of the best cycle.
                mean = float(np.mean(epoch_losses)) if len(epoch_losses) == len(plan.schedule.phases) else np.inf
                checkpoints.save(step + 1, state, {
                    'data': meta['data'], 'epoch_losses': epoch_losses, 'losses': losses,
                    'next_batch': step + 1, 'config': config.to_json_best_effort()}, mean)
    return state


def start_phase(plan: Plan, config, epoch: int, step: int) -> tqdm:
    """Name the phase of an epoch and its orders, and open its progress bar."""
    number = epoch % len(plan.schedule.phases)
    quiet = jax.process_index() != 0
    if not quiet:
        print(f'epoch {epoch + 1}/{config.epochs} phase {number}: {schedules.describe_phase(plan.schedule, number)}',
              flush=True)
    done = step - epoch * plan.steps_per_epoch
    return tqdm(total=plan.steps_per_epoch, initial=done, unit='step', leave=False, disable=quiet, dynamic_ncols=True)


def stop(workdir: Path, step: int, *, metrics: dict, orders: tuple[int, int], **bundle) -> None:
    """Saves what repeats a step whose loss or gradient is not finite, and raises `UserError` naming the term."""
    folder = save_bundle(workdir, step, metrics=metrics, orders=orders, **bundle)
    names = [name for name, value in metrics.items() if name != 'finite' and not np.isfinite(value)]
    raise UserError(
        f'at step {step} (orders {orders}) {", ".join(names) or "a gradient"} is not finite: lower '
        'config.optimizer.base_rate, or set config.optimizer.clip_norm; the last checkpoint is intact, and the state, '
        f'batch and key of this step are in {folder}.'
    )
