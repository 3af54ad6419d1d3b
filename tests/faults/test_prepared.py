"""Damage of prepared data sets, drawn at random: one sentence, or the batches of before; and verify finds it."""

import shutil

import numpy as np
import pytest

from tests.faults.prepared import fuzz
from vididi_jax.data import pipeline
from vididi_jax.data.source import RecordSource
from vididi_jax.errors import UserError


def test_every_harm_is_a_sentence_or_no_harm():
    counts = fuzz(60, seed=0)
    assert counts['found by verify'] >= 50 and counts['error'] >= 40 and counts['the same batches'] >= 1
    assert counts['sealed: error'] >= 20


@pytest.mark.parametrize('workers', [0, 1])
def test_damage_that_reading_threads_and_processes_meet_is_the_same_sentence(tiny_motion, tmp_path, workers):
    copy = shutil.copytree(tiny_motion, tmp_path / 'data')
    path = copy / 'motion-test.tfrecord-00000-of-00001'
    data = bytearray(path.read_bytes())
    data[np.load(copy / 'motion-test.frames.npy')['offset'][-24 + 10] + 5] ^= 1  # of the last record's middle clip
    path.write_bytes(data)
    source = RecordSource(copy, 'test')
    batches = pipeline.evaluation_batches(
        source, clips_per_video=1, length=4, stride=1, batch_size=4, records=np.arange(len(source)))
    read = 0
    with pytest.raises(UserError, match=r'offset \d+: the checksum of frame \d+ is wrong; run .*verify'):
        with pipeline.iterate(batches, workers=workers) as stream:
            for _ in stream:
                read += 1
    assert read == 3
