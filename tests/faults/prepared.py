"""Prepared data sets that were damaged: `python -m tests.faults.prepared --count=200 --seed=0`.

Each round harms one file of a copy of a small data set and reads it. What must come of it: one sentence, or the very
batches of before; and `data_prep verify` finds every harm. In rounds that are "sealed" the checksums are written anew
after the harm, as by somebody who edits a data set: nothing can tell then, but what the readers refuse is one sentence
too.
"""

import argparse
import hashlib
import json
import shutil
import tempfile
from argparse import Namespace
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np

from data_prep import folder, motion, motion_boxes, verify
from data_prep.writer import write_dataset
from tests.data_prep.videos import ramp, write_video
from tests.data_sets import seal
from vididi_jax.data import pipeline
from vididi_jax.data.source import RecordSource
from vididi_jax.detection import ava
from vididi_jax.detection.keyframes import open_keyframes
from vididi_jax.errors import UserError

SPLITS = {'motion': ('train', 'test'), 'boxes': ('train', 'test'), 'jpeg': ('train',)}


def make_data_sets(root: Path) -> list[Path]:
    """Motion (raw), motion with boxes (AVA's files), and a folder of videos, one of them broken (jpeg)."""
    size = dict(train=10, test=4, frames=6, seed=0)
    for i in range(3):
        write_video(root / 'videos' / f'{"ab"[i % 2]}' / f'{i}.mp4', ramp(8, seed=i))
    (root / 'videos' / 'b' / 'broken.mp4').write_bytes(b'not a video' * 50)
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        plans = {
            'motion': motion.plan(Namespace(size=8, **size)), 'boxes': motion_boxes.plan(Namespace(size=32, **size)),
            'jpeg': folder.plan_folder(root / 'videos', short_side=16, encoding='jpeg')}
        for name, plan in plans.items():
            write_dataset(*plan, root / name, workers=1)
    return [root / name for name in plans]


def read(directory: Path) -> str:
    """A hash of all that training and evaluation read of a data set."""
    digest = hashlib.sha256()
    for split in SPLITS[directory.name]:
        source = RecordSource(directory, split)
        digest.update(repr((source.fingerprint, source.rows, source.counts, source.label_names)).encode())
        batches = pipeline.evaluation_batches(
            source, clips_per_video=2, length=3, stride=1, batch_size=4, records=np.arange(len(source)))
        with pipeline.iterate(batches, workers=0) as stream:
            for batch in stream:
                digest.update(b''.join(np.ascontiguousarray(value).tobytes() for value in batch.values()))
        if directory.name == 'boxes':
            for kind in (ava.ANNOTATIONS, ava.DETECTOR):
                *arrays, counts = open_keyframes(source, kind)
                digest.update(b''.join(array.tobytes() for array in arrays) + repr(counts).encode())
    return digest.hexdigest()


def files_of(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if path.is_file())


def flip(rng: np.random.Generator, path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[rng.integers(len(data))] ^= 1 << rng.integers(8)
    path.write_bytes(data)


def truncate(rng: np.random.Generator, path: Path) -> None:
    path.write_bytes(path.read_bytes()[: rng.integers(path.stat().st_size)])


def append(rng: np.random.Generator, path: Path) -> None:
    path.write_bytes(path.read_bytes() + rng.bytes(rng.integers(1, 20)))


def blank(rng: np.random.Generator, path: Path) -> None:
    """Zeros in place of a block, as a disk or a copy that was stopped leaves them."""
    data = bytearray(path.read_bytes())
    start = rng.integers(len(data))
    data[start : start + 512] = bytes(len(data[start : start + 512]))
    path.write_bytes(data)


def delete(rng: np.random.Generator, path: Path) -> None:
    path.unlink()


def make_folder(rng: np.random.Generator, path: Path) -> None:
    path.unlink()
    path.mkdir()


def swap(rng: np.random.Generator, path: Path) -> None:
    """With another file of the data set."""
    other = rng.choice([other for other in files_of(path.parent) if other != path])
    first, second = path.read_bytes(), other.read_bytes()
    path.write_bytes(second)
    other.write_bytes(first)


def drop_line(rng: np.random.Generator, path: Path) -> None:
    lines = path.read_bytes().splitlines(True)
    del lines[rng.integers(len(lines))]
    path.write_bytes(b''.join(lines))


def exchange_lines(rng: np.random.Generator, path: Path) -> None:
    lines = path.read_bytes().splitlines(True)
    i, j = rng.choice(len(lines), 2) if len(lines) > 1 else (0, 0)
    lines[i], lines[j] = lines[j], lines[i]
    path.write_bytes(b''.join(lines))


def _edit(rng: np.random.Generator, value):
    """Another value in one place of json."""
    if isinstance(value, dict | list) and value and rng.uniform() < 0.9:
        key = rng.choice(list(value)) if isinstance(value, dict) else rng.integers(len(value))
        value[key] = _edit(rng, value[key])
        return value
    choices = (None, True, -1, 0, 3, 2.5, 10**12, '', 'left', 'x', [], {}, ['7'], {'a': 1})
    return choices[rng.integers(len(choices))]


def edit_json(rng: np.random.Generator, path: Path) -> None:
    """A changed field in valid json; another kind of file is flipped a bit of."""
    if path.suffix == '.json':
        path.write_text(json.dumps(_edit(rng, json.loads(path.read_text()))))
    elif path.suffix == '.jsonl':
        lines = path.read_text().splitlines()
        i = rng.integers(len(lines))
        lines[i] = json.dumps(_edit(rng, json.loads(lines[i])))
        path.write_text(''.join(f'{line}\n' for line in lines))
    else:
        flip(rng, path)


def add_file(rng: np.random.Generator, path: Path) -> None:
    shutil.copy(path, path.with_name(f'{path.stem}_copy{path.suffix}'))


HARMS = (flip, truncate, append, blank, delete, make_folder, swap, drop_line, exchange_lines, edit_json, edit_json,
         add_file)


def outcome(function: Callable, *arguments) -> str:
    """'error' for one sentence, else what came of it; any other exception is raised."""
    try:
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            return str(function(*arguments))
    except UserError as error:
        assert '\n' not in str(error) and str(error).endswith('.'), f'not one sentence: {error!r}'
        return 'error'


def fuzz(count: int, seed: int) -> Counter:
    """Harm data sets `count` times, each also sealed; returns how often what came of it. Raises at a failure."""
    rng, counts = np.random.default_rng(seed), Counter()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        data_sets = make_data_sets(root)
        expected = {path: read(path) for path in data_sets}
        for number in range(count):
            data = data_sets[number % len(data_sets)]
            copy = root / 'copies' / data.name
            shutil.copytree(data, copy)
            path = rng.choice(files_of(copy))
            harm = HARMS[rng.integers(len(HARMS))]
            what = f'round {number}: {harm.__name__} of {data.name}/{path.name}'
            try:
                harm(rng, path)
                same = {p.name: p.is_file() and p.read_bytes() for p in copy.iterdir()} == {
                    p.name: p.read_bytes() for p in data.iterdir()}
                got, found = outcome(read, copy), outcome(verify.verify, str(copy))
                assert got in ('error', expected[data]), 'other batches were read'
                assert (found == 'error') != same, f'verify said {found}'
                counts['error' if got == 'error' else 'no change' if same else 'the same batches'] += 1
                counts['found by verify'] += found == 'error'
                if harm is make_folder:
                    continue
                seal(copy)
                got = outcome(read, copy)
                counts['sealed: error' if got == 'error' else 'sealed: read'] += 1
                outcome(verify.verify, str(copy))
            except Exception as error:
                raise AssertionError(what) from error
            finally:
                shutil.rmtree(copy)
    return counts


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--count', type=int, default=200)
    parser.add_argument('--seed', type=int, default=0)
    for name, times in sorted(fuzz(**vars(parser.parse_args())).items()):
        print(f'{times:6,}  {name}')
