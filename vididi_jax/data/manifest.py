"""The manifest's rows of the records of a split, each parsed when it is asked for."""

import json
import mmap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vididi_jax.errors import UserError

ROW = {'id', 'path', 'label', 'group', 'split', 'frames', 'fps', 'width', 'height', 'status', 'reason'}


class Picked(Sequence):
    """Some items of a sequence, by their numbers; each is fetched when it is asked for."""

    def __init__(self, items: Sequence, numbers: Sequence[int]):
        self._items, self._numbers = items, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, i: int):
        return self._items[self._numbers[i]]


class Manifest(Sequence):
    """`rows[i]` is the row of record i, a dict with the keys `ROW`, checked against the index.

    Args:
      path: of manifest.jsonl.
      index: (N,) `records.VIDEO`.
      label_names: class names, in order of the label numbers.
    """

    def __init__(self, path: Path, index: np.ndarray, label_names: Sequence[str]):
        self._path, self._index, self._label_names = path, index, label_names
        with path.open('rb') as file:  # mapped, not read: who asks for no row pays for none
            self._text = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else b''

    def __len__(self) -> int:
        return len(self._index)

    def __eq__(self, other) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    def __repr__(self) -> str:
        return repr(list(self))

    def __getitem__(self, i):
        """Raises `UserError` if the line is not that of the video which the index has."""
        if isinstance(i, slice):
            return [self[k] for k in range(len(self))[i]]
        video = self._index[i]
        start = int(video['line'])
        try:
            row = json.loads(self._text[start : self._text.find(b'\n', start)])
            known = {'status': 'ok', 'label': self._label_names[video['label']],
                     **{name: int(video[name]) for name in ('frames', 'height', 'width')}}
            if set(row) != ROW or {name: row[name] for name in known} != known:
                raise ValueError('it is of another video than the index has')
        except Exception as error:  # whatever a parser makes of it
            raise UserError(f'{self._path}: the line at byte {start} is no row of record {i} ({error}): delete the '
                            'data set and prepare it again.') from error
        return row
