"""The one training loop: checks first, then epochs of steps, with checkpoints, metrics and exact resumption.

What is trained is data: a `Task` says which batches, which state and which step.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import grain
import jax
import ml_collections
import numpy as np
from tqdm import tqdm

from vididi_jax.data import pipeline
from vididi_jax.errors import Stopped, UserError
from vididi_jax.lock import locked
from vididi_jax.train import mesh as meshes
from vididi_jax.train.checkpoint import Checkpoints
from vididi_jax.train.debug import save_bundle
from vididi_jax.train.encoder import load_fitting_variables
from vididi_jax.train.metric_writer import MetricsWriter
from vididi_jax.train.processes import bereaved, everywhere, is_first
from vididi_jax.train.run import check_same_run, write_config
from vididi_jax.train.signals import after_step
from vididi_jax.train.state import AUGMENT, INIT, TrainState, with_encoder

TOLERATED_WAIT = 0.05  # share of its steps that an epoch may wait for data without a word


class Task(NamedTuple):
    """What is trained.

    Attributes:
      description: printed first, on the data and the run.
      fingerprint: of the data; a run that resumes refuses other data.
      batches: the endless sequence of this process's rows of the batches; step i (from 0) gets element i.
      inputs: names of the arrays of a batch that go to the devices.
      steps_per_epoch: see `steps_per_epoch`.
      init: key -> fresh state, traceable; `config.init_from` then replaces its encoder.
      step: `(state, batch, key, orders) -> (state, metrics)`, scalars, with 'loss' and 'finite' among them, and
        'finite_PART' where a part of the step can be named; a step that is not finite must return the state as it was.
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

    @everywhere
    def checked() -> tuple[Task, int]:
        check_same_run(config, workdir)
        task = make_task(config, mesh)
        return task, pipeline.number_of_workers(task.batches, config.data.workers)

    task, workers = checked()
    total = config.epochs * task.steps_per_epoch
    with ExitStack() as held:
        everywhere(hold)(held, workdir)
        checkpoints = held.enter_context(Checkpoints(workdir, keep=config.checkpoint.keep))
        state, meta = restore_or_init(config, task, checkpoints, mesh)
        if is_first():
            write_config(config, workdir)
            print(task.description, flush=True)
            if meta['step']:
                print(f'resuming after step {meta["step"]} of {total}', flush=True)
        if meta['step'] < total:
            signalled = held.enter_context(after_step())
            state, step = train(config, task, state, meta, checkpoints, mesh, Path(workdir), workers, signalled)
            if number := signalled(step):
                raise Stopped(number, f' after step {step} of {total}: it is saved, and the same command goes on from '
                                      'there')
    if is_first():
        print(f'done: {total} steps, {config.epochs} epochs; checkpoints in {Path(workdir) / "checkpoints"}',
              flush=True)
    return state


def hold(held: ExitStack, workdir: str | Path) -> None:
    """Lock `workdir` for this run; of several processes the first does."""
    if is_first():
        held.enter_context(locked(workdir, 'choose another --workdir'))


def restore_or_init(config, task: Task, checkpoints: Checkpoints, mesh) -> tuple[TrainState, dict]:
    """The state to go on from and its `meta`: the latest checkpoint, or step 0."""
    key = jax.random.fold_in(jax.random.key(config.seed), INIT)
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=meshes.replicated(mesh)),
        jax.eval_shape(task.init, key))
    restored = checkpoints.restore_latest(abstract)
    if restored is not None:
        state, meta = restored
        if meta['data'] != task.fingerprint:
            raise UserError(f'the data in {config.data.dir} are not those of the run (their fingerprint differs from '
                            f'the one at step {meta["step"]}): set --config.data.dir to those, or start a new workdir.')
        return state, meta
    encoder = config.init_from and load_fitting_variables(  # before init, which compiles
        config.init_from, abstract.params['encoder'], config.init_checkpoint)[0]
    state = task.init(key)
    if encoder:
        state = with_encoder(state, encoder)
    return meshes.replicate(mesh, state), {'step': 0, 'epoch_losses': [], 'data': task.fingerprint}


def train(
    config, task: Task, state: TrainState, meta: dict, checkpoints: Checkpoints, mesh, workdir: Path, workers: int,
    signalled: Callable[[int], int | None],
) -> tuple[TrainState, int]:
    """The steps from `meta['step']` to the end, or to the one after which `signalled` says that a signal has come.

    Returns the state and its step.
    """
    augment_key = jax.random.fold_in(jax.random.key(config.seed), AUGMENT)
    probe = task.make_probe() if task.probe_every else None
    first = meta['step']
    cycle = len(task.phases)
    losses = list(meta.get('losses', []))  # of the steps of an epoch that a checkpoint cut in two
    epoch_losses = list(meta['epoch_losses'])
    hinted, waits, epoch_waits = False, [], []  # of the steps since the last row, and of this epoch: see `data_wait`
    total = config.epochs * task.steps_per_epoch
    reader = pipeline.iterate(task.batches[first:], workers=workers)
    with reader as batches, ExitStack() as files, ExitStack() as bars, bereaved():  # closed by an error, too
        def read() -> tuple[dict, dict]:
            """The arrays of the next batch, here and on the devices."""
            example = task.complete(next(batches))
            local = {name: example[name] for name in task.inputs}
            return local, meshes.to_devices(mesh, local)

        ahead = files.enter_context(ThreadPoolExecutor(1))
        coming = ahead.submit(read)
        writer = files.enter_context(MetricsWriter(workdir, first)) if is_first() else None
        bar = None
        for step in range(first, total):
            epoch = step // task.steps_per_epoch
            if bar is None:
                bar = bars.enter_context(start_epoch(config, task, epoch, step))
            orders = task.orders(step)
            key = jax.random.fold_in(augment_key, step)
            begin = time.perf_counter()
            local, placed = coming.result()
            ready = time.perf_counter()
            state, metrics = task.step(state, placed, key, orders)
            if step + 1 < total:
                coming = ahead.submit(read)  # while the devices compute
            metrics = jax.device_get(metrics)
            if not metrics['finite']:
                stop(workdir, step + 1, checkpoints, state=state, batch=local, key=key, orders=orders, metrics=metrics)
            waits.append((ready - begin, time.perf_counter() - begin))
            if step > first:  # whose batch was asked for only then
                epoch_waits.append(waits[-1])
            losses.append(float(metrics['loss']))
            bar.update()
            bar.set_postfix_str(f'loss {losses[-1]:.4f}')
            ends_epoch = (step + 1) % task.steps_per_epoch == 0
            checked = ends_epoch and is_probed(epoch, cycle, task.probe_every)
            measured = probe(state) if checked else {}
            if not np.isfinite(list(measured.values())).all():
                stop(workdir, step + 1, checkpoints, state=state, batch=local, key=key, orders=orders,
                     metrics={**measured, 'finite_embeddings': False})
            if measured and is_first():
                tqdm.write(describe_measures(step + 1, measured))
            if writer and (ends_epoch or checked or falls_on(step + 1, config.log.every_steps)):
                logged = {name: float(value) for name, value in metrics.items() if not name.startswith('finite')}
                writer.write({'step': step + 1, 'epoch': epoch, 'phase': epoch % cycle, 'orders': list(orders),
                              **logged, **measured, 'data_wait': round(data_wait(waits), 4)})
                waits = []
            if ends_epoch:
                bars.close()
                bar = None
                share = data_wait(epoch_waits)
                if is_first() and not hinted and share > TOLERATED_WAIT:
                    hinted = True
                    print(f'{share:.0%} of the time of the steps of this epoch went into waiting for data, which '
                          f'{workers or "no"} worker processes read: raise --config.data.workers, or prepare the data '
                          'with smaller frames or --encoding=raw', flush=True)
                epoch_waits = []
                epoch_losses = [*epoch_losses, float(np.mean(losses))][-cycle:]
                losses = []
            signal = signalled(step + 1)
            if ends_epoch or signal or falls_on(step + 1, config.checkpoint.every_steps):
                mean = float(np.mean(epoch_losses)) if len(epoch_losses) == cycle else np.inf
                checkpoints.save(step + 1, state, {
                    'data': meta['data'], 'epoch_losses': epoch_losses, 'losses': losses,
                    'next_batch': step + 1, 'config': config.to_json_best_effort()}, mean)
            if signal:
                break
    return state, step + 1


def data_wait(steps: list[tuple[float, float]]) -> float:
    """Share of their time that steps waited for their batches; `steps` has of each the wait and the whole, in seconds.

    Example:
      >>> data_wait([(0.1, 1.0), (0.3, 1.0)])
      0.2
    """
    whole = sum(seconds for _, seconds in steps)
    return sum(wait for wait, _ in steps) / whole if whole else 0.0


def falls_on(step: int, every: int) -> bool:
    """Whether step number `step`, from 1, is one of every `every` steps; 0 is never."""
    return every > 0 and step % every == 0


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


def start_epoch(config, task: Task, epoch: int, step: int) -> tqdm:
    """Name an epoch and its phase, and open its progress bar."""
    quiet = not is_first()
    phase = task.phases[epoch % len(task.phases)]
    if not quiet:
        print(' '.join((f'epoch {epoch + 1}/{config.epochs}', phase)).rstrip(), flush=True)
    done = step - epoch * task.steps_per_epoch
    return tqdm(total=task.steps_per_epoch, initial=done, unit='step', leave=False, disable=quiet, dynamic_ncols=True)


def describe_measures(step: int, measured: dict[str, float]) -> str:
    """One line for people.

    Example:
      >>> describe_measures(600, {'health/effective_rank': 12.345, 'health/knn_accuracy': 40.0})
      'step 600: effective rank 12.3, knn accuracy 40'
    """
    parts = (f'{name.removeprefix("health/").replace("_", " ")} {value:.3g}' for name, value in measured.items())
    return f'step {step}: ' + ', '.join(parts)


def stop(
    workdir: Path, step: int, checkpoints: Checkpoints, *, metrics: dict, orders: tuple[int, ...], **bundle,
) -> None:
    """Saves a step that is not finite, or the state whose embeddings are not, and raises `UserError` naming what."""
    folder = save_bundle(workdir, step, metrics=metrics, orders=orders, **bundle)
    saved = checkpoints.steps()
    before = f'the checkpoint of step {saved[-1]} is intact' if saved else 'there is no checkpoint yet'
    raise UserError(
        f'at step {step} (orders {orders}) values that are not finite came up in {", ".join(not_finite(metrics))}: '
        f'lower config.optimizer.base_rate, or set config.optimizer.clip_norm; {before}, and the state, batch and key '
        f'of this step are in {folder}.'
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
