"""Random access to the records of one split of a prepared data set."""

import hashlib
import json
import mmap
from pathlib import Path

import numpy as np

from vididi_jax.data import records
from vididi_jax.errors import UserError


def read_json(path: Path) -> dict:
    """A JSON file of a data set directory; `UserError` if it is missing or broken."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f'{path} cannot be read ({error}): prepare the data set again.') from error


class RecordSource:
    """The videos of a split: `source[i]` is a `Record`.

    Can be pickled and sent to worker processes, which map the shards into memory themselves.

    Attributes:
      directory: pathlib.Path of the data set.
      split: its name.
      name: of the data set.
      label_names: class names, in order of the label numbers.
      rows: the manifest's rows of the videos of this split, in record order.
      counts: how many videos of the split are 'listed', and 'ok', 'missing' and 'broken' of them.
      fingerprint: hash of the index and the manifest: changes when the data does.
    """

    def __init__(self, directory: str | Path, split: str):
        """Open a split and check it without reading its records.

        Raises:
          UserError: no data set there, no such split, a shard that is missing or truncated, an index that does not fit.
        """
        self.directory, self.split = Path(directory), split
        info_path = self.directory / 'dataset_info.json'
        if not str(directory):
            raise UserError('no data directory is given: set --config.data.dir to what data_prep wrote.')
        if not self.directory.is_dir():
            raise UserError(f'the data directory {str(directory)!r} does not exist: '
                            'prepare one with `python -m data_prep`, and set --config.data.dir to it.')
        if not info_path.is_file():
            raise UserError(f'{str(directory)!r} is not a prepared data set (it has no dataset_info.json): '
                            'run or finish `python -m data_prep` first.')
        info = read_json(info_path)
        self.name = info['name']
        splits = {entry['name']: [int(n) for n in entry['shardLengths']] for entry in info['splits']}
        if split not in splits:
            raise UserError(f'{directory} has no split {split!r}: it has {", ".join(splits)}.')
        lengths = splits[split]
        self.label_names = (self.directory / 'label.labels.txt').read_text().split('\n')[:-1]
        self._paths = [self.directory / records.shard_name(self.name, split, i, len(lengths)) for i in range(len(lengths))]
        self._index = self._read_index(lengths)
        manifest = (self.directory / records.MANIFEST).read_bytes()
        listed = [row for row in map(json.loads, manifest.splitlines()) if row['split'] == split]
        self.rows = [row for row in listed if row['status'] == 'ok']
        if len(self.rows) != len(self._index):
            raise UserError(f'{self.directory / records.MANIFEST} has {len(self.rows)} videos of split {split!r} and the '
                            f'index {len(self._index)}: prepare the data set again.')
        self.counts = {'listed': len(listed), **{
            status: sum(row['status'] == status for row in listed) for status in ('ok', 'missing', 'broken')}}
        self.fingerprint = hashlib.sha256(self._index.tobytes() + manifest).hexdigest()[:16]
        self._maps: dict[int, mmap.mmap] = {}

    def _read_index(self, lengths: list[int]) -> np.ndarray:
        path = self.directory / records.index_name(self.name, self.split)
        try:
            index = np.load(path)
        except (OSError, ValueError) as error:
            raise UserError(f'the index {path} cannot be read ({error}): prepare the data set again.') from error
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

    def __getstate__(self) -> dict:
        return {**self.__dict__, '_maps': {}}

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, i: int) -> records.Record:
        """Raises `UserError` if the record's checksum is wrong."""
        shard, offset, _ = self._index[i]
        if shard not in self._maps:
            with self._paths[shard].open('rb') as file:
                self._maps[shard] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        try:
            return records.Record(records.read_record(self._maps[shard], int(offset)))
        except ValueError as error:
            raise UserError(f'{self._paths[shard]}, offset {offset}: {error}; '
                            f'run `python -m data_prep verify {self.directory}`.') from error
