"""Small video files made for tests."""

from fractions import Fraction

import av
import numpy as np
from av.stream import Disposition


def ramp(frames=12, height=48, width=64, seed=0):
    """A video of a bright patch that moves: uint8 (frames, height, width, 3)."""
    rng = np.random.default_rng(seed)
    video = np.full((frames, height, width, 3), rng.integers(0, 100, 3), np.uint8)
    for t in range(frames):
        video[t, 8:24, 2 * t : 2 * t + 16] = (230, 180, 40)
    return video


def levels(frames, height=32, width=48):
    """A video whose frame n is grey, with the level 4 n: uint8 (frames, height, width, 3)."""
    return np.broadcast_to(4 * np.arange(frames, dtype=np.uint8)[:, None, None, None], (frames, height, width, 3))


def write_video(path, *videos, codec='mpeg4', rate=10, default=None, container=None, pixel_format='yuv420p',
                **options):
    """Write frames with PyAV; the container follows the file's name.

    Args:
      path: of the file.
      videos: one or more streams of frames.
      codec, rate, options: of the streams.
      default: which of several streams is the default one.
      container: options of the container.
      pixel_format: of the streams.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), 'w', options=container or {}) as file:
        streams = [file.add_stream(codec, rate=rate, options=options) for _ in videos]
        for number, (stream, frames) in enumerate(zip(streams, videos, strict=True)):
            stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pixel_format
            stream.bit_rate = 4_000_000
            stream.time_base = Fraction(1, rate)
            if default is not None:
                stream.disposition = Disposition.default if number == default else Disposition(0)
        for stream, frames in zip(streams, videos, strict=True):
            for frame in frames:
                picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format='rgb24')
                file.mux(stream.encode(picture.reformat(format=pixel_format)))
            file.mux(stream.encode())
    return path


def pixels(decoded):
    """The frames of a video that was decoded to raw pixels: uint8 (T, H, W, 3)."""
    shape = len(decoded.frames), decoded.height, decoded.width, 3
    return np.frombuffer(b''.join(decoded.frames), np.uint8).reshape(shape)


def damage(path, number):
    """Overwrite the middle of packet `number` of a video with zeros; a decoder that notices marks the frame."""
    with av.open(str(path)) as file:
        packet = [packet for packet in file.demux(file.streams.video[0]) if packet.size][number]
        start, length = packet.pos + packet.size // 3, packet.size // 2
    data = bytearray(path.read_bytes())
    data[start : start + length] = bytes(length)
    path.write_bytes(data)
    return path
