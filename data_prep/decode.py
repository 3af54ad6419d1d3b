"""Decoding a video file into small frames, with PyAV."""

from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from vididi_jax.data.records import encode_frame


class Decoded(NamedTuple):
    """The frames of a video, each encoded, and their properties; or the reason why there are none."""

    frames: list[bytes]
    height: int
    width: int
    fps: float
    reason: str = ''


def broken(reason: str) -> Decoded:
    """A video that could not be decoded."""
    return Decoded([], 0, 0, 0.0, ' '.join(reason.split()))


def target_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Height and width with the shorter side `short_side` and the aspect kept, the longer side rounded."""
    scale = short_side / min(height, width)
    return max(round(height * scale), short_side), max(round(width * scale), short_side)


def decode_video(path: str | Path, short_side: int, encoding: str) -> Decoded:
    """Decode every frame of the first video stream, upright, resized to `short_side` and encoded.

    The container's metadata is not trusted: text that is not UTF-8 is ignored, frames are counted by decoding them, and
    the display matrix (a phone held sideways) is applied. Downscaling averages areas, upscaling is bicubic. A file that
    fails anywhere is broken as a whole: half a video would pass for a short one.
    """
    frames, height, width, count = [], 0, 0, 0
    try:
        with av.open(str(path), metadata_errors='ignore') as container:
            if not container.streams.video:
                return broken('the file has no video stream')
            stream = container.streams.video[0]
            stream.thread_type = 'NONE'  # videos are decoded in parallel, each in one thread
            rate = stream.average_rate or stream.guessed_rate
            for frame in container.decode(stream):
                turns = round(frame.rotation / 90) % 4  # counter-clockwise quarter turns
                if not count:
                    upright = (frame.width, frame.height) if turns % 2 else (frame.height, frame.width)
                    height, width = target_size(*upright, short_side)
                size = (height, width) if turns % 2 else (width, height)
                shrinks = min(frame.height, frame.width) > short_side
                small = frame.reformat(*size, format='rgb24', interpolation='AREA' if shrinks else 'BICUBIC')
                frames.append(encode_frame(np.rot90(small.to_ndarray(), turns), encoding))
                count += 1
    except (av.FFmpegError, OSError, ValueError) as error:
        return broken(f'decoding failed after {count} frames: {error}')
    if not count:
        return broken('the file has no decodable frame')
    return Decoded(frames, height, width, float(rate or 0))
