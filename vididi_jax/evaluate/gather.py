"""A function of batches over a list of videos: split over the devices of all processes, and gathered in each."""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, pairwise
from operator import itemgetter
from typing import Any

import grain
import jax
import numpy as np
from jax.experimental import multihost_utils
from tqdm import tqdm

from vididi_jax.data import pipeline
from vididi_jax.errors import UserError
from vididi_jax.train import mesh as meshes
from vididi_jax.train import signals
from vididi_jax.train.processes import exit_if_peer_lost, one_bar


def batch_size_for(mesh: jax.sharding.Mesh, wanted: int) -> int:
    """The greatest batch of at most `wanted` with the same number for each device; one for each at least."""
    return mesh.size * max(1, wanted // mesh.size)


def gathered(
    compute: Callable[[dict[str, jax.Array]], Any], batches: grain.MapDataset, *, mesh: jax.sharding.Mesh, count: int,
    inputs: tuple[str, ...], workers: int, unit: str = 'video', complete: Callable[[dict], dict] = dict,
) -> Iterator[Any]:
    """What `compute` gives for each batch, in every process; rows that only fill up the last batch are cut off.

    The devices have the next batch before them while the results of one are fetched.

    Args:
      compute: batch on the devices -> tree of arrays, whose leading axis is the batch's.
      batches: this process's rows of global batches of equal size, see `pipeline.evaluation_batches`.
      mesh: the devices.
      count: of all videos.
      inputs: names of the arrays of a batch that `compute` gets.
      workers: reading processes, see `pipeline.number_of_workers`.
      unit: of the progress bar.
      complete: see `loop.Task`.

    Yields:
      Trees of numpy arrays, equal in all processes.
    """
    def launch(batch: dict) -> Any:
        batch = complete(batch)
        return compute(meshes.to_devices(mesh, {name: batch[name] for name in inputs}))

    done = 0
    workers = pipeline.number_of_workers(batches, workers)
    with pipeline.iterate(batches, workers=workers) as iterator, \
            tqdm(total=count, unit=unit, leave=False, dynamic_ncols=True, **one_bar()) as bar, \
            exit_if_peer_lost():
        for values, _ in pairwise(chain(map(launch, iterator), [None])):
            values = multihost_utils.process_allgather(values, tiled=True)
            real = min(len(jax.tree.leaves(values)[0]), count - done)
            done += real
            bar.update(real)
            yield jax.tree.map(itemgetter(slice(real)), values)
            signals.check()


def check_finite(values: Iterable[np.ndarray], ids: np.ndarray, what: str, advice: str) -> None:
    """Raises `UserError` if some of N videos have values that are not finite, which would be ranked like others.

    Args:
      values: arrays (N, ...).
      ids: (N,) of the videos.
      what: the values are, and `advice`: what to do, for the message.
    """
    wrong = ~np.logical_and.reduce([np.isfinite(value).reshape(len(ids), -1).all(1) for value in values])
    if wrong.any():
        raise UserError(f'{what} of {wrong.sum():,} of {len(ids):,} videos (the first: {ids[wrong.argmax()]}) are not '
                        f'finite: {advice}.')
