"""Memory that is used again: never while anybody looks at it."""

import gc
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest

from vididi_jax.data import memory, pipeline
from vididi_jax.data.source import RecordSource


def address(array):
    return array.__array_interface__['data'][0]


def test_memory_is_used_again_when_no_view_is_left():
    sent, first = memory.take((4, 1000))
    assert sent is first and first.shape == (4, 1000) and first.dtype == np.uint8 and address(first) % 64 == 0
    first[:] = 1
    view, place = first[2:][:1], address(first)
    del sent, first
    _, second = memory.take((4, 1000))
    second[:] = 2
    assert address(second) != place and (view == 1).all()
    del view
    gc.collect()
    _, third = memory.take((1000, 4))
    assert address(third) == place


def test_free_memory_of_other_sizes_is_given_back():
    kept = memory.take((100,))[1]
    del kept
    gc.collect()
    memory.take((200,))
    assert [segment.size for segment in memory._segments if segment.size == 100] == []


def test_to_decide_on_workers_a_batch_is_read_only_where_its_size_counts_and_is_not_kept(tiny_motion):
    source = RecordSource(tiny_motion, 'train')
    stream = pipeline.training_stream(
        source, np.arange(len(source)), length=4, stride=2, placement='adjacent', batch_size=8, seed=3)
    assert pipeline.number_of_workers(stream, -1) >= 1
    assert not [segment for segment in memory._segments if segment.free]
    assert [pipeline.number_of_workers(None, wanted) for wanted in (0, 1, 7)] == [0, 1, 7]


def segments():
    """The shared memory of Python processes of this machine."""
    return {path.name for path in Path('/dev/shm').glob('psm_*')}


@pytest.mark.parametrize('workers', [0, 1])
def test_batches_that_are_kept_stay_as_they_are(tiny_motion, workers):
    """And memory is bounded where none is kept."""
    source, before = RecordSource(tiny_motion, 'train'), segments()
    stream = pipeline.training_stream(
        source, np.arange(len(source)), length=4, stride=2, placement='adjacent', batch_size=8, seed=3)
    with pipeline.iterate(stream, workers=workers) as batches:
        kept = [next(batches)['clips'][:, 1:] for _ in range(12)]
        places = {address(next(batches)['clips']) for _ in range(40)}
        children = multiprocessing.active_children()
    assert len(children) == workers and len(places) < 12
    for number, clips in enumerate(kept):
        np.testing.assert_array_equal(clips, stream[number]['clips'][:, 1:])
    if hasattr(os, 'memfd_create'):
        assert not segments() - before
