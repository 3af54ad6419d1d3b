"""Random access to the records of one split of a prepared data set."""

import hashlib
import io
import json
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from vididi_jax.data import checksums, records
from vididi_jax.errors import UserError

STATUSES = ('ok', 'missing', 'broken')
ROW = {'id', 'path', 'label', 'group', 'split', 'frames', 'fps', 'width', 'height', 'status', 'reason'}


def _parse_info(data: bytes) -> tuple[str, dict[str, list[int]]]:
    """The name of the data set, and for each of its splits the number of records of each shard."""
    info = json.loads(data)
    return info['name'], {entry['name']: [int(n) for n in entry['shardLengths']] for entry in info['splits']}


def _parse_plan(data: bytes) -> dict:
    plan = json.loads(data)
    if plan['format'] != records.FORMAT:
        raise ValueError(f'its format is {plan["format"]}, and {records.FORMAT} is read')
    return {**plan, 'options': dict(plan['options']), 'files': dict(plan['files'])}


def _parse_manifest(data: bytes) -> list[dict]:
    rows = [json.loads(line) for line in data.splitlines()]
    for number, row in enumerate(rows, 1):
        whole = set(row) == ROW and row['status'] in STATUSES
        if not whole or (row['status'] == 'ok' and min(row['frames'], row['height'], row['width']) < 1):
            raise ValueError(f'line {number} is no row of a video')
    return rows


def _parse_index(data: bytes) -> np.ndarray:
    index = np.load(io.BytesIO(data))
    if index.dtype != np.int64 or index.ndim != 2 or index.shape[1] != records.INDEX_COLUMNS:
        raise ValueError(f'it is of {index.dtype} and shape {index.shape}, not of int64 and (records, '
                         f'{records.INDEX_COLUMNS})')
    return index


def _shard_names(name: str, split: str, lengths: list[int]) -> list[str]:
    return [records.shard_name(name, split, i, len(lengths)) for i in range(len(lengths))]


def _expected(name: str, splits: dict[str, list[int]], plan: dict) -> set[str]:
    """The files that a data set cannot be without."""
    return {records.PLAN, records.MANIFEST, records.INFO, records.FEATURES, records.LABELS, *plan['files'],
            *(records.index_name(name, split) for split in splits),
            *(shard for split, lengths in splits.items() for shard in _shard_names(name, split, lengths))}


def _parse(directory: Path, contents: dict[str, bytes], name: str, function: Callable[[bytes], Any]) -> Any:
    """`function` of the content of a file; `UserError` if it is not listed, or is not what its reader expects."""
    if name not in contents:
        raise UserError(f'{directory} has no {name} of its own: {checksums.REPAIR}.')
    try:
        return function(contents[name])
    except Exception as error:  # whatever a parser raises
        raise UserError(f'{directory / name} cannot be read ({type(error).__name__}: {error}): delete the data set and '
                        'prepare it again.') from error


class RecordSource:
    """The videos of a split: `source[i]` is a `Record`. Can be pickled and sent to worker processes.

    Attributes:
      directory: pathlib.Path of the data set.
      split: its name.
      name: of the data set.
      files: the names of all its files.
      official_split: the number of the official split that it was prepared from; None where there is no such thing.
      label_names: class names, in order of the label numbers.
      rows: the manifest's rows of the videos of this split, in record order.
      counts: how many videos of the split are 'listed', and 'ok', 'missing' and 'broken' of them.
      shards: the paths of the split's shards.
      index: (N, 4) int64, see `records`.
      fingerprint: hash of what every file holds, and of nothing that says where files lie: changes when the data does.
    """

    def __init__(self, directory: str | Path, split: str):
        """Open a split. All files but the shards are held against their checksums, and shards against their sizes.

        Raises:
          UserError: no data set there, no such split, a file that is missing or damaged or does not fit the others.
        """
        self.directory, self.split = Path(directory), split
        if not str(directory):
            raise UserError('no data directory is given: set --config.data.dir to what data_prep wrote.')
        sums, contents = checksums.read_files(self.directory)
        self.files = frozenset(sums)

        parse = partial(_parse, self.directory, contents)
        plan = parse(records.PLAN, _parse_plan)
        self.official_split = plan['options'].get('official_split')
        self.name, splits = parse(records.INFO, _parse_info)
        if split not in splits:
            raise UserError(f'{directory} has no split {split!r}: it has {", ".join(splits)}.')
        self.label_names = parse(records.LABELS, records.parse_label_names)
        unlisted = sorted(_expected(self.name, splits, plan) - self.files)
        if unlisted:
            raise UserError(f'{self.directory / checksums.NAME} does not list {unlisted[0]}: {checksums.REPAIR}.')
        self.shards = [self.directory / name for name in _shard_names(self.name, split, splits[split])]
        self.index = parse(records.index_name(self.name, split), _parse_index)
        listed = [row for row in parse(records.MANIFEST, _parse_manifest) if row['split'] == split]
        self.rows = [row for row in listed if row['status'] == 'ok']
        self.counts = {'listed': len(listed), **{
            status: sum(row['status'] == status for row in listed) for status in STATUSES}}
        self._check_shards(splits[split])
        about = {name: sums[name] for name in contents}  # the index has checksums of all records
        about[records.PLAN] = {**plan, 'root': ''}  # that is where the videos were
        self.fingerprint = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]

    def _check_shards(self, lengths: list[int]) -> None:
        """Manifest, index and description have the same records, and the shards are as large as these."""
        of_shard, starts, sizes = self.index[:, 0], self.index[:, 1], records.record_size(self.index[:, 2])
        counts = np.bincount(of_shard[(0 <= of_shard) & (of_shard < len(lengths))], minlength=len(lengths))
        if counts.tolist() != lengths or len(self.index) != sum(lengths) or len(self.rows) != len(self.index):
            raise UserError(f'{self.directory} lists {len(self.rows):,} videos of split {self.split!r} in '
                            f'{records.MANIFEST}, {len(self.index):,} in the index and {sum(lengths):,} in '
                            f'{records.INFO}, or in other shards: delete the data set and prepare it again.')
        ends = np.zeros(len(lengths), np.int64)
        np.maximum.at(ends, of_shard, starts + sizes)
        for path, expected in zip(self.shards, ends.tolist(), strict=True):
            actual = path.stat().st_size if path.is_file() else None
            if actual != expected:
                state = 'is missing' if actual is None else f'has {actual:,} bytes instead of {expected:,}'
                raise UserError(f'the shard {path} {state}: {checksums.REPAIR}.')

    def __len__(self) -> int:
        return len(self.index)

    @cached_property
    def labels(self) -> np.ndarray:
        """(N,) class numbers."""
        number = {name: i for i, name in enumerate(self.label_names)}
        return np.array([number[row['label']] for row in self.rows], np.int64)

    @cached_property
    def ids(self) -> np.ndarray:
        """(N,) names of the videos, as objects."""
        return np.array([row['id'] for row in self.rows], object)

    @cached_property
    def groups(self) -> np.ndarray:
        """(N,) names of the groups, as objects; a video without one stands for itself."""
        return np.array([row['group'] or row['id'] for row in self.rows], object)

    def __getitem__(self, i: int) -> records.Record:
        """Raises `UserError` if the record's checksum is wrong, or not the one of the index, or it is another video."""
        shard, offset, length, crc = (int(value) for value in self.index[i])
        place = f'{self.shards[shard]}, offset {offset}'
        try:
            with self.shards[shard].open('rb') as file:  # a large set has more shards than a process may hold open
                file.seek(offset)
                framed = file.read(records.record_size(length))
            data = records.read_record(framed)
            if records.data_crc(framed) != crc:
                raise ValueError('the record is not the one that the index was written for')
            record = records.Record(data, place)
            found = record.id, self.label_names[record.label], record.num_frames, record.height, record.width
            if found != tuple(self.rows[i][key] for key in ('id', 'label', 'frames', 'height', 'width')):
                raise ValueError(f'the record is of another video than {records.MANIFEST} has')
        except Exception as error:  # also whatever a parser raises
            raise UserError(f'{place}: {error}; run `python -m data_prep verify {self.directory}`.') from error
        return record


def open_splits(directory: Path) -> list[RecordSource]:
    """All splits of a data set; raises as `RecordSource`."""
    _, contents = checksums.read_files(directory)
    _, splits = _parse(directory, contents, records.INFO, _parse_info)
    return [RecordSource(directory, split) for split in splits]
