"""Motion with boxes: one to three sprites a video, each with its own motion class, in AVA's format.

Shapes, backgrounds and motions are those of the motion data set, in frames of 64 pixels; colours, sizes, speeds and
periods are drawn for each sprite. Lengths are shares of
SCALE times the frame's size (40 pixels at 64), so that a sprite has 7 to 11 pixels radius before it pulses. The class
of each sprite is drawn uniformly and independently. The keyframe is the middle frame, `frames // 2`: there each sprite
lies wholly inside the frame, and of no two of their boxes is more than OVERLAP of the smaller one common (draws that
break this are repeated as a whole). A box is the smallest one around the sprite in the keyframe, which
tells nothing about its class; later sprites stand in front.
"""

import argparse
from functools import partial
from typing import NamedTuple

import numpy as np

from vididi_jax.data.records import encode_frame
from vididi_jax.detection import ava

from .decode import Decoded
from .motion import (
    CLASSES,
    EXTENT,
    FPS,
    SHAPES,
    SPLITS,
    VARIED,
    Sprite,
    paint,
    resolve,
    smooth_noise,
    trajectory,
)
from .plan import Plan, Video

TIMESTAMP = 902  # of every keyframe, seconds: AVA's first one
MOST = 3  # sprites
SCENE, DETECTOR = 1, 2  # what random numbers are for; part of their seed
SCALE = 0.625
OVERLAP = 0.1
MISSED, FALSE = 0.1, 0.3  # shares: sprites that the detector misses; keyframes with a box on nothing
SHIFT, STRETCH = 0.07, 0.13  # standard deviations of a detected box: of its centre in box sides, of its log side


class Scene(NamedTuple):
    """A video before it is painted: background (size, size, 3), sprites, their classes, tint (3,)."""

    background: np.ndarray
    sprites: list[Sprite]
    motions: list[str]
    tint: np.ndarray

    def boxes(self) -> np.ndarray:
        """x1, y1, x2, y2 of each sprite in the keyframe, as shares of the frame: (S, 4)."""
        key = len(self.sprites[0].path.radius) // 2
        centre = np.stack([sprite.path.centre[key, ::-1] for sprite in self.sprites])
        half = np.array([[EXTENT[sprite.shape] * sprite.path.radius[key]] for sprite in self.sprites])
        return np.concatenate([centre - half, centre + half], axis=1) / len(self.background)


def intersections(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Areas that boxes (A, 4) and (B, 4) have in common: (A, B)."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    return np.prod(np.maximum(high - low, 0), axis=2)


def areas(boxes: np.ndarray) -> np.ndarray:
    """(N, 4) -> (N,)."""
    return np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)


def overlap(boxes: np.ndarray) -> float:
    """The largest share of a smaller box that a larger one covers; 0 for one box."""
    smaller = np.minimum(areas(boxes)[:, None], areas(boxes)[None])
    return (intersections(boxes, boxes) / smaller)[~np.eye(len(boxes), dtype=bool)].max(initial=0)


def draw_scene(seed: int, split: str, number: int, frames: int, size: int) -> Scene:
    """Video `number` of a split; depends on nothing but the arguments."""
    rng = np.random.default_rng((seed, SPLITS.index(split), number, SCENE))
    motions = [CLASSES[i] for i in rng.integers(len(CLASSES), size=rng.integers(1, MOST + 1))]
    background = smooth_noise(rng, size, cutoff=3.5 / SCALE)
    tint = rng.uniform(0.5, 1.0, 3)
    while True:
        sprites = [_draw_sprite(rng, motion, frames, size) for motion in motions]
        scene = Scene(background, sprites, motions, tint)
        if overlap(scene.boxes()) <= OVERLAP:
            return scene


def _draw_sprite(rng: np.random.Generator, motion: str, frames: int, size: int) -> Sprite:
    """A sprite that lies inside the frame in the keyframe, its place uniform there."""
    path = trajectory(rng, motion, frames, size, VARIED, SCALE * size)
    shape, colour = SHAPES[rng.integers(len(SHAPES))], rng.uniform(0, 1, 3)
    key, half = frames // 2, EXTENT[shape] * path.radius[frames // 2]
    place = rng.uniform(half, size - half, 2)
    return Sprite(shape, path._replace(centre=(path.centre - path.centre[key] + place) % size), colour)


def detect(rng: np.random.Generator, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a person detector might give: boxes (D, 4) and scores (D,).

    A sprite is missed with probability MISSED. Else its box's centre is shifted by normal noise of SHIFT of its sides
    and each side multiplied by exp(normal noise of STRETCH), and what is outside the frame is cut off; its score is
    uniform in [0.6, 1]. With probability FALSE there is one more box, of a sprite's size, uniform in the frame, with an
    intersection over union of less than 0.3 with every sprite's; its score is uniform in [0.4, 0.9].
    """
    kept = truth[rng.uniform(size=len(truth)) >= MISSED]
    sides = kept[:, 2:] - kept[:, :2]
    centre = (kept[:, 2:] + kept[:, :2]) / 2 + sides * rng.normal(0, SHIFT, sides.shape)
    half = sides / 2 * np.exp(rng.normal(0, STRETCH, sides.shape))
    boxes, scores = np.concatenate([centre - half, centre + half], axis=1).clip(0, 1), rng.uniform(0.6, 1, len(kept))
    if rng.uniform() < FALSE:
        boxes = np.concatenate([boxes, _nothing(rng, truth)])
        scores = np.append(scores, rng.uniform(0.4, 0.9))
    return boxes, scores


def _nothing(rng: np.random.Generator, truth: np.ndarray) -> np.ndarray:
    """A box (1, 4) that shows no sprite."""
    while True:
        side = 2 * SCALE * rng.uniform(0.18, 0.28)
        corner = rng.uniform(0, 1 - side, (1, 2))
        box = np.concatenate([corner, corner + side], axis=1)
        common = intersections(box, truth)
        if (common / (areas(box) + areas(truth) - common)).max() < 0.3:
            return box


def video_id(split: str, number: int) -> str:
    """The name of the video, as it stands in the CSV files."""
    return f'motion_{split}_{number:05d}'


def annotations(seed: int, split: str, count: int, frames: int, size: int) -> dict[str, str]:
    """The CSV files of a split, name -> text: ground truth with the sprites' numbers, and detected boxes."""
    truth, detected = [], []
    for number in range(count):
        scene = draw_scene(seed, split, number, frames, size)
        key = video_id(split, number), TIMESTAMP
        boxes = np.round(scene.boxes(), 6)
        truth += [(*key, box, CLASSES.index(motion) + 1, i)
                  for i, (box, motion) in enumerate(zip(boxes, scene.motions, strict=True))]
        rng = np.random.default_rng((seed, SPLITS.index(split), number, DETECTOR))
        found, scores = (np.round(x, 6) for x in detect(rng, boxes))
        detected += [(*key, box, ava.NO_ACTION, score) for box, score in zip(found, scores, strict=True)]
    listed = [(video_id(split, number), TIMESTAMP) for number in range(count)]
    return {ava.file_name(ava.ANNOTATIONS, split): ava.format_boxes(ava.make_boxes(truth, listed)),
            ava.file_name(ava.DETECTOR, split): ava.format_boxes(ava.make_boxes(detected, listed))}


def decode(video: Video, *, seed: int, frames: int, size: int) -> Decoded:
    """The writer's view of a painted scene; the video's number stands at the end of its group's name."""
    scene = draw_scene(seed, video.split, int(video.group.rpartition('_')[2]), frames, size)
    pixels = paint(scene.background, scene.sprites, scene.tint)
    return Decoded([encode_frame(frame, 'raw') for frame in pixels], size, size, FPS)


def plan(arguments: argparse.Namespace) -> tuple[Plan, partial]:
    """What to write, and how each video is made."""
    numbers = resolve(arguments, 768, 256, 64, smallest=32)
    options = {name: numbers[name] for name in ('seed', 'frames', 'size')}
    videos = tuple(
        Video(ava.keyframe_id(name := video_id(split, number), TIMESTAMP), f'{split}/{number:05d}', '', name, split)
        for split in SPLITS for number in range(numbers[split]))
    files = {ava.LABEL_MAP: ava.format_label_map(dict(enumerate(CLASSES, 1)))}
    for split in SPLITS:
        files |= annotations(split=split, count=numbers[split], **options)
    return Plan('motion_boxes', '', ('',), videos, (), 'raw', options, files), partial(decode, **options)
