"""How fast `data_prep folder` prepares videos, beside the same decoding, resizing and encoding with nothing around it.

python benchmarks/prep.py VIDEOS [--short_side=128] [--rounds=5]

One process, one thread, the files in the system's memory, the output in a temporary folder. All times are of the
processor, so that other work on the machine counts for little; waiting for the disk is not in them. In turns, in one
run:
  decode       PyAV decodes every frame
  + resize     and makes it a small BGR array, with the scaler and the size of data_prep
  + jpeg       and OpenCV encodes that, with the quality of data_prep
  data_prep    the whole command with --workers=1: looking for files, decoding, shards with their checksums, index,
               manifest and description; without the start of Python and its imports

Then, of another run of data_prep in each round, what share of its time goes into the decoder (reading packets and
decoding them), the scaler and the jpeg encoder, each with a clock around its calls.
"""

import argparse
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[1]))

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter
from tqdm import tqdm

from data_prep import decode, picture
from data_prep.__main__ import build_parser, run
from data_prep.tree import check_folder, read_tree
from vididi_jax.data.records import JPEG_QUALITY
from vididi_jax.data.source import RecordSource
from vididi_jax.errors import UserError, one_sentence


def frames_of(path: Path) -> Iterator[av.VideoFrame]:
    """The frames of a file, until it cannot be decoded."""
    try:
        with decode.open_video(path) as (container, stream, _):
            yield from container.decode(stream)
    except decode.FAILURES:
        return


def plain(paths: list[Path], short_side: int, resize: bool, jpeg: bool) -> None:
    """What data_prep does to the pixels of plain videos, and nothing else."""
    scaler = VideoReformatter()
    for path in paths:
        for frame in frames_of(path):
            if resize:
                height, width = picture.target_size(frame.height, frame.width, short_side)
                shrinks = min(frame.height, frame.width) > short_side
                if frame.colorspace == picture.RESERVED:
                    frame.colorspace = picture.UNSPECIFIED
                small = scaler.reformat(frame, width, height, format='bgr24', threads=1,
                                        interpolation='AREA' if shrinks else 'BICUBIC').to_ndarray()
            if jpeg:
                cv2.imencode('.jpg', small, (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))


class Timed:
    """Something whose methods are its own, but for those that are given."""

    def __init__(self, inner, **methods):
        self.inner = inner
        self.__dict__.update(methods)

    def __getattr__(self, name):
        return getattr(self.inner, name)


@contextmanager
def clocks() -> Iterator[dict[str, float]]:
    """Within the `with`, the seconds that data_prep spends in decoder, scaler and jpeg encoder."""
    spent = defaultdict(float)

    def timed(name: str, function: Callable) -> Callable:
        def call(*arguments):
            begin = time.process_time()
            try:
                return function(*arguments)
            finally:
                spent[name] += time.process_time() - begin
        return call

    def demux(container) -> Iterator[Timed]:
        following = timed('decoder', container.demux().__next__)
        try:
            while True:
                packet = following()
                yield Timed(packet, decode=timed('decoder', packet.decode))
        except StopIteration:
            return

    @contextmanager
    def open_video(path):
        with original(path) as (container, stream, remark):
            yield Timed(container, demux=lambda: demux(container)), stream, remark

    original = decode.open_video
    with mock.patch.object(decode, 'open_video', open_video), \
         mock.patch.object(picture, '_resize', timed('scaler', picture._resize)), \
         mock.patch.object(picture, 'encode_frame', timed('jpeg encoder', picture.encode_frame)):
        yield spent


def prepare(videos: Path, short_side: int, check: Callable[[RecordSource], None] | None = None) -> None:
    """The command, quietly, into a folder that is deleted."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / 'out'
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            run(build_parser().parse_args([
                'folder', f'--videos={videos}', f'--out={out}', f'--short_side={short_side}', '--workers=1']))
        if check:
            check(RecordSource(out, 'train'))


def seconds(function: Callable[[], None]) -> float:
    begin = time.process_time()
    function()
    return time.process_time() - begin


def measure(arguments: argparse.Namespace) -> None:
    cv2.setNumThreads(0)
    root, short_side = check_folder(arguments.videos, 'VIDEOS'), arguments.short_side
    paths, frames = [root / path for path in read_tree(root).videos], []
    if not paths:
        raise UserError(f'{root} holds no video files: give another folder.')
    prepare(root, short_side, lambda source: frames.extend(source.index['frames'].tolist()))  # imports, and files read
    ways = {
        'decode': lambda: plain(paths, short_side, resize=False, jpeg=False),
        '+ resize': lambda: plain(paths, short_side, resize=True, jpeg=False),
        '+ jpeg': lambda: plain(paths, short_side, resize=True, jpeg=True),
        'data_prep': lambda: prepare(root, short_side)}
    taken, shares = defaultdict(list), defaultdict(list)
    for _ in tqdm(range(arguments.rounds), unit='round', leave=False):
        for name, way in ways.items():
            taken[name].append(seconds(way))
        with clocks() as spent:
            whole = seconds(lambda: prepare(root, short_side))
        for name, value in spent.items():
            shares[name].append(value / whole)
        shares['the three'].append(sum(spent.values()) / whole)
    print(f'{root}: {len(frames):,} videos of {len(paths):,} files, {sum(frames):,} frames, to {short_side} pixels')
    print(f'{"":12}{"videos/s":>10}{"frames/s":>10}{"of data_prep":>14}{"quartiles":>16}')
    for name, values in taken.items():
        ratios = np.array(values) / taken['data_prep']
        low, high = np.quantile(ratios, (0.25, 0.75))
        print(f'{name:12}{len(frames) / np.median(values):10,.1f}{sum(frames) / np.median(values):10,.0f}'
              f'{np.median(ratios):14.2f}{f"{low:.2f} - {high:.2f}":>16}')
    print('share of the time of data_prep: ' + ', '.join(
        f'{name} {np.median(values):.1%}' for name, values in shares.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('videos', help='folder of videos')
    parser.add_argument('--short_side', type=int, default=128, help='shorter side of the stored frames (128)')
    parser.add_argument('--rounds', type=int, default=5, help='turns of all measurements (5)')
    measure(parser.parse_args())


if __name__ == '__main__':
    with one_sentence():
        main()
