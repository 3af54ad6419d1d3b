"""Motion against background: triples of videos that ask which of the two an encoder looks at.

Of each triple the query and the `negative` stand before the very same background under the same tint, and move
differently; the `positive` moves as the query does, before another background. Sprites are drawn for each video alone,
as those of the motion data set. The background is the group of a video.
"""

import argparse
from functools import partial

import numpy as np

from vididi_jax.data.records import encode_frame
from vididi_jax.errors import UserError

from .decode import Decoded
from .motion import BACKGROUND, CLASSES, FPS, draw_background, draw_sprite, paint, resolve
from .plan import Plan, Video

ROLES = ('query', 'positive', 'negative')
PLACE, SPRITE = 2, 3  # what random numbers are for; part of their seed, beside the splits of motion


def motion_of(triple: int, role: str) -> str:
    """The class of a video: queries take all classes in turn, negatives all others in turn."""
    count = len(CLASSES)
    other = 1 + triple // count % (count - 1) if role == 'negative' else 0
    return CLASSES[(triple + other) % count]


def background_of(triple: int, role: str) -> str:
    """The name of what a video stands before."""
    return f'background_{triple:05d}_{"positive" if role == "positive" else "query"}'


def render_video(seed: int, triple: int, role: str, frames: int, size: int) -> np.ndarray:
    """A video: uint8 (frames, size, size, 3). Depends on nothing but the arguments."""
    background, tint = draw_background(
        np.random.default_rng((seed, PLACE, triple, int(role == 'positive'))), size)
    sprite = draw_sprite(np.random.default_rng((seed, SPRITE, triple, ROLES.index(role))), motion_of(triple, role),
                         frames, size)
    return paint(background, [sprite], tint)


def decode(video: Video, *, seed: int, frames: int, size: int) -> Decoded:
    """The writer's view of `render_video`; triple and role stand at the end of the video's id."""
    _, triple, role = video.id.rsplit('_', 2)
    pixels = render_video(seed, int(triple), role, frames, size)
    return Decoded([encode_frame(frame, 'raw') for frame in pixels], size, size, FPS)


def plan(arguments: argparse.Namespace) -> tuple[Plan, partial]:
    """What to write, and how each video is made; `--test` counts triples."""
    if arguments.train is not None:
        raise UserError('--triples has a test split alone: leave --train away.')
    numbers = resolve(arguments, 1, 256, 24, smallest=8)
    options = {name: numbers[name] for name in ('seed', 'frames', 'size')}
    videos = tuple(Video(f'motion_{triple:05d}_{role}', f'test/{triple:05d}_{role}', motion_of(triple, role),
                         background_of(triple, role), 'test')
                   for triple in range(numbers['test']) for role in ROLES)
    return Plan('motion_triples', '', CLASSES, videos, (), 'raw', options | BACKGROUND), partial(decode, **options)
