"""The one training loop: checks first, then epochs of steps, with checkpoints, metrics and exact resumption.

What is trained is data: a `Task` says which batches, which state and which step.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import grain
import jax
import ml_collections
import numpy as np

from vididi_jax.config import flatten, to_dict
from vididi_jax.data import pipeline
from vididi_jax.errors import Stopped, UserError
from vididi_jax.keys import root_key
from vididi_jax.models.build import compute_dtype
from vididi_jax.provenance import commit
from vididi_jax.train import mesh as meshes
from vididi_jax.train.checkpoint import Checkpoints, checksums
from vididi_jax.train.debug import save_bundle
from vididi_jax.train.encoder import load_fitting_variables
from vididi_jax.train.metric_writer import check_logs
from vididi_jax.train.processes import check_alike, exit_if_peer_lost, is_first, locked_together, raise_together
from vididi_jax.train.progress import Progress, Times, falls_on
from vididi_jax.train.run import EACH_ITS_OWN, begun_from, check_same_run, settled, write_config
from vididi_jax.train.signals import after_step
from vididi_jax.train.state import AUGMENT, INIT, TrainState, with_encoder

LOOK = 0.002  # seconds between looks at what the devices do while a batch is waited for
IN_FLIGHT = 2  # steps that wait for the devices when this process hears of the one before them


class Task(NamedTuple):
    """What is trained.

    Attributes:
      description: printed first, on the data and the run.
      fingerprint: of the data; a run that resumes refuses other data.
      batches: the endless sequence of this process's rows of the batches; step i (from 0) gets element i.
      inputs: names of the arrays of a batch that go to the devices.
      steps_per_epoch: see `steps_per_epoch`.
      init: key -> fresh state, traceable; `config.init_from` then replaces its encoder.
      step: `(state, batch, key, orders, previous_finite) -> (state, metrics)`, scalars, with 'loss' and 'finite' among
        them, and 'finite_PART' where a part of the step can be named; `previous_finite` is 'finite' of the step before.
        A step that is not finite must return the state as it was, and so must all that follow one.
      orders: step -> derivative orders of that step's views.
      phases: names of the phases of a cycle; epoch e is of phase e mod their number. Losses of one phase do not compare
        with those of another, so the best checkpoint is that of the best cycle.
      probe_every: cycles between measurements of the state, 0 for none; see `is_probed`.
      make_probe: -> (state -> {name: value}), called once, before the first step.
      complete: batch -> the batch with what the records do not hold; called in this process, not in the workers.
    """

    description: str
    fingerprint: str
    batches: grain.MapDataset
    inputs: tuple[str, ...]
    steps_per_epoch: int
    init: Callable[[jax.Array], TrainState]
    step: Callable[..., tuple[TrainState, dict]]
    orders: Callable[[int], tuple[int, ...]]
    phases: tuple[str, ...]
    probe_every: int = 0
    make_probe: Callable[[], Callable[[TrainState], dict]] | None = None
    complete: Callable[[dict], dict] = dict


class Flight(NamedTuple):
    """A step that is under way, and what is saved of it if it is not finite, see `save_bundle`."""

    step: int
    orders: tuple[int, ...]
    key: jax.Array
    batch: dict[str, np.ndarray]
    metrics: dict[str, jax.Array]


def steps_per_epoch(config: ml_collections.ConfigDict, videos: int, origin: str) -> int:
    """Whole batches of `config.batch_size` in one pass over `videos` videos, which `origin` names in an error.

    Raises:
      UserError: not one batch.
    """
    if videos < config.batch_size:
        raise UserError(f'batch_size is {config.batch_size} and {origin} has {videos} usable videos: lower '
                        'config.batch_size.')
    return videos // config.batch_size


def run(
    config: ml_collections.ConfigDict, workdir: str | Path,
    make_task: Callable[[ml_collections.ConfigDict, jax.sharding.Mesh], Task],
) -> TrainState:
    """Train, or go on training, in `workdir`; returns the final state.

    Args:
      config: `seed`, `epochs`, `init_from`, `data.workers`, `checkpoint` and `log` are read here, the rest by the task.
      workdir: of the run.
      make_task: checks the config against the data and the devices, and raises `UserError` at the first thing that
        would go wrong.

    Raises:
      UserError: see `make_task`; also a workdir of another run, or a loss that is not finite.
    """
    mesh = meshes.make_mesh()

    @raise_together
    def checked() -> tuple[ml_collections.ConfigDict, Task, int]:
        known = settled(config, workdir)
        check_same_run(known, workdir)
        check_logs(config.log.to)
        task = make_task(known, mesh)
        return known, task, pipeline.number_of_workers(task.batches, config.data.workers)

    config, task, workers = checked()
    check_alike({**flatten(to_dict(config)), 'data': task.fingerprint}, free=EACH_ITS_OWN)
    total = config.epochs * task.steps_per_epoch
    with ExitStack() as held:
        held.enter_context(locked_together(workdir, 'choose another --workdir'))
        raise_together(check_same_run)(config, workdir)  # again: another may have begun there and ended meanwhile
        checkpoints = held.enter_context(Checkpoints(workdir, keep=config.checkpoint.keep))
        state, meta = restore_or_init(config, task, checkpoints, mesh)
        dtype = dtype_of(config, mesh)
        if 'begun_from' in meta:
            config = begun_from(config, meta['begun_from'])
        if is_first():
            write_config(config, workdir)
            print(task.description, flush=True)
            if meta['step']:
                print(f'resuming after step {meta["step"]} of {total}', flush=True)
            if meta['commits'] and meta['commits'][-1] != commit():
                print(f'its checkpoint was written by commit {meta["commits"][-1]}, and this is commit {commit()}')
            if (before := meta.get('dtype', dtype)) != dtype and meta['step'] < total:
                print(f'it was trained in {before}, and goes on in {dtype}, which model.dtype=auto is on these devices')
        if meta['step'] < total:
            signalled = held.enter_context(after_step())
            state, step = train(config, task, state, meta, checkpoints, mesh, Path(workdir), workers, signalled)
            if (number := signalled()) and step < total:
                raise Stopped(number, f' after step {step} of {total}: it is saved, and the same command goes on from '
                                      'there')
    if is_first():
        print(f'done: {total} steps, {config.epochs} epochs; checkpoints in {Path(workdir) / "checkpoints"}',
              flush=True)
    return state


def dtype_of(config, mesh) -> str:
    """What the activations are computed in here."""
    return str(compute_dtype(config.model, meshes.first_device(mesh)))


def restore_or_init(config, task: Task, checkpoints: Checkpoints, mesh) -> tuple[TrainState, dict]:
    """The state to go on from and its `meta`: the latest checkpoint, or step 0."""
    key = jax.random.fold_in(root_key(config.seed), INIT)
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=meshes.replicated(mesh)),
        jax.eval_shape(task.init, key))
    restored = checkpoints.restore_latest(abstract)
    if restored is not None:
        state, meta = restored
        if meta['data'] != task.fingerprint:
            raise UserError(f'the data in {config.data.dir} are not those of the run (their fingerprint differs from '
                            f'the one at step {meta["step"]}): set --config.data.dir to those, or start a new workdir.')
        if takes_parts(config) and meta.get('devices', mesh.size) != mesh.size:
            raise UserError(f'the run was on {meta["devices"]} device(s), and here are {mesh.size}: with '
                            "framework.scope=per_device the loss is one of each device's part of the batch: go on with "
                            'as many, or start a new workdir.')
        return state, {'commits': [], **meta}
    meta = {'step': 0, 'epoch_losses': [], 'data': task.fingerprint, 'commits': []}
    if not config.init_from:
        return meshes.replicate(mesh, task.init(key)), meta
    encoder, there = raise_together(load_fitting_variables)(  # before init, which compiles
        config.init_from, abstract.params['encoder'], config.init_checkpoint)
    check_alike({f'init_from {name}': value for name, value in checksums(encoder).items()}, free=())
    state = with_encoder(task.init(key), encoder)
    return meshes.replicate(mesh, state), meta | {'begun_from': str(there['step'])}


def takes_parts(config) -> bool:
    """Whether the loss is one of each device's part of the batch."""
    return 'framework' in config and config.framework.scope == 'per_device'


def train(
    config, task: Task, state: TrainState, meta: dict, checkpoints: Checkpoints, mesh, workdir: Path, workers: int,
    signalled: Callable[[], int | None],
) -> tuple[TrainState, int]:
    """The steps from `meta['step']` to the end, or to the one after which `signalled` says that a signal has come.

    The devices always have steps before them: of a step this process hears when `IN_FLIGHT` more are under way, or when
    the state is to be saved.

    Returns the state and its step.
    """
    augment_key, step_key = jax.random.fold_in(root_key(config.seed), AUGMENT), jax.jit(jax.random.fold_in)
    probe = task.make_probe() if task.probe_every else None
    first, cycle, total = meta['step'], len(task.phases), config.epochs * task.steps_per_epoch
    previous_finite = meshes.replicate(mesh, np.True_)
    flying: deque[Flight] = deque()
    reader = pipeline.iterate(task.batches[first:], workers=workers)
    with reader as batches, ExitStack() as files, exit_if_peer_lost():  # closed by an error, too
        def read() -> tuple[dict, dict]:
            """The arrays of the next batch, here and on the devices."""
            example = task.complete(next(batches))
            local = {name: example[name] for name in task.inputs}
            return local, meshes.to_devices(mesh, local)

        ahead = files.enter_context(ThreadPoolExecutor(1))
        coming = ahead.submit(read)
        progress = files.enter_context(Progress(config, task, workdir, meta))
        mark = time.perf_counter()
        for step in range(first, total):
            if step == first or step % task.steps_per_epoch == 0:
                progress.start_epoch(step)
            orders, key = task.orders(step), step_key(augment_key, step)
            waited = idle_until(coming, flying)
            local, placed = coming.result()
            state, metrics = task.step(state, placed, key, orders, previous_finite)
            previous_finite = metrics['finite']
            if step + 1 < total:
                coming = ahead.submit(read)  # while the devices compute
            flying.append(Flight(step + 1, orders, key, local, metrics))
            ends_epoch = (step + 1) % task.steps_per_epoch == 0
            signal = signalled()
            saves = ends_epoch or signal or falls_on(step + 1, config.checkpoint.every_steps)
            landing = [flying.popleft() for _ in range(len(flying) - (0 if saves else IN_FLIGHT))]
            launched = time.perf_counter()
            jax.block_until_ready([flight.metrics for flight in landing])
            landed = time.perf_counter()
            progress.launched(step + 1, Times(waited, landed - launched, landed - mark))
            mark = landed
            for flight in landing:
                if not flight.metrics['finite']:
                    stop(config, workdir, checkpoints, state, flight)
                measured = None
                if ends_epoch and flight is landing[-1]:
                    measured = probe(state) if is_probed(step // task.steps_per_epoch, cycle, task.probe_every) else {}
                    if not np.isfinite(list(measured.values())).all():
                        stop(config, workdir, checkpoints, state, flight._replace(metrics={
                            **measured, 'finite_embeddings': False}))
                progress.ended(flight.step, flight.orders, flight.metrics, measured)
            if ends_epoch:
                progress.end_epoch(workers)
            if saves:
                losses = progress.epoch_losses
                checkpoints.save(step + 1, state, {
                    'data': meta['data'], 'epoch_losses': losses, 'losses': progress.losses, 'devices': mesh.size,
                    'dtype': dtype_of(config, mesh), 'config': config.to_json_best_effort(),
                    'commits': list(dict.fromkeys([*meta['commits'], commit()]))},
                    float(np.mean(losses)) if ends_epoch and len(losses) == cycle else np.inf)
                mark = time.perf_counter()
            if signal:
                break
    return state, step + 1


def idle_until(coming: Future, flying: Sequence[Flight]) -> float:
    """Wait for the next batch; seconds of that in which all steps that are `flying` had landed, to some `LOOK`."""
    idle = None  # since when
    while not coming.done():
        if idle is None and (not flying or has_landed(flying[-1])):
            idle = time.perf_counter()
        wait([coming], timeout=LOOK if idle is None else None)
    return 0.0 if idle is None else time.perf_counter() - idle


def has_landed(flight: Flight) -> bool:
    """Whether the devices are through with a step."""
    return all(value.is_ready() for value in flight.metrics.values() if hasattr(value, 'is_ready'))


def is_probed(epoch: int, phases: int, every: int) -> bool:
    """Whether the state is measured at the end of `epoch`, from 0: in the first cycle and in every `every`-th.

    A cycle is measured at the end of each of its `phases` epochs, so every phase comes up, and the figures of one phase
    compare, as they are all of the same place. 0 is never.

    Example:
      >>> [epoch for epoch in range(16) if is_probed(epoch, phases=4, every=3)]
      [0, 1, 2, 3, 8, 9, 10, 11]
    """
    cycle = epoch // phases + 1
    return every > 0 and (cycle == 1 or cycle % every == 0)


def stop(config, workdir: Path, checkpoints: Checkpoints, state: TrainState, flight: Flight) -> None:
    """Saves a step that is not finite, or the state whose embeddings are not, and raises `UserError` naming what."""
    flight = flight._replace(metrics=jax.device_get(flight.metrics))
    folder = save_bundle(workdir, state=state, **flight._asdict())
    saved = checkpoints.steps()
    advice = 'lower config.optimizer.base_rate, or set config.optimizer.clip_norm'
    if saved and 'encoder' in config:  # a run of an evaluation, which knows neither a folder of its own nor init_from
        advice += ', under another --config.eval.name'
    elif saved:  # of this run, which goes on with its own config alone
        advice += (f', in another --workdir, which may begin with what was learned until step {saved[-1]}, '
                   f'--config.init_from={workdir}')
    raise UserError(
        f'at step {flight.step} (orders {flight.orders}) values that are not finite came up in '
        f'{", ".join(not_finite(flight.metrics))}: {advice}; the state, batch and key of this step are in {folder}.'
    )


def not_finite(metrics: dict) -> list[str]:
    """What went wrong: terms of the loss, else parts of the step. A loss that is not finite spoils all that follows.

    Example:
      >>> not_finite({'loss': 1.0, 'gradient_norm': 2.0, 'finite': False, 'finite_loss': True, 'finite_target': False})
      ['target']
    """
    terms = [name for name, value in metrics.items() if not np.isfinite(value)]
    parts = [name.removeprefix('finite_') for name, finite in metrics.items()
             if name.startswith('finite_') and not finite]
    return terms if 'loss' in parts else parts or terms
