"""What a small labelled data set gives away without any encoder: leave one group out, nearest neighbour, R@1 and R@5.

python benchmarks/pixels.py DIR [--split=train] [--lag=3]

A video is one grey map: the mean frame, or the mean absolute first or second temporal difference over a lag of frames,
of the whole frame squeezed to 32x24 or of its centred square at 24x24; compared by cosine. Below them, what is no
picture at all: the share of each grey level in the map (where nothing is said of the place), the shape of the frame,
and the number of frames, compared by absolute difference.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import cv2
import numpy as np
from tqdm import tqdm

from vididi_jax.data.source import RecordSource
from vididi_jax.errors import UserError
from vididi_jax.evaluate.protocol import whole
from vididi_jax.evaluate.retrieval import normalise

MAPS = ('mean frame', 'first difference', 'second difference')
LEVELS = 32


def maps(grey: np.ndarray, lag: int) -> np.ndarray:
    """(T, H, W) -> (3, H, W): the maps of MAPS; a video of fewer frames than a difference needs is refused."""
    if len(grey) <= 2 * lag:
        raise UserError(f'a video has {len(grey)} frames, and --lag={lag} needs {2 * lag + 1}: lower it.')
    first = grey[lag:] - grey[:-lag]
    return np.stack([grey.mean(0), np.abs(first).mean(0), np.abs(first[lag:] - first[:-lag]).mean(0)])


def describe(frames: np.ndarray, lag: int) -> dict[str, np.ndarray]:
    """{name: vector} of a video, uint8 (T, H, W, 3)."""
    height, width = frames.shape[1:3]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    found = {}
    for view, (region, size) in {'whole frame': (np.s_[:, :], (32, 24)),
                                 'centred square': (np.s_[top : top + side, left : left + side], (24, 24))}.items():
        grey = np.stack([cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)[region], size,
                                    interpolation=cv2.INTER_AREA) for frame in frames]).astype(np.float64)
        for name, picture in zip(MAPS, maps(grey, lag), strict=True):
            found[f'{name}, {view}'] = picture.ravel()
    levels = np.histogram(found['first difference, centred square'], LEVELS, (0, 64))[0]
    return {**found, 'first difference, grey levels only': levels.astype(np.float64),
            'shape of the frame': np.array([np.log(width / height)]), 'number of frames': np.array([len(frames)])}


def recall(similarity: np.ndarray, labels: np.ndarray, groups: np.ndarray, k: int) -> float:
    """R@k in percent; a video's own group is out of its gallery. Ties go to the earlier video."""
    similarity = np.where(groups[:, None] == groups[None], -np.inf, similarity)
    nearest = np.argsort(-similarity, axis=1, kind='stable')[:, :k]
    return 100 * float((labels[nearest] == labels[:, None]).any(1).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('directory', metavar='DIR', help='what data_prep wrote')
    parser.add_argument('--split', default='train')
    parser.add_argument('--lag', type=int, default=3, help='frames between the two of a difference (3)')
    arguments = parser.parse_args()
    if arguments.lag < 1:
        raise UserError(f'--lag={arguments.lag} must be at least 1.')
    source = RecordSource(arguments.directory, arguments.split)
    side = whole(source)
    described = [describe(source[i].frames(np.arange(row['frames'])), arguments.lag)
                 for i, row in enumerate(tqdm(source.rows, unit='video', leave=False))]
    print(f'{len(source)} of {source.counts["listed"]} videos, {len(source.label_names)} classes, '
          f'{len(set(side.groups))} groups, each left out of the gallery of its own videos')
    print(f'{"":40} {"R@1":>6} {"R@5":>6}')
    for name in described[0]:
        x = np.stack([video[name] for video in described])
        similarity = -np.abs(x - x.T) if x.shape[1] == 1 else normalise(x) @ normalise(x).T
        print(f'{name:40}', *(f'{recall(similarity, side.labels, side.groups, k):6.1f}' for k in (1, 5)))


if __name__ == '__main__':
    try:
        main()
    except UserError as error:
        sys.exit(f'error: {error}')
