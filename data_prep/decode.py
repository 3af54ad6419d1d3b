"""Decoding a video file into small frames, with PyAV."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from .holes import Hole, unbroken
from .picture import encode_upright, upright_size
from .whole import COUNTED, missing_bytes

MOST_BYTES = 2**31 - 2**24  # of all frames: a tf.train.Example holds less than 2 GiB
# Metadata that are not UTF-8 are no reason to refuse a file: PyAV 18 has to be told, 19 has no such option any more.
LENIENT = {'metadata_errors': 'ignore'} if int(av.__version__.partition('.')[0]) < 19 else {}
ENOUGH = 0.9  # of the frames or seconds that the header promises; headers of sound files are off by up to 3 frames
ROUNDED = 1  # pixel by which stored frames of one aspect may differ
LIST = 'concat'  # the format of a text that names other files, which FFmpeg plays in its place, whatever its own name
SQUEEZED = 'the shape of its frames changes: all have that of the first, squeezed'
# What a file that cannot be decoded raises; arithmetic fails on the numbers that some state.
FAILURES = av.FFmpegError, OSError, ValueError, ArithmeticError


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


class NoVideo(ValueError):
    """A file has no video stream of its own."""


def broken(reason: str) -> Decoded:
    """A video that could not be decoded."""
    return Decoded([], 0, 0, 0.0, ' '.join(reason.split()))


def failure(error: Exception, where: str) -> Decoded:
    """The broken video of one of `FAILURES`."""
    text = getattr(error, 'strerror', None) or str(error)
    return broken(text if isinstance(error, NoVideo) else f'decoding failed {where}: {text}')


@contextmanager
def open_video(path: str | Path) -> Iterator[tuple[InputContainer, VideoStream, str]]:
    """An open file, the video stream that is read, and what to say about it: '' if there is no other.

    Of several streams the default one is read, or else the first; the cover picture of a sound file is none.
    """
    with av.open(os.path.abspath(path), **LENIENT) as container:  # a relative name with a colon would be an address
        if container.format.name == LIST:
            raise NoVideo('the file is a list of other files, and no video')
        videos = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
        if not videos:
            raise NoVideo('the file has no video stream')
        default = [stream for stream in videos if stream.disposition & Disposition.default]
        stream = (default or videos)[0]
        stream.thread_type = 'NONE'  # videos are decoded in parallel, each in one thread
        which = f'number {videos.index(stream) + 1}, the default one' if default else 'the first one'
        yield container, stream, f'of its {len(videos)} video streams {which}, is read' if len(videos) > 1 else ''


def decode_video(path: str | Path, short_side: int, encoding: str) -> Decoded:
    """Decode every frame of a file's video stream, upright, resized to `short_side` and encoded.

    The container's metadata is not trusted: text that is not UTF-8 is ignored, frames are counted by decoding them, and
    the display matrix (a phone held sideways, a mirrored selfie) is applied. Pixels are taken as square. Downscaling
    averages areas, upscaling is bicubic. A file that fails anywhere is broken as a whole, also where the decoder only
    marks a frame as damaged, or the file lacks something in its middle, or is shorter than it says of itself: half a
    video would pass for a short one.
    """
    frames, height, width, size, turned = [], 0, 0, 0, False
    stamps, end = [], 0.0  # of the video's frames; and where the last packet of any stream ends, in seconds

    def packets_of(container: InputContainer, stream: VideoStream) -> Iterator[av.Packet]:
        nonlocal end
        for packet in container.demux():
            if not stream.frames and packet.pts is not None:  # else nobody asks
                end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            if packet.stream is stream:
                yield packet

    try:
        with open_video(path) as (container, stream, remark):
            name = container.format.name
            for frame in unbroken(packets_of(container, stream)):
                if frame.is_corrupt:
                    return broken(f'frame {len(frames)} is damaged, or the file was cut there')
                shape = upright_size(frame, short_side)
                if not frames:
                    height, width = shape
                turned = turned or max(abs(shape[0] - height), abs(shape[1] - width)) > ROUNDED
                frames.append(encode_upright(frame, height, width, encoding))
                stamps.append(frame.pts)
                size += len(frames[-1])
                if size > MOST_BYTES:
                    return broken('its frames take more than the 2 GB of a record: cut the video into parts')
            if not frames:
                return broken('the file has no decodable frame')
            listed = stream.frames if stream.frames and name not in COUNTED else float('inf')
            if len(frames) < listed and (lack := missing_bytes(path, name)):
                return cut_off(f'after {len(frames)} frames', lack)
            odd = '; '.join(filter(None, (_promise(container, stream, len(frames), end), turned and SQUEEZED)))
            fps = frame_rate(stream, stamps)
    except FAILURES as error:
        where = f'after {len(frames)} frames'
        with suppress(*FAILURES):  # it has failed already
            if isinstance(error, Hole) and (lack := missing_bytes(path, name)):
                return cut_off(where, lack)
        return failure(error, where)
    return Decoded(frames, height, width, fps, '; '.join(filter(None, (remark, odd))))


def cut_off(where: str, lack: int) -> Decoded:
    """Of a file that lacks so many bytes at its end."""
    return broken(f'the file was cut {where}: {lack:,} bytes are missing at its end')


def _promise(container: InputContainer, stream: VideoStream, count: int, end: float) -> str:
    """What the header promises, if that is much more than was found.

    Containers without a count of frames (MKV, WebM, FLV) have a length instead, which is that of the longest stream.
    """
    if stream.frames:
        return f'{count} frames, and the header promises {stream.frames}' if count < ENOUGH * stream.frames else ''
    length = (container.duration or 0) / av.time_base
    return f'it ends at {end:.1f} s, and the header promises {length:.1f} s' if end < ENOUGH * length else ''


def frame_rate(stream: VideoStream, stamps: list[int | None]) -> float:
    """Frames a second, 0 if nothing says it.

    Where the header has no count of frames its rate may be any number, such as one frame a tick of the clock. It counts
    if the frames' own times agree with it to a tenth; else their rate does, rounded as far as the clock is coarse.
    """
    stated = float(stream.average_rate or stream.guessed_rate or 0)
    if stream.frames or None in stamps or (ticks := max(stamps) - min(stamps)) <= 0:
        return stated
    own = Fraction(len(stamps) - 1, ticks) / stream.time_base
    if abs(stated - own) <= own / 10:
        return stated
    return float(round(own) if abs(round(own) - own) <= own / ticks else own)
