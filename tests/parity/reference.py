"""What both sides of the comparison with torchvision compute from: weights, clips and directions; numpy only.

RandomState is used because its streams are frozen: every numpy draws the same weights, so only results are stored.
"""

import json
import zlib
from pathlib import Path

import numpy as np

FIXTURE = Path(__file__).parents[1] / 'models' / 'torchvision_parity.npz'
# Small clips of odd sizes, that leave 12 or more elements a channel to the last BatchNorm: of two it makes +-1.
CLIPS = {'r3d_18': (3, 5, 20, 18, 3), 'r2plus1d_18': (3, 5, 20, 18, 3), 'mc3_18': (2, 3, 20, 18, 3),
         's3d': (3, 5, 49, 52, 3)}


def in_encoder(key: str) -> bool:
    """Whether a key of torchvision's state dict is one of the encoder."""
    return not key.startswith(('fc.', 'classifier.')) and not key.endswith('num_batches_tracked')


def random_state_dict(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """float64 weights of these shapes; BatchNorm's scales, biases and running statistics are random as well."""
    ranges = {'running_mean': (-0.3, 0.3), 'running_var': (0.5, 1.5), 'weight': (0.5, 1.5), 'bias': (-0.3, 0.3)}
    state_dict = {}
    for key in filter(in_encoder, sorted(shapes)):
        shape = tuple(shapes[key])
        bound = (4 / np.prod(shape[1:])) ** 0.5 if len(shape) == 5 else None
        low, high = (-bound, bound) if bound else ranges[key.rpartition('.')[2]]
        state_dict[key] = np.random.RandomState(zlib.crc32(key.encode())).uniform(low, high, shape)
    return state_dict


def clips(name: str) -> np.ndarray:
    """(B, T, H, W, 3) float64."""
    return np.random.RandomState(0).standard_normal(CLIPS[name])


def cotangent(shape: tuple[int, int]) -> np.ndarray:
    """(B, D): the gradients are those of the sum of the features times this."""
    return np.random.RandomState(1).standard_normal(shape)


def digest(tensors: dict[str, np.ndarray]) -> np.ndarray:
    """(N, 2): norm of each tensor, in the order of the keys, and its projection onto a random direction of length 1."""
    rows = []
    for key in sorted(tensors):
        value = np.asarray(tensors[key], np.float64)
        direction = np.random.RandomState(zlib.crc32(key.encode()) ^ 1).uniform(-1, 1, value.shape)
        rows.append((np.linalg.norm(value), (value * direction).sum() / np.linalg.norm(direction)))
    return np.array(rows)


def difference(ours: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference of two digests, relative to the norm of the tensor."""
    return float((np.abs(ours - expected) / expected[:, :1]).max())


def load(file: Path = FIXTURE) -> dict[str, dict]:
    """{encoder: {'shapes': {key: shape}, 'eval', 'train', 'gradients', 'statistics': arrays}}."""
    with np.load(file) as stored:
        return {name: {'shapes': json.loads(str(stored[f'{name}/shapes'])),
                       **{part: stored[f'{name}/{part}'] for part in ('eval', 'train', 'gradients', 'statistics')}}
                for name in CLIPS}
