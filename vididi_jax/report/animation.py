"""Short videos as animated pictures, each once in a page."""

import io

import cv2
import numpy as np
from PIL import Image

from vididi_jax.data.source import RecordSource

SIDE = 64  # pixels of the longer side, at most
FRAMES = 24  # at most, evenly spaced
MILLISECONDS = 100  # a frame


def animation(frames: np.ndarray) -> bytes:
    """Animated WebP, endless, of uint8 RGB frames (T, H, W, 3); large ones are shrunk, small ones stay."""
    height, width = frames.shape[1:3]
    scale = min(1.0, SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    images = [Image.fromarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA) if scale < 1 else frame)
              for frame in frames]
    file = io.BytesIO()
    images[0].save(file, 'webp', save_all=True, append_images=images[1:], duration=MILLISECONDS, loop=0, quality=75)
    return file.getvalue()


def speed(frames: int = FRAMES) -> str:
    """How videos move that are shown by at most so many frames."""
    return (f'A moving picture has up to {frames} evenly spaced frames of a whole video, and shows '
            f'{1000 // MILLISECONDS} a second, whatever the length of the video.')


def evenly(frames: int, count: int = FRAMES) -> np.ndarray:
    """At most `count` indices of frames, evenly spaced."""
    return np.unique(np.linspace(0, frames - 1, min(frames, count)).round().astype(int))


class Clips:
    """The animations of a page: each video once, whoever shows it.

    Attributes:
      pictures: WebP, by number.
    """

    def __init__(self):
        self.pictures: list[bytes] = []
        self._known: dict[tuple, int] = {}

    def add(self, frames: np.ndarray) -> int:
        """The number of a new animation, see `animation`."""
        self.pictures.append(animation(frames))
        return len(self.pictures) - 1

    def of_video(self, source: RecordSource, record: int) -> int:
        """The number of the animation of a video."""
        place = source.directory, source.split, int(record)
        if place not in self._known:
            video = source[int(record)]
            self._known[place] = self.add(video.frames(evenly(video.num_frames)))
        return self._known[place]
