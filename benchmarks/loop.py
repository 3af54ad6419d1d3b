"""How long a device would idle between steps: the training loop and its pipeline around a step that only takes time.

python benchmarks/loop.py --config=configs/motion_vicreg.py --workdir=DIR [--config.FIELD=VALUE ...] [--step_ms=1]

The device is a thread that works off what is launched, a step every `step_ms` milliseconds. Everything else is what
`main.py` runs: reading, copying to the devices, keys and orders, metrics, checkpoints. A step idles from the end of the
one before to its own start; the first of an epoch also waits until the checkpoint of the one before is copied, and is
counted apart.
"""

import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import numpy as np
from absl import app, flags, logging

from vididi_jax.errors import UserError, one_sentence
from vididi_jax.flags import define_config_flag, parse_flags
from vididi_jax.tasks import check_workdir
from vididi_jax.train import loop, pretrain
from vididi_jax.train.metric_writer import read_metrics

CONFIG = define_config_flag()
WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run, which must be new.')
STEP_MS = flags.DEFINE_float('step_ms', 1, 'How long the device works on a step.')


class Result:
    """A scalar that is there when the device has worked off its step."""

    def __init__(self, future: Future, value):
        self.future, self.value = future, value

    def block_until_ready(self):
        self.future.result()

    def is_ready(self):
        return self.future.done()

    def __array__(self, *_, **__):
        self.future.result()
        return np.asarray(self.value)

    def __bool__(self):
        return bool(np.asarray(self))

    def __float__(self):
        return float(np.asarray(self))


class Device:
    """Works off steps, one after the other.

    Attributes:
      worked: (begin, end) of each, in seconds.
    """

    def __init__(self, seconds: float):
        self.seconds, self.worked, self._queue = seconds, [], ThreadPoolExecutor(1)

    def _work(self, inputs) -> None:
        jax.block_until_ready(inputs)
        begin = time.perf_counter()
        while (now := time.perf_counter()) < begin + self.seconds:
            time.sleep(max(0, begin + self.seconds - now - 2e-4) or 1e-5)
        self.worked.append((begin, now))

    def step(self, state, batch, key, orders, *_):
        future = self._queue.submit(self._work, (batch, key))
        return state, {'loss': Result(future, np.float32(1)), 'finite': Result(future, np.bool_(True))}


def main(_) -> None:
    logging.set_verbosity(logging.FATAL)  # what the checkpointing library logs
    config, workdir = CONFIG.value, WORKDIR.value
    check_workdir(workdir, config.task)
    if config.get('task') != 'pretrain':
        raise UserError(f'config.task is {config.get("task")!r}: give a config of a pretraining.')
    if (Path(workdir) / 'config.json').exists():
        raise UserError(f'{workdir} has a run already: give --workdir a new folder.')
    device = Device(STEP_MS.value / 1000)
    config.health.every_cycles = 0
    found = {}

    def make_task(*arguments):
        found['task'] = pretrain.make_task(*arguments)._replace(step=device.step)
        return found['task']

    loop.run(config, workdir, make_task)
    steps = found['task'].steps_per_epoch
    begin, end = np.array(device.worked).T
    idle = 1000 * (begin[1:] - end[:-1])
    first = np.arange(1, len(begin)) % steps == 0
    rows = read_metrics(workdir)
    print(f'{len(begin)} steps of {STEP_MS.value:g} ms on batches of {config.batch_size} videos, {steps} an epoch; '
          f'config.data.workers {config.data.workers}')
    for name, values in (('between steps of an epoch', idle[~first]), ('before the first of an epoch', idle[first])):
        if len(values):
            print(f'idle {name}: median {np.median(values):.2f} ms, mean {np.mean(values):.2f} ms, '
                  f'95 % under {np.quantile(values, 0.95):.2f} ms')
    for name in ('host_ms', 'data_wait'):
        if name in rows[-1]:
            print(f'{name}: median {np.median([row[name] for row in rows]):.3f}')


if __name__ == '__main__':
    with one_sentence():
        app.run(main, flags_parser=parse_flags)
