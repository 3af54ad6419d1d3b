"""Time, memory and result of the linear probe's solver, on random, correlated features that have classes.

python benchmarks/probe.py [--shape=20000x512x100] [--strength=1] [--iterations=2000] [--solver=scikit-learn]

The value is what both minimise, a mean over videos.
"""

import argparse
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import numpy as np
from sklearn.linear_model import LogisticRegression

from vididi_jax.evaluate import linear


def features(videos: int, dim: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """(N, D) float32 and (N,): noise of deviation 1 around centres of classes, rotated, with a falling spectrum."""
    rng = np.random.default_rng(0)
    centres = 3.5 / np.sqrt(dim) * rng.standard_normal((classes, dim), np.float32)
    mix = np.linalg.qr(rng.standard_normal((dim, dim)))[0].astype(np.float32)
    mix *= np.arange(1, dim + 1, dtype=np.float32)[:, None] ** -0.7
    x, labels = rng.standard_normal((videos, dim), np.float32), rng.integers(0, classes, videos)
    for rows in linear.blocks(videos):
        x[rows] = (x[rows] + centres[labels[rows]]) @ mix
    return x, labels


def scikit_learn(x: np.ndarray, labels: np.ndarray, strengths: list[float]) -> list[linear.Regression]:
    """For the first strength; `x` is standardised in place."""
    mean, scale = linear.standardisation(x)
    x -= mean
    x *= scale
    found = LogisticRegression(C=strengths[0], tol=linear.TOLERANCE, max_iter=linear.ITERATIONS).fit(x, labels)
    return [linear.Regression(0 * mean, 1 + 0 * scale, found.coef_.T, found.intercept_, found.classes_)]


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--shape', default='20000x512x100', help='videos x features x classes')
    parser.add_argument('--strength', type=float, default=1.0)
    parser.add_argument('--iterations', type=int, default=linear.ITERATIONS, help='at most')
    parser.add_argument('--solver', default='vididi_jax', choices=('vididi_jax', 'scikit-learn'))
    given = parser.parse_args()
    linear.ITERATIONS = given.iterations
    x, labels = features(*map(int, given.shape.split('x')))
    start, used = time.perf_counter(), time.process_time()
    found, = {'vididi_jax': linear.fit, 'scikit-learn': scikit_learn}[given.solver](x, labels, [given.strength])
    seconds, used = time.perf_counter() - start, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    fitting = found.scores(x, labels.max() + 1)[np.arange(len(x)), labels].mean()
    print(f'{given.solver}, {given.shape} ({x.nbytes / 1e9:.2f} GB), strength {given.strength:g}, '
          f'{jax.devices()[0].device_kind}: {seconds:.1f} s, {used:.1f} s of processor, peak {peak:.2f} GB, value '
          f'{(found.weights**2).sum() / 2 / given.strength / len(x) - fitting:.8f}')
