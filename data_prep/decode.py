"""Decoding a video file into small frames, with PyAV."""

from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from vididi_jax.data.records import encode_frame

MOST_BYTES = 2**31 - 2**24  # of all frames: a tf.train.Example holds less than 2 GiB
# Metadata that are not UTF-8 are no reason to refuse a file: PyAV 18 has to be told, 19 has no such option any more.
LENIENT = {'metadata_errors': 'ignore'} if int(av.__version__.partition('.')[0]) < 19 else {}
ENOUGH = 0.9  # of the frames that the header promises; headers of sound files are off by up to 3 frames


class Decoded(NamedTuple):
    """The frames of a video, each encoded, and their properties.

    Attributes:
      frames: encoded frames; none if the video is broken.
      height, width: pixels of the encoded frames.
      fps: frames a second, 0 if the file does not say.
      reason: why the video is broken; if it has frames, what is odd about them; mostly ''.
    """

    frames: list[bytes]
    height: int
    width: int
    fps: float
    reason: str = ''


def broken(reason: str) -> Decoded:
    """A video that could not be decoded."""
    return Decoded([], 0, 0, 0.0, ' '.join(reason.split()))


def target_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Height and width with the shorter side `short_side` and the aspect kept, the longer side rounded.

    >>> target_size(240, 320, 128)
    (128, 171)
    """
    scale = short_side / min(height, width)
    return max(round(height * scale), short_side), max(round(width * scale), short_side)


def quarter_turns(frame: av.VideoFrame) -> int:
    """Counter-clockwise quarter turns that put a frame upright, as the display matrix says: 0 to 3."""
    return round(frame.rotation / 90) % 4


def upright_size(frame: av.VideoFrame, short_side: int) -> tuple[int, int]:
    """Height and width at which a frame is stored, upright."""
    upright = (frame.width, frame.height) if quarter_turns(frame) % 2 else (frame.height, frame.width)
    return target_size(*upright, short_side)


def encode_upright(frame: av.VideoFrame, height: int, width: int, encoding: str) -> bytes:
    """A decoded frame upright, resized and encoded; downscaling averages areas, upscaling is bicubic."""
    turns = quarter_turns(frame)
    across, down = (height, width) if turns % 2 else (width, height)
    shrinks = min(frame.height, frame.width) > min(height, width)
    small = frame.reformat(across, down, format='rgb24', interpolation='AREA' if shrinks else 'BICUBIC')
    return encode_frame(np.rot90(small.to_ndarray(), turns), encoding)


def decode_video(path: str | Path, short_side: int, encoding: str) -> Decoded:
    """Decode every frame of the first video stream, upright, resized to `short_side` and encoded.

    The container's metadata is not trusted: text that is not UTF-8 is ignored, frames are counted by decoding them, and
    the display matrix (a phone held sideways) is applied. Pixels are taken as square. Downscaling averages areas,
    upscaling is bicubic. A file that fails anywhere is broken as a whole, also where the decoder only marks a frame as
    damaged, as it does at the end of a file that was cut: half a video would pass for a short one.
    """
    frames, height, width, size = [], 0, 0, 0
    try:
        with av.open(str(path), **LENIENT) as container:
            if not container.streams.video:
                return broken('the file has no video stream')
            stream = container.streams.video[0]
            stream.thread_type = 'NONE'  # videos are decoded in parallel, each in one thread
            fps = float(stream.average_rate or stream.guessed_rate or 0)
            promised = stream.frames or (container.duration or 0) / av.time_base * fps
            for frame in container.decode(stream):
                if frame.is_corrupt:
                    return broken(f'frame {len(frames)} is damaged, or the file was cut there')
                if not frames:
                    height, width = upright_size(frame, short_side)
                frames.append(encode_upright(frame, height, width, encoding))
                size += len(frames[-1])
                if size > MOST_BYTES:
                    return broken('its frames take more than the 2 GB of a record: cut the video into parts')
    except (av.FFmpegError, OSError, ValueError) as error:
        text = getattr(error, 'strerror', None) or str(error)
        return broken(f'decoding failed after {len(frames)} frames: {text}')
    if not frames:
        return broken('the file has no decodable frame')
    odd = f'{len(frames)} frames, and the header promises {promised:.0f}' if len(frames) < ENOUGH * promised else ''
    return Decoded(frames, height, width, fps, odd)
