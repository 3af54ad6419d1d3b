"""Batches on the devices, and their results here."""

import grain
import jax
import numpy as np
from jax.sharding import Mesh

from vididi_jax.evaluate.gather import gathered


def test_a_batch_is_launched_before_the_one_before_is_fetched():
    events = []

    class Result:
        def __init__(self, number):
            self.number = number
            events.append(f'launch {number}')

        def __array__(self, dtype=None, copy=None):
            events.append(f'fetch {self.number}')
            return np.full(2, self.number)

    batches = grain.MapDataset.source([{'clips': np.full((2, 1), number, np.uint8)} for number in range(3)])
    found = gathered(lambda batch: Result(int(batch['clips'][0, 0])), batches, mesh=Mesh(jax.devices()[:1], ('data',)),
                     count=5, inputs=('clips',), workers=0)
    assert np.concatenate(list(found)).tolist() == [0, 0, 1, 1, 2]
    assert events == ['launch 0', 'launch 1', 'fetch 0', 'launch 2', 'fetch 1', 'fetch 2']
