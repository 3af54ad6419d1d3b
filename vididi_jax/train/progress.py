"""What a run says and writes of its steps: progress bar, hint, metrics.jsonl, mean losses."""

from collections import deque
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from vididi_jax.train.metric_writer import MetricsWriter
from vididi_jax.train.processes import is_first, one_bar

TOLERATED_WAIT = 0.05  # share of its steps that an epoch may wait for data without a word


class Times(NamedTuple):
    """Of a turn of the loop, in seconds: devices idle for want of a batch, waiting for the devices, and all of it."""

    data: float
    devices: float
    whole: float


def data_wait(times: Iterable[Times]) -> float:
    """Share of the time that the devices waited for batches.

    Example:
      >>> data_wait([Times(0.1, 0.5, 1.0), Times(0.3, 0.5, 1.0)])
      0.2
    """
    waited, _, whole = np.sum(list(times) or [Times(0, 0, 0)], axis=0).tolist()
    return waited / whole if whole else 0.0


def host_ms(times: Iterable[Times]) -> float:
    """Milliseconds a step that this process was busy itself: preparing, launching, logging.

    Example:
      >>> host_ms([Times(0.25, 0.5, 1.0), Times(0.25, 0.25, 1.0)])
      375.0
    """
    return 1000 * float(np.mean([whole - data - devices for data, devices, whole in times] or [0]))


class Progress:
    """Of one start of a run; to be used in a `with`.

    Attributes:
      losses: of the steps of this epoch.
      epoch_losses: the mean loss of each of the last epochs, a cycle of them.
    """

    def __init__(self, config, task, workdir: Path, meta: dict):
        """`meta`: of the checkpoint that the run goes on from."""
        self.config, self.task = config, task
        self.losses = list(meta.get('losses', []))  # of an epoch that a checkpoint cut in two
        self.epoch_losses = list(meta['epoch_losses'])
        self._first = meta['step']
        self._hinted = False
        self._compiling = 0.0  # seconds that compiling a step took so far, or reading it from the cache of programs
        self._times: deque[tuple[int, Times]] = deque()  # of the steps since the last row
        self._epoch_times: list[Times] = []
        self._held, self._bar = ExitStack(), tqdm(disable=True)
        self._held.callback(lambda: self._bar.close())  # that of the last epoch: no other is kept
        self._writer = self._held.enter_context(MetricsWriter(workdir, meta['step'], config)) if is_first() else None

    def __enter__(self) -> 'Progress':
        return self

    def __exit__(self, *_) -> None:
        self._held.close()

    def start_epoch(self, step: int) -> None:
        """Name the epoch of step `step`, from 0, and its phase, and open its bar."""
        epoch, done = divmod(step, self.task.steps_per_epoch)
        if is_first():
            phase = self.task.phases[epoch % len(self.task.phases)]
            print(f'epoch {epoch + 1}/{self.config.epochs} {phase}'.rstrip(), flush=True)
        self._bar = tqdm(
            total=self.task.steps_per_epoch, initial=done, unit='step', leave=False, **one_bar(), dynamic_ncols=True)
        if step - self._first < len(self.task.phases) * self.task.steps_per_epoch:  # each phase has its programs
            about = f', about {self._compiling:.0f} s' if self._compiling >= 1 else ''
            self._bar.set_postfix_str(f'compiling{about}')

    def launched(self, step: int, times: Times) -> None:
        """Step number `step` is under way."""
        self._compiling = max(self._compiling, times.whole - times.data - times.devices)
        if self._writer:
            self._times.append((step, times))
        if step > self._first + 1:  # whose batch was asked for only then
            self._epoch_times.append(times)

    def ended(self, step: int, orders: tuple[int, ...], metrics: dict, measured: dict | None) -> None:
        """Step number `step` has given `metrics`, and been `measured` if it ends an epoch (else None)."""
        self.losses.append(float(metrics['loss']))
        self._bar.set_postfix_str(f'loss {self.losses[-1]:.4f}', refresh=False)
        self._bar.update()
        if measured and is_first():
            tqdm.write(describe_measures(step, measured))
        if self._writer and (measured is not None or falls_on(step, self.config.log.every_steps)):
            logged = {name: float(value) for name, value in jax.device_get(metrics).items()
                      if not name.startswith('finite')}
            epoch, times = (step - 1) // self.task.steps_per_epoch, []
            while self._times and self._times[0][0] <= step:
                times.append(self._times.popleft()[1])
            self._writer.write({
                'step': step, 'epoch': epoch, 'phase': epoch % len(self.task.phases), 'orders': list(orders), **logged,
                **(measured or {}), 'data_wait': round(data_wait(times), 4), 'host_ms': round(host_ms(times), 3)})

    def end_epoch(self, workers: int) -> None:
        """Close the bar, keep the mean loss, and say once if the epoch waited for data, which `workers` read."""
        self._bar.close()
        share, self._epoch_times = data_wait(self._epoch_times), []
        if is_first() and not self._hinted and share > TOLERATED_WAIT:
            self._hinted = True
            print(f'{share:.0%} of the time of the steps of this epoch went into waiting for data, which '
                  f'{workers or "no"} worker processes read: raise --config.data.workers, or prepare the data with '
                  'smaller frames or --encoding=raw', flush=True)
        self.epoch_losses = [*self.epoch_losses, float(np.mean(self.losses))][-len(self.task.phases):]
        self.losses = []


def falls_on(step: int, every: int) -> bool:
    """Whether step number `step`, from 1, is one of every `every` steps; 0 is never."""
    return every > 0 and step % every == 0


def describe_measures(step: int, measured: dict[str, float]) -> str:
    """One line for people.

    Example:
      >>> describe_measures(600, {'health/effective_rank': 12.345, 'health/knn_accuracy': 40.0})
      'step 600: effective rank 12.3, knn accuracy 40'
    """
    parts = (f'{name.removeprefix("health/").replace("_", " ")} {value:.3g}' for name, value in measured.items())
    return f'step {step}: ' + ', '.join(parts)
