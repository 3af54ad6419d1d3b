"""The motion data set: synthetic videos in which ONLY motion tells the class.

Each video has a static background, a texture of its own grain and direction, a global tint, and one white sprite of
random shape and start, all drawn independently of the class. The class is how the sprite moves: translation in four
directions, circles clockwise and counter-clockwise, horizontal oscillation, or pulsing size. Frames are tori: what
leaves at one side comes in at the other, so a position in a single frame says nothing, and neither does a size. Speed,
mean size and period are the same in all videos: what moves alike in two clips of a video, beside the shape, is its
class.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from vididi_jax.data.records import encode_frame
from vididi_jax.errors import UserError

from .decode import Decoded
from .plan import Plan, Video

CLASSES = ('left', 'right', 'up', 'down', 'clockwise', 'counterclockwise', 'oscillating', 'pulsing')
SHAPES = ('disc', 'square', 'diamond', 'ring', 'cross')
EXTENT = {'disc': 1.0, 'square': 0.9, 'diamond': 1.2, 'ring': 1.05, 'cross': 1.1}  # half a shape's box, in radii
DIRECTIONS = {'left': (0, -1), 'right': (0, 1), 'up': (-1, 0), 'down': (1, 0)}
SPLITS = ('train', 'test')
FPS = 25.0
BACKGROUND = {'background': 'texture'}  # part of the plan: videos of before had another, and are not gone on with
PULSE = 0.35  # relative amplitude of a pulsing size


class Trajectory(NamedTuple):
    """Centre (row, column) and radius of a sprite in each frame: (T, 2) and (T,), pixels; centres wrap."""

    centre: np.ndarray
    radius: np.ndarray


class Sizes(NamedTuple):
    """Ranges that sizes and speeds are drawn from, uniformly: shares of the scale, and frames a turn.

    Attributes:
      radius: mean radius of a sprite.
      speed: a frame.
      period: of circles, oscillation and pulsing.
      circle: radius of circles, of what the speed goes in a radian (not drawn).
    """

    radius: tuple[float, float]
    speed: tuple[float, float]
    period: tuple[float, float]
    circle: float


SAME = Sizes((0.23, 0.23), (0.06, 0.06), (8, 8), 1.5)
VARIED = Sizes((0.18, 0.28), (0.04, 0.08), (10, 18), 1.0)


def trajectory(
    rng: np.random.Generator, motion: str, frames: int, size: int, sizes: Sizes, scale: float | None = None
) -> Trajectory:
    """How a sprite of class `motion` moves through frames of `size` pixels.

    Radii and speeds are shares of `scale` pixels, by default of the frame. The start is uniform on the torus. Every
    sprite's radius is drawn as `base * (1 + PULSE * sin(phase))`; only in the class 'pulsing' does the phase advance,
    so the radii of single frames have one distribution.
    """
    scale = scale or size
    time = np.arange(frames)
    start = rng.uniform(0, size, 2)
    base = scale * rng.uniform(*sizes.radius)
    speed = scale * rng.uniform(*sizes.speed)  # pixels a frame
    phase = rng.uniform(0, 2 * np.pi)
    turn = 2 * np.pi / rng.uniform(*sizes.period)  # radians a frame
    size_phase = rng.uniform(0, 2 * np.pi) + (turn * time if motion == 'pulsing' else 0 * time)
    angle = phase + turn * time
    if motion in DIRECTIONS:
        offset = speed * time[:, None] * np.array(DIRECTIONS[motion])
    elif motion in ('clockwise', 'counterclockwise'):
        sense = 1 if motion == 'clockwise' else -1  # rows grow downwards: (sin, cos) turns clockwise
        offset = sizes.circle * speed / turn * np.stack([sense * np.sin(angle), np.cos(angle)], axis=1)
    elif motion == 'oscillating':
        offset = np.stack([0 * time, 1.5 * speed / turn * np.sin(angle)], axis=1)
    else:
        offset = np.zeros((frames, 2))
    return Trajectory((start + offset) % size, base * (1 + PULSE * np.sin(size_phase)))


def coverage(shape: str, path: Trajectory, size: int) -> np.ndarray:
    """Share of each pixel that the sprite covers, edges antialiased: (T, size, size) in [0, 1]."""
    grid = np.arange(size) + 0.5
    offset = (grid - path.centre[:, :, None] + size / 2) % size - size / 2  # (T, 2, size): shortest way on the torus
    y, x = offset[:, 0, :, None], offset[:, 1, None, :]
    r = path.radius[:, None, None]
    distance = {  # signed distance to the edge in pixels, positive inside
        'disc': lambda: r - np.hypot(y, x),
        'square': lambda: 0.9 * r - np.maximum(abs(y), abs(x)),
        'diamond': lambda: (1.2 * r - abs(y) - abs(x)) / np.sqrt(2),
        'ring': lambda: 0.35 * r - abs(np.hypot(y, x) - 0.7 * r),
        'cross': lambda: np.maximum(np.minimum(0.35 * r - abs(y), 1.1 * r - abs(x)),
                                    np.minimum(0.35 * r - abs(x), 1.1 * r - abs(y))),
    }[shape]()
    return np.clip(distance + 0.5, 0, 1)


def smooth_noise(rng: np.random.Generator, size: int, cutoff: float = 3.5) -> np.ndarray:
    """A strong smooth background: colour noise of low spatial frequencies, (size, size, 3) in [0, 1].

    `cutoff`: cycles a frame at which the amplitude has fallen to 1/e.
    """
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(size, 1 / size), np.fft.fftfreq(size, 1 / size)))
    return _filtered_noise(rng, np.exp(-((frequency / cutoff) ** 2)))


def texture(rng: np.random.Generator, size: int) -> np.ndarray:
    """A static background, as easy to know again as a place is: colour noise with stripes, (size, size, 3) in [0, 1].

    Their direction is drawn from a half circle, and how fine they are from 2 to 5 cycles a frame (see `smooth_noise`),
    evenly on a logarithmic scale; along the stripes it is 1.5. Neither a shift nor a change of colour hides these two.
    """
    rows, columns = np.meshgrid(*2 * [np.fft.fftfreq(size, 1 / size)], indexing='ij')
    angle = rng.uniform(0, np.pi)
    fine = np.exp(rng.uniform(np.log(2), np.log(5)))
    across, along = rows * np.cos(angle) + columns * np.sin(angle), columns * np.cos(angle) - rows * np.sin(angle)
    return _filtered_noise(rng, np.exp(-((across / fine) ** 2) - (along / 1.5) ** 2))


def _filtered_noise(rng: np.random.Generator, amplitude: np.ndarray) -> np.ndarray:
    """White noise with an amplitude for each frequency (size, size): (size, size, 3), each colour from 0 to 1."""
    spectrum = np.fft.fft2(rng.standard_normal((*amplitude.shape, 3)), axes=(0, 1))
    noise = np.fft.ifft2(spectrum * amplitude[..., None], axes=(0, 1)).real
    noise -= noise.min((0, 1))
    return noise / noise.max((0, 1))


class Sprite(NamedTuple):
    """What moves: one of SHAPES, its path, and its colour, (3,) in [0, 1]."""

    shape: str
    path: Trajectory
    colour: np.ndarray


def paint(background: np.ndarray, sprites: Sequence[Sprite], tint: np.ndarray) -> np.ndarray:
    """A video of sprites, the later ones in front, before a static background: uint8 (T, size, size, 3)."""
    video = background
    for sprite in sprites:
        alpha = coverage(sprite.shape, sprite.path, len(background))[..., None]
        video = (1 - alpha) * video + alpha * sprite.colour
    return np.round(255 * video * tint).astype(np.uint8)


def draw_sprite(rng: np.random.Generator, motion: str, frames: int, size: int) -> Sprite:
    """A sprite of class `motion`; its shape is drawn independently of that.

    White, so that the sign of a temporal difference tells the front from the back, whatever the background is.
    """
    path = trajectory(rng, motion, frames, size, SAME)
    return Sprite(SHAPES[rng.integers(len(SHAPES))], path, np.ones(3))


def draw_background(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A `texture` (size, size, 3), and the tint (3,) of a whole video."""
    return texture(rng, size), rng.uniform(0.5, 1.0, 3)


def render_video(seed: int, split: str, number: int, frames: int, size: int) -> np.ndarray:
    """Video `number` of a split: uint8 (frames, size, size, 3). Depends on nothing but the arguments."""
    rng = np.random.default_rng((seed, SPLITS.index(split), number))
    sprite = draw_sprite(rng, label_of(number), frames, size)
    background, tint = draw_background(rng, size)
    return paint(background, [sprite], tint)


def label_of(number: int) -> str:
    """The class of video `number`: all classes in turn, so that every split is balanced."""
    return CLASSES[number % len(CLASSES)]


def decode(video: Video, *, seed: int, frames: int, size: int) -> Decoded:
    """The writer's view of `render_video`; the video's number stands at the end of its id."""
    pixels = render_video(seed, video.split, int(video.id.rpartition('_')[2]), frames, size)
    return Decoded([encode_frame(frame, 'raw') for frame in pixels], size, size, FPS)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument('--triples', action='store_true', help='triples of a query, a video of its motion before another '
                      'background, and one of another motion before its own')
    kind.add_argument('--boxes', action='store_true', help='one to three sprites a video, each with its own motion '
                      "and a box, in AVA's format: a small data set for detection")
    parser.add_argument('--train', type=int, help='videos of the train split (1024; with --boxes 768)')
    parser.add_argument('--test', type=int, help='videos of the test split (512; with --boxes 256), or triples (256)')
    parser.add_argument('--frames', type=int, default=24, help='frames of a video (24)')
    parser.add_argument('--size', type=int, help='height and width of a frame, pixels (24; with --boxes 64)')
    parser.add_argument('--seed', type=int, default=0)


def resolve(arguments: argparse.Namespace, train: int, test: int, size: int, smallest: int) -> dict[str, int]:
    """The numbers of a command line, those not given by default; raises `UserError` if one is too small."""
    numbers = {'train': train, 'test': test, 'frames': 24, 'size': size, 'seed': 0}
    numbers |= {name: value for name in numbers if (value := getattr(arguments, name)) is not None}
    if min(numbers['train'], numbers['test'], numbers['frames']) < 1 or numbers['size'] < smallest or (
            numbers['seed'] < 0):
        raise UserError(f'motion needs --train, --test and --frames of at least 1, --size of at least {smallest} and '
                        '--seed of at least 0.')
    return numbers


def plan(arguments: argparse.Namespace) -> tuple[Plan, partial]:
    """What to write, and how each video is made."""
    numbers = resolve(arguments, 1024, 512, 24, smallest=8)
    options = {name: numbers[name] for name in ('seed', 'frames', 'size')}
    videos = tuple(
        Video(f'motion_{split}_{number:05d}', f'{split}/{number:05d}', label_of(number), '', split)
        for split in SPLITS for number in range(numbers[split]))
    return Plan('motion', '', CLASSES, videos, (), 'raw', options | BACKGROUND), partial(decode, **options)
