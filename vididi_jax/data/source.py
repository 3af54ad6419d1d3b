"""Random access to the frames of the videos of one split of a prepared data set."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from vididi_jax.data import checksums, records, storage
from vididi_jax.data.frames import Frames
from vididi_jax.data.manifest import Manifest
from vididi_jax.errors import UserError

STATUSES = ('ok', 'missing', 'broken')
MOST_PIXELS = 2**27  # of a frame, four times those of 8K: 0.4 GB


class NoSplitError(UserError):
    """The data set has no split of that name."""


def _parse_info(data: bytes) -> tuple[str, dict[str, list[int]]]:
    """The name of the data set, and for each of its splits the number of records of each shard."""
    info = json.loads(data)
    return info['name'], {entry['name']: [int(n) for n in entry['shardLengths']] for entry in info['splits']}


def _parse_plan(data: bytes) -> dict:
    plan = json.loads(data)
    if plan['format'] != records.FORMAT:
        raise ValueError(f'its format is {plan["format"]}, and {records.FORMAT} is read')
    if not {'name', 'options', 'files'} <= set(plan) or ('store' in plan) != ('store_fingerprint' in plan):
        raise ValueError('parts of it are missing')
    if plan['encoding'] not in records.ENCODINGS:
        raise ValueError(f'its encoding is {plan["encoding"]!r}')
    if not all(isinstance(plan.get(name, ''), str) for name in ('name', 'store')):
        raise ValueError('its name or its store is no text')
    return {**plan, 'options': dict(plan['options']), 'files': dict(plan['files'])}


def _parse_counts(data: bytes) -> dict[str, dict[str, int]]:
    counts = json.loads(data)
    if not counts:
        raise ValueError('it has no split')
    for split, found in counts.items():
        if set(found) != {'listed', *STATUSES} or found['listed'] != sum(int(found[status]) for status in STATUSES):
            raise ValueError(f'the numbers of split {split!r} do not add up')
        if not all(isinstance(number, int) and number >= 0 for number in found.values()):
            raise ValueError(f'the numbers of split {split!r} are no counts of videos')
    return counts


def _present(counts: dict[str, dict[str, int]], files: Iterable[str]) -> list[str]:
    """The splits that can be opened; of the others every listed video was missing, so that nothing was written."""
    return [split for split, found in counts.items() if found['missing'] < found['listed']
            or any(file.endswith(records.index_name('', split)) for file in files)]


def _check_rows(array: np.ndarray, dtype: np.dtype) -> None:
    if array.dtype != dtype or array.ndim != 1:
        raise ValueError(f'it is of {array.dtype} and shape {array.shape}, not (records,) of {dtype}')


def _shard_names(name: str, split: str, lengths: list[int]) -> list[str]:
    return [records.shard_name(name, split, i, len(lengths)) for i in range(len(lengths))]


def _expected(name: str, splits: Iterable[str], plan: dict) -> set[str]:
    """The files that a data set cannot be without, but for shards and what describes them."""
    return {records.PLAN, records.MANIFEST, records.COUNTS, records.LABELS, *plan['files'],
            *(records.index_name(name, split) for split in splits)}


def _expected_of_store(name: str, splits: dict[str, list[int]]) -> set[str]:
    """What a data set with shards of its own has besides."""
    return {records.INFO, records.FEATURES, *(records.frames_name(name, split) for split in splits),
            *(shard for split, lengths in splits.items() for shard in _shard_names(name, split, lengths))}


def _parse(path: Path, function: Callable[..., Any], *arguments) -> Any:
    """`function` of a file or its content; `UserError` if that is not what its reader expects."""
    try:
        return function(*arguments)
    except Exception as error:  # whatever a parser raises
        raise UserError(f'{path} cannot be read ({type(error).__name__}: {error}): delete the data set and prepare it '
                        'again.') from error


class Record:
    """A video of a data set: what is known of it, and its frames on demand.

    Attributes:
      row: its row of the manifest.
      label, num_frames, height, width: int.
    """

    def __init__(self, source: 'RecordSource', number: int):
        self._source, self._number = source, number
        self.label, self.num_frames, self.height, self.width = (
            int(source.index[name][number]) for name in ('label', 'frames', 'height', 'width'))

    @property
    def row(self) -> dict:
        return self._source.rows[self._number]

    def frames(self, indices: Sequence[int]) -> np.ndarray:
        """Decode frames: (len(indices), height, width, 3) uint8 RGB.

        Raises:
          UserError: bytes that are not those that were written, or no image of this size.
        """
        out = np.empty((len(indices), self.height, self.width, 3), np.uint8)
        write, = self._source.read([self._number], [indices])
        write(out)
        return out


class RecordSource:
    """The videos of a split: `source[i]` is a `Record`. Can be pickled and sent to worker processes.

    What is known of all videos lies in columns that are mapped into memory, not read; a worker maps the same files.

    Attributes:
      place: of the data set, a folder or a URL.
      directory: pathlib.Path of the folder that has its files, but not the shards if `place` is a URL.
      split: its name.
      name: of the data set.
      files: the names of all its files.
      store: the place that has the shards: its own, or that of the store which it is a view of.
      official_split: the number of the official split that it was prepared from; None where there is no such thing.
      encoding: of the frames, 'jpeg' or 'raw'.
      label_names: class names, in order of the label numbers.
      rows: the manifest's rows of the videos of this split, in record order; each is parsed when it is asked for.
      counts: how many videos of the split are 'listed', and 'ok', 'missing' and 'broken' of them.
      shards: the places of the split's shards, or of all shards of the store that it is a part of.
      index: (N,) `records.VIDEO`.
      fingerprint: hash of what every file holds, and of nothing that says where files lie: changes when the data does.
    """

    def __init__(self, directory: str | Path, split: str):
        """Open a split. All files but the large ones are held against their checksums, those against their sizes.

        Raises:
          UserError: no data set there, no such split, a file that is missing or damaged or does not fit the others.
        """
        if not str(directory):
            raise UserError('no data directory is given: set --config.data.dir to what data_prep wrote.')
        self.place, self.split = directory, split
        self.directory = storage.local_copy(directory) if storage.is_url(directory) else Path(directory)
        with self._of_the_cache():
            self._open()

    @contextmanager
    def _of_the_cache(self) -> Iterator[None]:
        """Around what reads files of the cache: of a copy that is damaged it is told that it is one."""
        try:
            yield
        except UserError as error:
            copies = {self.directory: self.place}
            if hasattr(self, '_frames'):  # of a view, in the copy of the store
                copies.setdefault(self._frames.parent, self.store)
            for folder, place in copies.items():
                if storage.is_url(place) and str(folder) in str(error):
                    raise UserError(f'{str(error).rstrip(".")}. {folder} is but a copy of {place}: delete that folder, '
                                    'and the next run copies it again.') from error
            raise

    def _open(self) -> None:
        directory, split = self.place, self.split
        sums = checksums.read_sums(self.directory)
        self.files = frozenset(sums)

        parse = partial(self._parse_content, sums)
        plan = parse(records.PLAN, _parse_plan)
        self.name, self.encoding = plan['name'], plan['encoding']
        self.official_split = plan['options'].get('official_split')
        counts = parse(records.COUNTS, _parse_counts)
        present = _present(counts, sums)
        if split in counts and split not in present:
            raise UserError(f'split {split!r} of {directory} has none of its {counts[split]["listed"]:,} listed '
                            'videos, which were all missing: complete it and prepare the data again.')
        if split not in counts:
            raise NoSplitError(f'{directory} has no split {split!r}: it has {", ".join(present)}. Name one of them, or '
                               'prepare the data with that one.')
        self.counts = counts[split]
        self.label_names = parse(records.LABELS, records.parse_label_names)
        expected, lengths = _expected(self.name, present, plan), None
        if 'store' not in plan:
            name, splits = parse(records.INFO, _parse_info)
            if (name, set(splits)) != (self.name, set(present)):
                raise UserError(f'{self.directory}: {records.INFO} has {", ".join(splits)} of {name}, and '
                                f'{records.COUNTS} {", ".join(present)} of {self.name}: {checksums.REPAIR}.')
            expected, lengths = expected | _expected_of_store(name, splits), splits[split]
        unlisted = sorted(expected - self.files)
        if unlisted:
            raise UserError(f'{self.directory / checksums.NAME} does not list {unlisted[0]}: {checksums.REPAIR}.')
        for name in sorted(self.files - {records.PLAN, records.INFO, records.LABELS, records.COUNTS}):
            if not records.is_large(name):
                checksums.check(self.directory / name, sums[name])
        if lengths is None:
            self._open_store(plan)
        else:
            self.store = self.place
            self.shards = [storage.join(self.place, name) for name in _shard_names(self.name, split, lengths)]
            self._frames = self.directory / records.frames_name(self.name, split)
        self._map()
        self._check_index(own=lengths is not None)
        if lengths is not None:
            self._check_shards(lengths)
        # The index has checksums of the large ones.
        about = {name: sums[name] for name in self.files if not records.is_large(name)}
        about[records.PLAN] = {**plan, 'root': ''}  # that is where the videos were
        self.fingerprint = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]

    def _open_store(self, plan: dict) -> None:
        """Shards and table of frames of the data set that this one is a part of."""
        store = RecordSource(storage.join(self.place, plan['store']), records.STORE_SPLIT)
        if store.fingerprint != plan['store_fingerprint']:
            raise UserError(f'{store.place} is not the data set that {self.place} was made of: prepare both again.')
        self.store, self.shards, self._frames = store.place, store.shards, store._frames

    def _parse_content(self, sums: dict[str, str], name: str, function: Callable[[bytes], Any]) -> Any:
        if name not in sums:
            raise UserError(f'{self.directory} has no {name} of its own: {checksums.REPAIR}.')
        path = self.directory / name
        return _parse(path, function, checksums.read(path, sums[name]))

    def _map(self) -> None:
        """Open the columns, here or in a worker."""
        path = self.directory / records.index_name(self.name, self.split)
        self.index = _parse(path, partial(np.load, mmap_mode='r'), path)
        _parse(path, _check_rows, self.index, records.VIDEO)
        self.index = self.index.view(np.ndarray)  # of the same memory; a memmap takes a while for each element
        table = _parse(self._frames, partial(np.load, mmap_mode='r'), self._frames)
        _parse(self._frames, _check_rows, table, records.FRAME)
        self._frames_start, self._frames_count = getattr(table, 'offset', 0), len(table)
        self.rows = Manifest(self.directory / records.MANIFEST, self.index, self.label_names)

    def __getstate__(self) -> dict:
        mapped = ('index', 'rows', 'sizes', 'labels', 'ids', 'groups')
        return {name: value for name, value in self.__dict__.items() if name not in mapped}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._map()

    def _check_index(self, own: bool) -> None:
        """What the index says can be; `own`: the table of frames is that of these videos alone, in this order."""
        index = self.index
        if self.counts['ok'] != len(index):
            raise UserError(f'{self.directory} lists {self.counts["ok"]:,} videos of split {self.split!r} in '
                            f'{records.COUNTS}, and {len(index):,} in the index: delete the data set and prepare it '
                            'again.')
        first = np.cumsum(index['frames'], dtype=np.int64) - index['frames'] if own else index['first']
        wrong = ((index['first'] != first) | (index['first'] < 0) | (index['label'] < 0)
                 | (index['first'] + index['frames'] > self._frames_count)
                 | (index['label'] >= len(self.label_names)) | (index['offset'] < 0) | (index['length'] < 0)
                 | (index['shard'] < 0) | (index['shard'] >= len(self.shards))
                 | (np.minimum(np.minimum(index['frames'], index['height']), index['width']) < 1))
        if wrong.any() or (own and self._frames_count != index['frames'].sum(dtype=np.int64)):
            raise UserError(f'{self.directory}: the index of split {self.split!r} does not fit the labels, the shards '
                            f'or {self._frames.name}: delete the data set and prepare it again.')

        pixels = index['height'].astype(np.int64) * index['width']
        if (pixels > MOST_PIXELS).any():
            raise UserError(f'{self.directory}: the index of split {self.split!r} has frames of {pixels.max():,} '
                            f'pixels, and those of at most {MOST_PIXELS:,} are read: delete the data set and prepare '
                            'it again, with smaller frames.')

    def _check_shards(self, lengths: list[int]) -> None:
        """Index and description have the same records; the shards are as large as these."""
        index, ends = self.index, np.zeros(len(lengths), np.int64)
        if np.bincount(index['shard'], minlength=len(lengths)).tolist() != lengths:
            raise UserError(f'{self.directory} has {len(index):,} videos of split {self.split!r} in the index and '
                            f'{sum(lengths):,} in {records.INFO}, or in other shards: delete the data set and prepare '
                            'it again.')
        np.maximum.at(ends, index['shard'], index['offset'] + records.record_size(index['length']))
        found = storage.sizes(self.place, [str(shard).rpartition('/')[2] for shard in self.shards])
        for path, expected, actual in zip(self.shards, ends.tolist(), found, strict=True):
            if actual != expected:
                state = 'is missing' if actual is None else f'has {actual:,} bytes instead of {expected:,}'
                raise UserError(f'the shard {path} {state}: {checksums.REPAIR}.')

    @property
    def split_fingerprint(self) -> str:
        """Hash of the videos of this split alone, wherever records stand: ids, labels, sizes, checksums."""
        columns = [self.index[name].tolist() for name in ('label', 'frames', 'height', 'width', 'crc')]
        about = [self.name, self.encoding, self.label_names, self.ids.tolist(), columns]
        return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, i: int) -> Record:
        return Record(self, range(len(self))[i])

    @property
    def num_frames(self) -> np.ndarray:
        """(N,) frames of the videos."""
        return self.index['frames']

    @cached_property
    def sizes(self) -> np.ndarray:
        """(N, 2) heights and widths of the videos."""
        return np.stack([self.index['height'], self.index['width']], 1)

    @cached_property
    def labels(self) -> np.ndarray:
        """(N,) class numbers."""
        return self.index['label'].astype(np.int64)

    @cached_property
    def ids(self) -> np.ndarray:
        """(N,) names of the videos, as objects."""
        return np.array([row['id'] for row in self.rows], object)

    @cached_property
    def groups(self) -> np.ndarray:
        """(N,) names of the groups, as objects; a video without one stands for itself."""
        return np.array([row['group'] or row['id'] for row in self.rows], object)

    def read(self, numbers: Sequence[int], indices: Sequence[Sequence[int]]) -> Iterator[Callable[[np.ndarray], None]]:
        """Frames of some videos, one video after the other.

        The table of frames is read, and the bytes of these frames, which are held against their checksums: nothing else
        of the record. From a URL all videos are read at once; files are read as each function is called.

        Args:
          numbers: of the videos.
          indices: of frames, for each video.

        Yields:
          For each video a function that writes its frames into (len(indices), height, width, 3) uint8, contiguous.

        Raises:
          UserError: bytes that are not those that were written, that cannot be read, or are no image of this size; the
            function raises it as well.
        """
        asked = (Frames(frames, self.frame_table(i), self.shards[self.index['shard'][i]], self.encoding)
                 for i, frames in zip(numbers, indices, strict=True))
        if not storage.is_url(self.store):
            for frames in asked:
                yield frames.read
            return
        asked = list(asked)
        checks = [partial(frames.check, number) for frames in asked for number in range(len(frames.parts))]
        found = iter(storage.read_parts([part for frames in asked for part in frames.parts],
                                        lambda number, data: checks[number](data)))
        for frames in asked:
            yield partial(frames.decode, list(islice(found, len(frames.parts))))

    def frame_table(self, i: int) -> np.ndarray:
        """(num_frames,) `records.FRAME` of video i, read: of a large set, pages that are mapped would fill the memory.

        Raises:
          UserError: they are not those that were written, or cannot be read.
        """
        first, count, crc = (int(self.index[name][i]) for name in ('first', 'frames', 'frames_crc'))
        size = records.FRAME.itemsize

        def check(_: int, data: bytes) -> None:
            if records.masked_crc(data) != crc:
                raise ValueError(f'the checksum of the frames of record {i} is wrong')

        part = storage.Part(self._frames, self._frames_start + first * size, count * size)
        with self._of_the_cache():
            return np.frombuffer(storage.read_parts([part], check)[0], records.FRAME)

    def read_record(self, i: int) -> bytes:
        """All of a record's data, a serialised tf.train.Example; raises `UserError` if its checksums are wrong."""
        video, shard = self.index[i], self.shards[self.index['shard'][i]]

        def check(_: int, framed: bytes) -> None:
            records.read_record(framed)
            if records.data_crc(framed) != video['crc']:
                raise ValueError('the record is not the one that the index was written for')

        part = storage.Part(shard, int(video['offset']), records.record_size(int(video['length'])))
        return records.read_record(storage.read_parts([part], check)[0])


def open_splits(directory: Path) -> list[RecordSource]:
    """All splits of a data set; raises as `RecordSource`."""
    sums = checksums.read_sums(directory)
    path = directory / records.COUNTS
    if records.COUNTS not in sums:
        raise UserError(f'{directory} has no {records.COUNTS} of its own: {checksums.REPAIR}.')
    counts = _parse(path, _parse_counts, checksums.read(path, sums[records.COUNTS]))
    return [RecordSource(directory, split) for split in _present(counts, sums)]
