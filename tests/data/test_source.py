"""Opening a data set: what is known of it, and every way in which it can be broken."""

import json
import os
import pickle
import resource
import shutil
from argparse import Namespace

import numpy as np
import pytest

from data_prep import motion, verify
from data_prep.writer import write_dataset
from vididi_jax.data.source import RecordSource
from vididi_jax.errors import UserError


@pytest.fixture
def copy(tiny_motion, tmp_path):
    return shutil.copytree(tiny_motion, tmp_path / 'data')


def shard(directory):
    return directory / 'motion-train.tfrecord-00000-of-00001'


def test_what_is_known_without_reading_records(tiny_motion):
    source = RecordSource(tiny_motion, 'train')
    assert len(source) == 48 and source.name == 'motion' and len(source.label_names) == 8
    assert source.counts == {'listed': 48, 'ok': 48, 'missing': 0, 'broken': 0}
    assert [row['id'] for row in source.rows] == [source[i].id for i in range(48)]
    assert pickle.loads(pickle.dumps(source))[5].id == source[5].id


def test_the_fingerprint_follows_the_data(tiny_motion, copy):
    assert RecordSource(copy, 'train').fingerprint == RecordSource(tiny_motion, 'train').fingerprint
    (copy / 'manifest.jsonl').write_text((copy / 'manifest.jsonl').read_text().replace('"left"', '"right"', 1))
    assert RecordSource(copy, 'train').fingerprint != RecordSource(tiny_motion, 'train').fingerprint


def test_other_pixels_are_other_data(tmp_path):
    """Raw records of two seeds differ in nothing but their pixels: neither index nor manifest has them."""
    one, two = (tmp_path / str(seed) for seed in (0, 1))
    for seed, out in enumerate((one, two)):
        arguments = Namespace(train=4, test=4, frames=4, size=8, seed=seed)
        write_dataset(*motion.plan(arguments), out, workers=1)
    sources = [RecordSource(out, 'train') for out in (one, two)]
    assert sources[0].rows == sources[1].rows and sources[0].fingerprint != sources[1].fingerprint
    shutil.copy(shard(two), one)
    for check in (lambda: sources[0][2], lambda: verify.verify(str(one))):
        with pytest.raises(UserError, match='index'):
            check()


def truncate(directory):
    path = shard(directory)
    os.truncate(path, path.stat().st_size - 1)


def edit_manifest(directory):
    path = directory / 'manifest.jsonl'
    path.write_text(path.read_text().split('\n', 1)[1])


def edit_index(directory, rows=slice(-1), columns=slice(None)):
    path = directory / 'motion-train.index.npy'
    np.save(path, np.load(path)[rows, columns])


DAMAGE = {
    'truncated shard': (truncate, 'bytes instead of'),
    'missing shard': (lambda d: shard(d).unlink(), 'is missing'),
    'manifest without a line': (edit_manifest, '47 videos'),
    'manifest cut': (lambda d: (d / 'manifest.jsonl').write_text('{"id": '), 'manifest.jsonl cannot be read'),
    'missing manifest': (lambda d: (d / 'manifest.jsonl').unlink(), 'manifest.jsonl cannot be read'),
    'index without a row': (edit_index, '47 records'),
    'index of an older version': (lambda d: edit_index(d, slice(None), slice(3)), r'\(48, 3\).* set again'),
    'missing index': (lambda d: (d / 'motion-train.index.npy').unlink(), 'index.npy cannot be read'),
    'missing labels': (lambda d: (d / 'label.labels.txt').unlink(), 'label.labels.txt cannot be read'),
    'broken description': (lambda d: (d / 'dataset_info.json').write_text('{}'), 'dataset_info.json cannot be read'),
    'unfinished': (lambda d: (d / 'dataset_info.json').unlink(), 'not a prepared data set'),
}


@pytest.mark.parametrize('damage', DAMAGE)
def test_damage_is_named_on_opening(copy, damage):
    harm, message = DAMAGE[damage]
    harm(copy)
    for check in (lambda: RecordSource(copy, 'train'), lambda: verify.verify(str(copy))):
        with pytest.raises(UserError, match=message):
            check()


def test_a_flipped_bit_is_named_on_reading_and_by_verify(copy):
    data = bytearray(shard(copy).read_bytes())
    offset, length = np.load(copy / 'motion-train.index.npy')[7, 1:3]
    data[offset + length // 2] ^= 1
    shard(copy).write_bytes(data)
    source = RecordSource(copy, 'train')
    assert source[6].num_frames == 24
    for check in (lambda: source[7], lambda: verify.verify(str(copy))):
        with pytest.raises(UserError, match=f'offset {offset}: the checksum of a record is wrong'):
            check()


def test_verify_counts_every_record(tiny_motion, capsys):
    verify.verify(str(tiny_motion))
    assert 'train: 48 records of 48 listed' in capsys.readouterr().out


def test_a_manifest_of_other_videos_is_noticed(copy):
    rows = [json.loads(line) for line in (copy / 'manifest.jsonl').read_text().splitlines()]
    rows[0], rows[1] = rows[1], rows[0]
    (copy / 'manifest.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
    with pytest.raises(UserError, match='differ at motion_train_00001'):
        verify.verify(str(copy))


def test_more_records_are_read_than_files_may_be_open(tiny_motion):
    source = RecordSource(tiny_motion, 'train')
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir('/proc/self/fd')) + 10, limits[1]))
    try:
        kept = [source[i] for i in range(48)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert len({record.id for record in kept}) == 48
