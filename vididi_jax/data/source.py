"""Random access to the records of one split of a prepared data set."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vididi_jax.data import records
from vididi_jax.errors import UserError


def read(path: Path, function: Callable[[Path], Any]) -> Any:
    """`function(path)` for a file of a data set directory; `UserError` if it is missing or broken."""
    try:
        return function(path)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f'{path} cannot be read ({error}): prepare the data set again.') from error


def read_splits(directory: Path) -> tuple[str, dict[str, list[int]]]:
    """The name of a data set, and for each of its splits the number of records of each shard; raises `UserError`."""
    if not directory.is_dir():
        raise UserError(f'the data directory {str(directory)!r} does not exist: '
                        'prepare one with `python -m data_prep`, and set --config.data.dir to it.')
    path = directory / 'dataset_info.json'
    if not path.is_file():
        raise UserError(f'{str(directory)!r} is not a prepared data set (it has no dataset_info.json): '
                        'run or finish `python -m data_prep` first.')

    def parse(path: Path):
        info = json.loads(path.read_text())
        return info['name'], {entry['name']: [int(n) for n in entry['shardLengths']] for entry in info['splits']}

    return read(path, parse)


def official_split(directory: Path) -> int | None:
    """The number of the official split that a data set was prepared from; None where there is no such thing."""
    return read(directory / records.PLAN, lambda path: json.loads(path.read_text())['options'].get('official_split'))


def _read_manifest(path: Path) -> tuple[bytes, list[dict]]:
    data = path.read_bytes()
    return data, [json.loads(line) for line in data.splitlines()]


class RecordSource:
    """The videos of a split: `source[i]` is a `Record`. Can be pickled and sent to worker processes.

    Attributes:
      directory: pathlib.Path of the data set.
      split: its name.
      name: of the data set.
      label_names: class names, in order of the label numbers.
      rows: the manifest's rows of the videos of this split, in record order.
      counts: how many videos of the split are 'listed', and 'ok', 'missing' and 'broken' of them.
      fingerprint: hash of the index, which has the records' checksums, and the manifest: changes when the data does.
    """

    def __init__(self, directory: str | Path, split: str):
        """Open a split and check it without reading its records.

        Raises:
          UserError: no data set there, no such split, a shard that is missing or truncated, an index that does not fit.
        """
        self.directory, self.split = Path(directory), split
        if not str(directory):
            raise UserError('no data directory is given: set --config.data.dir to what data_prep wrote.')
        self.name, splits = read_splits(self.directory)
        if split not in splits:
            raise UserError(f'{directory} has no split {split!r}: it has {", ".join(splits)}.')
        lengths = splits[split]
        self.label_names = read(self.directory / records.LABELS, lambda _: records.read_label_names(self.directory))
        shards = len(lengths)
        self._paths = [self.directory / records.shard_name(self.name, split, i, shards) for i in range(shards)]
        self._index = self._read_index(lengths)
        manifest, rows = read(self.directory / records.MANIFEST, _read_manifest)
        listed = [row for row in rows if row['split'] == split]
        self.rows = [row for row in listed if row['status'] == 'ok']
        if len(self.rows) != len(self._index):
            raise UserError(f'{self.directory / records.MANIFEST} has {len(self.rows)} videos of split {split!r} and '
                            f'the index {len(self._index)}: prepare the data set again.')
        self.counts = {'listed': len(listed), **{
            status: sum(row['status'] == status for row in listed) for status in ('ok', 'missing', 'broken')}}
        self.fingerprint = hashlib.sha256(self._index.tobytes() + manifest).hexdigest()[:16]

    def _read_index(self, lengths: list[int]) -> np.ndarray:
        path = self.directory / records.index_name(self.name, self.split)
        index = read(path, np.load)
        if index.ndim != 2 or index.shape[1] != records.INDEX_COLUMNS:
            raise UserError(f'the index {path} has the shape {index.shape} and not (records, {records.INDEX_COLUMNS}), '
                            'as that of an older version has: prepare the data set again.')
        for shard, (shard_path, count) in enumerate(zip(self._paths, lengths, strict=True)):
            mine = index[index[:, 0] == shard]
            if len(mine) != count:
                raise UserError(f'the index {path} has {len(mine)} records of {shard_path.name} and dataset_info.json '
                                f'{count}: prepare the data set again.')
            expected = int((mine[:, 1] + records.record_size(mine[:, 2])).max(initial=0))
            actual = shard_path.stat().st_size if shard_path.is_file() else None
            if actual != expected:
                state = 'is missing' if actual is None else f'has {actual:,} bytes instead of {expected:,}'
                raise UserError(f'the shard {shard_path} {state}: copy it again, or prepare the data set again.')
        return index

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, i: int) -> records.Record:
        """Raises `UserError` if the record's checksum is wrong, or not the one of the index."""
        shard, offset, length, crc = (int(value) for value in self._index[i])
        try:
            with self._paths[shard].open('rb') as file:  # a large set has more shards than a process may hold open
                file.seek(offset)
                record = file.read(records.record_size(length))
            data = records.read_record(record)
            if records.data_crc(record) != crc:
                raise ValueError('the record is not the one that the index was written for')
            return records.Record(data)
        except (OSError, ValueError) as error:
            raise UserError(f'{self._paths[shard]}, offset {offset}: {error}; '
                            f'run `python -m data_prep verify {self.directory}`.') from error
