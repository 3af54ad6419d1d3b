"""How fast clips come from a prepared data set, beside the decoder alone and beside a PyTorch DataLoader.

python benchmarks/input.py DIR [--split=train] [--batch_size=64] [--frames=8] [--stride=3] [--rounds=5] [--workers=1 2]

Two adjacent clips a video, as pretraining reads them. In turns, in one run, with all files in the system's memory:
  codec        jpeg: decoding the frames of a batch from memory, in one thread; raw: copying a batch in memory
  batches      making a batch in one thread
  N workers    batches as the training loop gets them, from N processes
  DataLoader   where torch and torchvision are installed (make parity): the same frames as a folder of jpeg files a
               video, torchvision.io.decode_image, one resizing crop for the clip, one and as many workers
And last, since the others are to find the files in memory:
  cold         making a batch in one thread after the system has forgotten the files

A rate is batches x videos (or frames, or bytes of uint8 pixels) over the time that the consumer waits.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import cv2
import numpy as np
from tqdm import tqdm

from vididi_jax.data import pipeline, records
from vididi_jax.data.clips import sample_clip_pair
from vididi_jax.data.readers import usable_cpus
from vididi_jax.data.source import RecordSource
from vididi_jax.errors import UserError, one_sentence

BATCHES = 6  # of a measurement, of each process: they come in bursts of one of each
BUFFERED = 6  # at most, by each process, while others were measured: thrown away first
PAUSE = 3  # seconds before each measurement, in which those of before read ahead as far as they do


def encoded_frames(source: RecordSource, count: int) -> list[bytes]:
    """The bytes of `count` frames, of as many videos as there are."""
    found = []
    while len(found) < count:
        i = len(found) % len(source)
        table = source.frame_table(i)
        with source.shards[source.index['shard'][i]].open('rb') as file:
            offset, length, _ = table[len(found) // len(source) % len(table)].item()
            file.seek(offset)
            found.append(file.read(length))
    return found


def remember(source: RecordSource) -> None:
    """Have the system read the shards into its memory."""
    for path in tqdm(source.shards, desc='reading shards', unit='shard', leave=False):
        with path.open('rb', buffering=0) as file:
            while file.read(2**24):
                pass


def forget(source: RecordSource) -> None:
    """Ask the system to drop the shards and the table of frames from memory."""
    os.sync()  # what is not written yet is not dropped
    for path in (*source.shards, source._frames):
        with path.open('rb') as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def timed(function: Callable[[], object]) -> float:
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def steady(batches: Iterator, workers: int) -> float:
    """Seconds a batch of an endless iterator that so many processes read ahead for, from a steady state."""
    for _ in range(BUFFERED * workers):
        next(batches)
    count = BATCHES * max(1, workers)
    return timed(lambda: [next(batches) for _ in range(count)]) / count


class Folders:
    """The same videos as folders of jpeg files, and clips of them as PyTorch users read them."""

    def __init__(self, root: Path, source: RecordSource, videos: int, frames: int, stride: int):
        self.frames, self.stride, self.paths = frames, stride, []
        for i in tqdm(range(min(videos, len(source))), desc='writing folders', unit='video', leave=False):
            folder = root / f'{i:05}'
            folder.mkdir()
            for t, frame in enumerate(source[i].frames(range(source[i].num_frames))):
                (folder / f'{t:05}.jpg').write_bytes(records.encode_frame(frame, 'jpeg'))
            self.paths.append(sorted(folder.iterdir()))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int):
        import torch
        from torchvision.io import ImageReadMode, decode_image
        from torchvision.transforms import v2

        rng = np.random.default_rng()
        paths = self.paths[i]
        clips = sample_clip_pair(rng, len(paths), length=self.frames, stride=self.stride)
        crop = v2.RandomResizedCrop(112, antialias=True)
        return torch.stack([crop(torch.stack([decode_image(str(paths[t]), ImageReadMode.RGB) for t in clip]))
                            for clip in clips])


def loader_batches(folders: Folders, batch_size: int, workers: int) -> Iterator:
    import torch

    torch.set_num_threads(1)
    endless = torch.utils.data.RandomSampler(folders, replacement=True, num_samples=10**9)  # one epoch: no new workers
    yield from torch.utils.data.DataLoader(folders, batch_size, sampler=endless, num_workers=workers)


def has_torch() -> bool:
    try:
        import torch  # noqa: F401
        import torchvision  # noqa: F401
    except ImportError:
        return False
    return True


def measure(arguments: argparse.Namespace) -> None:
    cv2.setNumThreads(0)
    source = RecordSource(arguments.directory, arguments.split)
    videos, frames = arguments.batch_size, 2 * arguments.frames * arguments.batch_size
    stream = pipeline.training_stream(
        source, np.arange(len(source)), length=arguments.frames, stride=arguments.stride, placement='adjacent',
        batch_size=videos, seed=0)
    batch = stream[0]['clips']
    print(f'{source.directory}, {len(source):,} videos, {source.encoding}: batches of {videos} videos x 2 clips x '
          f'{arguments.frames} frames of {batch.shape[3]} x {batch.shape[4]}, {batch.nbytes / 2**20:.0f} MB')
    encoded = encoded_frames(source, frames)
    height, width = source.sizes.T
    out = np.zeros((height.max(), width.max(), 3), np.uint8)

    def codec() -> None:
        if source.encoding == 'raw':
            np.copyto(copied, batch)
            return
        for number, data in enumerate(encoded):
            i = number % len(source)
            records.decode_frame(data, 'jpeg', out[: height[i], : width[i]])

    copied, position = np.empty_like(batch), [0]

    def make() -> float:
        position[0] += 1
        return timed(lambda: stream[position[0]])

    seconds: dict[str, list[float]] = {}
    remember(source)
    with ExitStack() as held:
        ways: dict[str, Callable[[], float]] = {'codec': lambda: timed(codec), 'batches': make}
        for workers in arguments.workers:
            reader = held.enter_context(pipeline.iterate(stream, workers=workers))
            ways[f'{workers} workers'] = lambda reader=reader, workers=workers: steady(reader, workers)
        if has_torch():
            root = Path(held.enter_context(tempfile.TemporaryDirectory()))
            folders = Folders(root, source, 4 * videos, arguments.frames, arguments.stride)
            if len(folders) < videos:
                raise UserError(f'{source.directory} has {len(folders)} videos: lower --batch_size.')
            for workers in arguments.workers:
                batches = loader_batches(folders, videos, workers)
                ways[f'DataLoader, {workers} workers'] = (
                    lambda batches=batches, workers=workers: steady(batches, workers))
        for _ in tqdm(range(arguments.rounds), unit='round', leave=False):
            for name, way in ways.items():
                time.sleep(PAUSE)
                seconds.setdefault(name, []).append(way())
    for _ in range(arguments.rounds):
        forget(source)
        seconds.setdefault('batches, cold', []).append(make())
    codec_rate = frames / np.median(seconds['codec'])
    print(f'{"":24}{"videos/s":>10}{"frames/s":>10}{"MB/s":>8}{"of codec":>10}')
    for name, values in seconds.items():
        second = float(np.median(values))
        size = '' if name.startswith('DataLoader') else f'{batch.nbytes / 2**20 / second:,.0f}'  # its batches are cut
        print(f'{name:24}{videos / second:10,.0f}{frames / second:10,.0f}{size:>8}'
              f'{frames / second / codec_rate:10.2f}')
    if not has_torch():
        print('no torch and torchvision here: no DataLoader')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('directory', help='data set directory')
    parser.add_argument('--split', default='train', help='its split (train)')
    parser.add_argument('--batch_size', type=int, default=64, help='videos (64)')
    parser.add_argument('--frames', type=int, default=8, help='of a clip (8)')
    parser.add_argument('--stride', type=int, default=3, help='of a clip (3)')
    parser.add_argument('--rounds', type=int, default=5, help='turns of all measurements (5)')
    parser.add_argument('--workers', type=int, nargs='*', default=[1, usable_cpus()], help='reading processes')
    measure(parser.parse_args())


if __name__ == '__main__':
    with one_sentence():
        main()
