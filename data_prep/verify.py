"""Check a prepared data set: every record's checksums, the index, and the counts."""

import argparse
import mmap
from pathlib import Path

import numpy as np

from vididi_jax.data import records
from vididi_jax.data.source import RecordSource, read_splits
from vididi_jax.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('directory', help='data set directory')


def verify(directory: str) -> None:
    """Raises `UserError` at the first thing that is wrong; prints a line a split."""
    for split in read_splits(Path(directory))[1]:
        source = RecordSource(directory, split)  # files, sizes and counts
        index = np.load(Path(directory) / records.index_name(source.name, source.split))
        for shard, path in enumerate(records.find_shards(Path(directory), source.split)):
            _verify_shard(path, index[index[:, 0] == shard, 1:])
        for row, record in zip(source.rows, source, strict=True):
            if (row['id'], row['frames']) != (record.id, record.num_frames):
                raise UserError(f'manifest.jsonl and the records of split {source.split!r} differ at {row["id"]}.')
        counts = source.counts
        print(f'{source.split}: {len(source):,} records of {counts["listed"]:,} listed videos ({counts["missing"]:,} '
              f'missing, {counts["broken"]:,} broken), every checksum right')


def _verify_shard(path: Path, expected: np.ndarray) -> None:
    found = []
    if path.stat().st_size:
        with path.open('rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as buffer:
            try:
                found.extend(records.scan(buffer))
            except ValueError as error:
                end = found[-1][0] + records.record_size(found[-1][1]) if found else 0
                raise UserError(f'{path}, offset {end}: {error}: copy the shard again, '
                                'or prepare the data set again.') from error
    if not np.array_equal(np.array(found).reshape(-1, records.INDEX_COLUMNS - 1), expected):
        raise UserError(f'the index of {path} does not fit its records: prepare the data set again.')
