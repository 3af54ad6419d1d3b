"""Small video files made for tests."""

import av
import numpy as np


def ramp(frames=12, height=48, width=64, seed=0):
    """A video of a bright patch that moves: uint8 (frames, height, width, 3)."""
    rng = np.random.default_rng(seed)
    video = np.full((frames, height, width, 3), rng.integers(0, 100, 3), np.uint8)
    for t in range(frames):
        video[t, 8:24, 2 * t : 2 * t + 16] = (230, 180, 40)
    return video


def write_video(path, frames, *, codec='mpeg4', rate=10, **options):
    """Write frames with PyAV; the container follows the file's name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), 'w') as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], 'yuv420p'
        stream.bit_rate = 4_000_000
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format='rgb24')))
        container.mux(stream.encode())
    return path
