"""Everything that is measured on an accelerator, in one command; a table last, and all figures as JSON.

python benchmarks/accelerator.py --out=DIR [--parts=step_r3d_18,pretraining,...] [--tiny]

Each part is a process of its own, so that one that fails leaves the others, and writes DIR/PART.json and DIR/PART.log.
What is compared with PyTorch needs torch and torchvision. `--tiny` is a dry run: small shapes, for a CPU.

PARTS:
  ceilings         bytes a second of a copy on the device, FLOP/s of a matrix product: what all else is measured by
  step_ENCODER     a training step beside PyTorch's, see benchmarks/train_step.py (bfloat16; _f32: float32)
  pretraining      the programs of a pretraining step of configs/ucf101_vicreg.py one by one, and the whole
  kernels          which kernels the update of that step spends its time in
  derivative       `time_derivative` against the copy
  loop             a real run of that config on generated videos of UCF101's size, with data and checkpoints
  reading          milliseconds a batch that the pipeline reads, jpeg of 171x128
  parity           features of the four encoders against torchvision in float64
  losses           each loss and its gradient against float64
  cycle            losses of eight steps against those on the CPU
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')  # PyTorch needs memory of the same device

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.agreement import CONFIG, check_losses, cycle, parity
from benchmarks.timing import interleave, matmul_peak
from vididi_jax.config import load_config
from vididi_jax.derivatives import time_derivative
from vididi_jax.errors import UserError, one_sentence
from vididi_jax.models import ENCODERS, create_encoder
from vididi_jax.train import mesh as meshes
from vididi_jax.train.optimizer import rate_and_optimizer
from vididi_jax.train.state import build_networks, make_init
from vididi_jax.train.step import augment_views, differentiate_views, make_train_step, make_update

PARTS = ('ceilings', 'step_r3d_18', 'pretraining', 'kernels', 'step_mc3_18', 'step_s3d', 'step_r2plus1d_18',
         'step_r3d_18_f32', 'loop', 'derivative', 'reading', 'parity', 'losses', 'cycle')
LIMIT = 200  # seconds of a part


def median_ms(function, rounds: int = 10) -> float:
    """Median milliseconds of a function that returns arrays of the device."""
    return float(np.median(interleave({'': lambda: jax.block_until_ready(function())}, rounds)['']) * 1e3)


def many_ms(function, calls: int = 20) -> float:
    """Milliseconds a call of a function whose calls follow each other without waiting, as in a loop."""
    def several():
        for _ in range(calls):
            out = function()
        return out

    return median_ms(several, 5) / calls


def ceilings(tiny: bool) -> dict:
    x = jnp.ones((2**20 if tiny else 2**29,), jnp.float32)
    copy = jax.jit(lambda x: x + 1)
    return {'copy, GB/s': 2 * x.nbytes / many_ms(lambda: copy(x)) / 1e6,
            'bfloat16 product, TFLOP/s': matmul_peak(jnp.bfloat16) / 1e12,
            'float32 product, TFLOP/s': matmul_peak(jnp.float32) / 1e12}


def step(encoder: str, dtype: str, tiny: bool) -> dict:
    from benchmarks import train_step

    shape = '2x4x32x32' if tiny else '128x8x112x112'
    arguments = argparse.Namespace(encoder=encoder, width=8 if tiny and encoder != 's3d' else 64, dtype=dtype,
                                   conv_impl='auto', remat=False)
    shape = train_step.parse_shape(shape)
    clips = np.random.default_rng(0).standard_normal((*shape, 3), np.float32)
    layers = train_step.convolutions(create_encoder(encoder, width=arguments.width), shape)
    work = train_step.train_flops(layers)
    found = {'GFLOP': work / 1e9}
    runs = {}
    for name in ('vididi_jax', 'torch'):
        start = time.perf_counter()
        try:
            runs[name], lines = getattr(train_step, 'ours' if name == 'vididi_jax' else 'theirs')(arguments, clips)
        except ImportError:
            found['torch'] = 'not installed'
            continue
        runs[name]()
        found[f'{name}, to build and to begin, s'] = time.perf_counter() - start
        print(name, lines, flush=True)
    peak = matmul_peak(jnp.dtype(dtype))
    for name, seconds in interleave(runs, 10).items():
        found[f'{name}, ms'] = float(np.median(seconds) * 1e3)
        found[f'{name}, share of the product\'s FLOP/s'] = float(work / np.median(seconds) / peak)
    if 'torch, ms' in found:
        found['times as fast as torch'] = found['torch, ms'] / found['vididi_jax, ms']
    statistics = jax.devices()[0].memory_stats() or {}
    found['peak memory of JAX, MB'] = statistics.get('peak_bytes_in_use', 0) / 1e6
    return found


class Pieces:
    """The programs of a pretraining step of a config, on random frames of UCF101's size."""

    def __init__(self, tiny: bool, orders: tuple[int, int] = (0, 0)):
        config = load_config(CONFIG + (':smoke' if tiny else ''))
        mesh, self.orders = meshes.make_mesh(), orders
        networks = build_networks(config, meshes.first_device(mesh))
        rate, optimizer = rate_and_optimizer(config, 1000)
        from vididi_jax.pixels.augment import Augmentation

        self.spec, self.frames = Augmentation(**config.augment), config.clip.frames
        self.state = make_init(config, networks, optimizer)(jax.random.key(0))
        self.update = make_update(networks, optimizer, rate, config, 1000, mesh)
        self.train_step = make_train_step(networks, optimizer, rate, config, 1000, mesh)
        clips = np.random.default_rng(0).integers(0, 256, (config.batch_size, 2, 8, 128, 171, 3), np.uint8)
        self.host = {'clips': clips, 'size': np.tile(np.array([128, 171], np.int32), (config.batch_size, 1))}
        self.batch = jax.device_put(self.host)
        self.key = jax.random.key(0)

    def augment(self):
        return augment_views(self.key, self.batch['clips'], self.batch['size'], spec=self.spec, dtype=jnp.float32)

    def differentiate(self, views, orders: tuple[int, int] | None = None):
        orders = orders or self.orders
        return differentiate_views(*views, orders=orders, frames=self.frames - max(orders))

    def updated(self, views) -> dict:
        """Metrics of an update, which moves the state."""
        self.state, metrics = self.update(self.state, views, np.asarray(self.orders, np.int32))
        return metrics


def pretraining(tiny: bool) -> dict:
    pieces = Pieces(tiny)
    views = pieces.augment()
    cut = pieces.differentiate(views)
    start = time.perf_counter()
    jax.block_until_ready(pieces.updated(cut))
    found = {'update, first call, s': time.perf_counter() - start}
    found['augmentation, ms'] = many_ms(pieces.augment)
    for orders in ((0, 0), (1, 1), (2, 1)):  # the first takes none: views are copied
        found[f'derivatives of orders {orders}, ms'] = many_ms(partial(pieces.differentiate, views, orders))
    found['update of orders (0, 0), ms'] = many_ms(lambda: pieces.updated(cut))

    def whole(batch):
        pieces.state, metrics = pieces.train_step(pieces.state, batch, pieces.key, pieces.orders)
        return metrics

    found['whole step of orders (0, 0), ms'] = many_ms(lambda: whole(pieces.batch))
    found['whole step and metrics fetched, ms'] = float(np.median(interleave(
        {'': lambda: jax.device_get(whole(pieces.batch))}, 10)['']) * 1e3)
    found['the same from the host, ms'] = float(np.median(interleave(
        {'': lambda: jax.device_get(whole(jax.device_put(pieces.host)))}, 10)['']) * 1e3)
    found['peak memory, MB'] = (jax.devices()[0].memory_stats() or {}).get('peak_bytes_in_use', 0) / 1e6
    found['UCF101 recipe of 59,600 steps, minutes'] = 59_600 * found['the same from the host, ms'] / 6e4
    return found


def kernels(tiny: bool) -> dict:
    pieces = Pieces(tiny)
    cut = pieces.differentiate(pieces.augment())

    def run():
        jax.block_until_ready(pieces.updated(cut))

    run()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(3):
                run()
        data = jax.profiler.ProfileData.from_file(str(next(Path(folder).rglob('*.xplane.pb'))))
    spent = defaultdict(lambda: [0, 0])
    for plane in data.planes:
        if 'GPU' in plane.name or 'TPU' in plane.name:
            for line in plane.lines:
                if 'Stream' in line.name or 'XLA Ops' in line.name:
                    for event in line.events:
                        spent[event.name][0] += event.duration_ns
                        spent[event.name][1] += 1
    found = {f'{name[:110]} (x {count // 3}), ms': nanoseconds / 3e6
             for name, (nanoseconds, count) in sorted(spent.items(), key=lambda item: -item[1][0])[:70]}
    return {'all kernels, ms': sum(time for time, _ in spent.values()) / 3e6,
            'number of kernels': sum(count for _, count in spent.values()) / 3, **found}


def derivative(tiny: bool) -> dict:
    x = jnp.ones((4 if tiny else 1024, 8, 112, 112, 3), jnp.float32)
    copy = jax.jit(lambda x: x + 1)
    copied = 2 * x.nbytes / many_ms(lambda: copy(x))
    found = {}
    for order in (1, 2):
        out = time_derivative(x, order)
        found[f'order {order}, share of the copy'] = float(
            (x.nbytes + out.nbytes) / many_ms(lambda order=order: time_derivative(x, order)) / copied)
    return found


def panning(video) -> 'Decoded':  # noqa: F821
    """A video of UCF101's stored size: a window that moves over smooth noise."""
    from data_prep.decode import Decoded
    from data_prep.motion import smooth_noise
    from vididi_jax.data.records import encode_frame

    picture = np.round(255 * smooth_noise(np.random.default_rng(int(video.id)), 256, cutoff=12)).astype(np.uint8)
    frames = [encode_frame(picture[i : i + 128, i : i + 171], 'jpeg') for i in range(64)]
    return Decoded(frames, 128, 171, 25.0)


def write_panning(folder: str, number: int) -> None:
    """A data set of `number` videos `panning`."""
    from data_prep.plan import Plan, Video
    from data_prep.writer import write_dataset

    videos = tuple(Video(str(i), str(i), 'a', '', 'train') for i in range(number))
    write_dataset(Plan('panning', '', ('a',), videos, (), 'jpeg', {}), panning, folder, os.cpu_count())


def loop(tiny: bool) -> dict:
    """Two cycles of a real run; the second is timed, by the checkpoints at the ends of its phases."""
    from vididi_jax.train import pretrain

    config = load_config(CONFIG + (':smoke' if tiny else ''))
    config.epochs = 8
    number = config.batch_size * (2 if tiny else 64)
    with tempfile.TemporaryDirectory() as folder:
        config.data.dir, workdir = f'{folder}/data', Path(folder, 'run')
        config.checkpoint.keep = config.epochs
        write_panning(config.data.dir, number)
        pretrain.run(config, str(workdir))
        saved = {int(path.name): path.stat().st_mtime for path in (workdir / 'checkpoints').iterdir()
                 if path.name.isdigit()}
    steps = sorted(saved)
    first, last = steps[3], steps[-1]
    milliseconds = 1e3 * (saved[last] - saved[first]) / (last - first)
    return {'steps timed': last - first, 'ms a step, checkpoints included': milliseconds,
            'UCF101 recipe of 59,600 steps, minutes': 59_600 * milliseconds / 6e4}


def reading(tiny: bool) -> dict:
    from vididi_jax.data import pipeline
    from vididi_jax.data.source import RecordSource

    number, batch_size = (16, 8) if tiny else (256, 64)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        write_panning(folder, number)
        source = RecordSource(folder, 'train')
        stream = pipeline.training_stream(source, np.arange(number), length=8, stride=3, placement='adjacent',
                                          batch_size=batch_size, seed=0)
        for workers in (os.cpu_count(), 0):
            with pipeline.iterate(stream, workers=workers) as batches:
                for _ in range(workers + 2):
                    next(batches)
                start, count = time.perf_counter(), 5 if tiny else 60
                for _ in range(count):
                    next(batches)
                found[f'ms a batch of {batch_size} videos, {workers} workers'] = (
                    1e3 * (time.perf_counter() - start) / count)
    return found


FUNCTIONS = {'ceilings': ceilings, 'pretraining': pretraining, 'kernels': kernels, 'derivative': derivative,
             'loop': loop, 'reading': reading, 'parity': parity, 'losses': check_losses, 'cycle': cycle,
             **{f'step_{name}': partial(step, name, 'bfloat16') for name in ENCODERS},
             **{f'step_{name}_f32': partial(step, name, 'float32') for name in ENCODERS}}


def run_part(part: str, tiny: bool, path: Path) -> None:
    start = time.perf_counter()
    found = FUNCTIONS[part](tiny)
    about = {'device': jax.devices()[0].device_kind, 'jax': jax.__version__, 'seconds': time.perf_counter() - start}
    path.write_text(json.dumps({**about, **found}, indent=2), encoding='utf-8')


def start(part: str, out: Path, tiny: bool, name: str, **environment: str) -> dict | str:
    """Run a part; its figures, which are in OUT/NAME.json as well, or what went wrong."""
    path = out / f'{name}.json'
    path.unlink(missing_ok=True)  # of a run before
    command = [sys.executable, __file__, f'--out={path}', f'--only={part}', *(['--tiny'] if tiny else [])]
    with (out / f'{name}.log').open('w', encoding='utf-8') as log:
        try:
            code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, timeout=LIMIT,
                                  env={**os.environ, **environment}).returncode
        except subprocess.TimeoutExpired:
            return f'took more than {LIMIT} s'
    if code:
        log = (out / f'{name}.log').read_text(encoding='utf-8', errors='replace')
        return f'exit code {code}: ' + log[-300:].replace('\n', ' ')
    return json.loads(path.read_bytes())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', required=True, type=Path, metavar='DIR')
    parser.add_argument('--parts', default=','.join(PARTS))
    parser.add_argument('--tiny', action='store_true', help='small shapes, to see on a CPU that all parts run')
    parser.add_argument('--only', choices=FUNCTIONS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        run_part(arguments.only, arguments.tiny, arguments.out)
        return 0
    arguments.out.mkdir(parents=True, exist_ok=True)
    if unknown := set(arguments.parts.split(',')) - set(FUNCTIONS):
        raise UserError(f'--parts has {sorted(unknown)[0]!r}: choose from {", ".join(FUNCTIONS)}.')
    failed = 0
    for part in arguments.parts.split(','):
        began = time.perf_counter()
        found = start(part, arguments.out, arguments.tiny, part)
        if part == 'cycle' and isinstance(found, dict):
            there = start(part, arguments.out, arguments.tiny, 'cycle_cpu', JAX_PLATFORMS='cpu')
            found = there if isinstance(there, str) else {
                name: value if isinstance(value, str) else (value, there[name]) for name, value in found.items()}
        print(f'\n{part} ({time.perf_counter() - began:.0f} s)', flush=True)
        if isinstance(found, str):
            print(f'  FAILED: {found}', flush=True)
            failed += 1
            continue
        for name, value in found.items():
            print(f'  {name}: ' + (f'{value:.4g}' if isinstance(value, float) else str(value)), flush=True)
    return 1 if failed else 0


if __name__ == '__main__':
    with one_sentence():
        sys.exit(main())
