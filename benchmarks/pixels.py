"""What a small labelled data set gives away without any encoder: leave one group out, nearest neighbour, R@1 and R@5.

python benchmarks/pixels.py DIR [--split=train] [--lag=3] [--parts 16 32]

A video is one grey map: the mean frame, or the mean absolute first or second temporal difference over a lag of frames,
of the whole frame squeezed to 32x24 or of its centred square at 24x24; compared by cosine. Below them, what is no
picture at all: the share of each grey level in the map (where nothing is said of the place), the shape of the frame,
and the number of frames, compared by absolute difference.

--parts asks how much a part of a video tells: of so many frames from a random place, by the first difference of the
centred square; and how often the nearest of all videos' second parts is the one that follows a part in its own video,
which is what adjacent clips have in common. Mean of 20 draws, seed 0.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import cv2
import numpy as np
from tqdm import tqdm

from vididi_jax.data.source import RecordSource
from vididi_jax.errors import UserError, one_sentence
from vididi_jax.evaluate.protocol import whole
from vididi_jax.measures import unit

MAPS = ('mean frame', 'first difference', 'second difference')
LEVELS = 32
DRAWS = 20


def maps(grey: np.ndarray, lag: int) -> np.ndarray:
    """(T, H, W) -> (3, H, W): the maps of MAPS; a video of fewer frames than a difference needs is refused."""
    if len(grey) <= 2 * lag:
        raise UserError(f'a video has {len(grey)} frames, and --lag={lag} needs {2 * lag + 1}: lower it.')
    first = grey[lag:] - grey[:-lag]
    return np.stack([grey.mean(0), np.abs(first).mean(0), np.abs(first[lag:] - first[:-lag]).mean(0)])


def centred_square(frames: np.ndarray) -> tuple[slice, slice]:
    """The largest one of (T, H, W, 3)."""
    height, width = frames.shape[1:3]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return np.s_[top : top + side, left : left + side]


def small_grey(frames: np.ndarray, region: tuple[slice, slice], size: tuple[int, int]) -> np.ndarray:
    """A region of uint8 (T, H, W, 3), in grey, resized to (width, height)."""
    return np.stack([cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)[region], size, interpolation=cv2.INTER_AREA)
                     for frame in frames]).astype(np.float64)


def describe(frames: np.ndarray, lag: int) -> dict[str, np.ndarray]:
    """{name: vector} of a video, uint8 (T, H, W, 3)."""
    height, width = frames.shape[1:3]
    found = {}
    for view, (region, size) in {'whole frame': (np.s_[:, :], (32, 24)),
                                 'centred square': (centred_square(frames), (24, 24))}.items():
        for name, picture in zip(MAPS, maps(small_grey(frames, region, size), lag), strict=True):
            found[f'{name}, {view}'] = picture.ravel()
    levels = np.histogram(found['first difference, centred square'], LEVELS, (0, 64))[0]
    return {**found, 'first difference, grey levels only': levels.astype(np.float64),
            'shape of the frame': np.array([np.log(width / height)]), 'number of frames': np.array([len(frames)])}


def recall(similarity: np.ndarray, labels: np.ndarray, groups: np.ndarray, k: int) -> float:
    """R@k in percent; a video's own group is out of its gallery. Ties go to the earlier video."""
    similarity = np.where(groups[:, None] == groups[None], -np.inf, similarity)
    nearest = np.argsort(-similarity, axis=1, kind='stable')[:, :k]
    return 100 * float((labels[nearest] == labels[:, None]).any(1).mean())


def part_recall(videos: list[np.ndarray], length: int, lag: int, labels: np.ndarray, groups: np.ndarray) -> tuple:
    """(R@1 of a random part of `length` frames, how often its follower is found), percent, means over the draws.

    A video of fewer frames is taken whole, and in halves for the follower.
    """
    rng = np.random.default_rng(0)

    def first_difference(grey: np.ndarray) -> np.ndarray:
        return np.abs(grey[lag:] - grey[:-lag]).mean(0).ravel()

    found = []
    for _ in range(DRAWS):
        single, before, after = [], [], []
        for grey in videos:
            start = rng.integers(max(len(grey) - length, 0) + 1)
            single.append(first_difference(grey[start : start + length]))
            half = min(length, len(grey) // 2)
            if half <= lag:
                raise UserError(f'a video has {len(grey)} frames, too few for two parts and --lag={lag}: lower it.')
            start = rng.integers(len(grey) - 2 * half + 1)
            before.append(first_difference(grey[start : start + half]))
            after.append(first_difference(grey[start + half : start + 2 * half]))
        single, before, after = (unit(np.stack(x)) for x in (single, before, after))
        partner = 100 * ((before @ after.T).argmax(1) == np.arange(len(videos))).mean()
        found.append((recall(single @ single.T, labels, groups, 1), partner))
    return tuple(np.mean(found, axis=0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('directory', metavar='DIR', help='what data_prep wrote')
    parser.add_argument('--split', default='train')
    parser.add_argument('--lag', type=int, default=3, help='frames between the two of a difference (3)')
    parser.add_argument('--parts', type=int, nargs='*', default=(), help='frames of parts of a video, see above')
    arguments = parser.parse_args()
    if arguments.lag < 1 or min(arguments.parts, default=2) < 2 * arguments.lag:
        raise UserError(f'--lag={arguments.lag} must be at least 1, and --parts at least twice as long.')
    source = RecordSource(arguments.directory, arguments.split)
    side = whole(source)
    described, squares = [], []
    for i, row in enumerate(tqdm(source.rows, unit='video', leave=False)):
        frames = source[i].frames(np.arange(row['frames']))
        described.append(describe(frames, arguments.lag))
        squares.append(small_grey(frames, centred_square(frames), (24, 24)))
    print(f'{len(source)} of {source.counts["listed"]} videos, {len(source.label_names)} classes, '
          f'{len(set(side.groups))} groups, each left out of the gallery of its own videos')
    print(f'{"":40} {"R@1":>6} {"R@5":>6}')
    for name in described[0]:
        x = np.stack([video[name] for video in described])
        similarity = -np.abs(x - x.T) if x.shape[1] == 1 else unit(x) @ unit(x).T
        print(f'{name:40}', *(f'{recall(similarity, side.labels, side.groups, k):6.1f}' for k in (1, 5)))
    for length in arguments.parts:
        hits, partner = part_recall(squares, length, arguments.lag, side.labels, side.groups)
        print(f'{f"a random part of {length} frames":40} {hits:6.1f}        its follower is found: {partner:.0f} %')


if __name__ == '__main__':
    with one_sentence():
        main()
