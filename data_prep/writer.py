"""Writing a data set directory: several processes decode, one writes, and a run that was stopped goes on.

Until everything is written the directory holds `incomplete/`: the plan of the run, and for each finished shard the rows
of its videos. dataset_info.json comes last, so a directory that has it is complete.
"""

import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data_prep.decode import Decoded
from vididi_jax.data import records
from vididi_jax.data.readers import end_with_parent
from vididi_jax.errors import UserError

VIDEOS_PER_SHARD = 64  # what a stopped run loses at most


def printable(name: str) -> str:
    """A file name as text: bytes that are not UTF-8 are written out.

    >>> printable('caf\\udce9.avi')
    'caf\\\\xe9.avi'
    """
    return os.fsencode(name).decode('utf-8', 'backslashreplace')


@dataclass(frozen=True)
class Video:
    """A listed video. `path` is relative to the folder of videos; `label` is a class name; `id` is its name in text."""

    id: str
    path: str
    label: str
    group: str
    split: str


@dataclass(frozen=True)
class Plan:
    """All that decides what is written.

    Attributes:
      name: of the data set, for TFDS.
      root: the folder of the videos, '' if they are made and not read.
      label_names: class names in the order of their numbers.
      videos: the listed videos that exist, in record order.
      missing: the listed videos that do not.
      encoding: 'jpeg' or 'raw'.
      options: what else the frames depend on, as it should stand in the data set's description.
      files: other text files of the data set, name -> content, that stand beside the shards.
    """

    name: str
    root: str
    label_names: tuple[str, ...]
    videos: tuple[Video, ...]
    missing: tuple[Video, ...]
    encoding: str
    options: dict
    files: dict[str, str] = field(default_factory=dict)

    def described(self) -> dict:
        """The plan as json, with the format and the sha256 of the other files in place of their text."""
        described = {'format': records.FORMAT, **json.loads(json.dumps(asdict(self)))}
        hashes = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in described.pop('files').items()}
        return described | ({'files': hashes} if hashes else {})

    def shards(self) -> list[tuple[str, int, int, tuple[Video, ...]]]:
        """(split, shard, number of the split's shards, its videos)."""
        found = []
        for split in dict.fromkeys(video.split for video in self.videos):
            videos = [video for video in self.videos if video.split == split]
            parts = [tuple(videos[i : i + VIDEOS_PER_SHARD]) for i in range(0, len(videos), VIDEOS_PER_SHARD)]
            found += [(split, number, len(parts), part) for number, part in enumerate(parts)]
        return found


def write_dataset(plan: Plan, decode: Callable[[Video], Decoded], out: str | Path, workers: int) -> list[dict]:
    """Decode the videos of `plan` and write the data set directory `out`; returns the manifest's rows.

    Args:
      plan: what to write.
      decode: a function that can be pickled.
      out: the directory; one that an equal plan left unfinished is gone on with.
      workers: decoding processes.

    Raises:
      UserError: `out` holds something else or the data set of another plan, or no video can be decoded.
    """
    out = Path(out)
    incomplete = out / 'incomplete'
    described = plan.described()
    if _already_complete(out, incomplete, described):
        print(f'{out} is complete already: nothing to do')
        return _read_rows(out / records.MANIFEST)
    try:
        incomplete.mkdir(parents=True, exist_ok=True)
        (incomplete / records.PLAN).write_text(json.dumps(described))
    except OSError as error:
        raise UserError(f'cannot write to {out} ({error}): choose another --out.') from error
    shards = plan.shards()
    waiting = [shard for shard in shards if not _rows_path(incomplete, shard).exists()]
    videos = [video for *_, part in waiting for video in part]
    done = len(plan.videos) - len(videos)
    if done:
        print(f'going on after {done:,} of {len(plan.videos):,} videos')
    bar = tqdm(total=len(plan.videos), initial=done, unit='video', desc=plan.name, dynamic_ncols=True)
    with bar, _decoded(decode, videos, workers) as stream:
        for shard in waiting:
            _write_shard(plan, shard, stream, out, incomplete, bar)
    return _finish(plan, shards, out, incomplete, described)


def _already_complete(out: Path, incomplete: Path, described: dict) -> bool:
    """Whether `out` holds the data set of this plan; raises if it holds anything but that, or a part of it."""
    complete = (out / 'dataset_info.json').exists()
    plan_path = out / records.PLAN if complete else incomplete / records.PLAN
    if not plan_path.exists():
        if out.is_dir() and any(path.name != 'incomplete' for path in out.iterdir()):
            raise UserError(f'{out} is not empty and was not written by this command: choose another --out.')
        if out.exists() and not out.is_dir():
            raise UserError(f'{out} is a file: choose another --out.')
        return False
    if json.loads(plan_path.read_text()) != described:
        raise UserError(f'{out} holds a data set of other videos, other options or an older version: choose another '
                        '--out, or delete it.')
    return complete


class _decoded:
    """Context of an iterator over the decoded videos, in order, a few ahead of their use."""

    def __init__(self, decode, videos: list[Video], workers: int):
        self.decode, self.videos, self.workers = decode, videos, min(workers, len(videos))
        self.pool = ProcessPoolExecutor(
            self.workers, get_context('spawn'), initializer=end_with_parent) if self.workers > 1 else None

    def __enter__(self) -> Iterator[Decoded]:
        return self._ahead() if self.pool else map(self.decode, self.videos)

    def _ahead(self) -> Iterator[Decoded]:
        waiting, videos = deque(), iter(self.videos)
        try:
            while True:
                for video in videos:
                    waiting.append(self.pool.submit(self.decode, video))
                    if len(waiting) >= 4 * self.workers:
                        break
                if not waiting:
                    return
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise UserError('a decoding process died (out of memory, or a crash in the decoder): '
                            'run the same command again with fewer --workers.') from error

    def __exit__(self, *_) -> None:
        if self.pool:
            self.pool.shutdown(cancel_futures=True)


def _rows_path(incomplete: Path, shard: tuple) -> Path:
    split, number, *_ = shard
    return incomplete / f'{split}-{number:05d}.jsonl'


def _row(video: Video, status: str, decoded: Decoded | None = None, reason: str = '') -> dict:
    ok = status == 'ok'
    return {
        **{name: getattr(video, name) for name in ('id', 'path', 'label', 'group', 'split')},
        'frames': len(decoded.frames) if ok else None, 'fps': decoded.fps if ok else None,
        'width': decoded.width if ok else None, 'height': decoded.height if ok else None,
        'status': status, 'reason': reason,
    }


def _write_shard(plan: Plan, shard: tuple, stream: Iterator[Decoded], out: Path, incomplete: Path, bar: tqdm) -> None:
    """One shard and the rows of its videos; the rows appear last, and whole."""
    split, number, shards, videos = shard
    path = out / records.shard_name(plan.name, split, number, shards)
    temporary = incomplete / path.name
    rows, offset = [], 0
    with temporary.open('wb') as file:
        for video in videos:
            decoded = next(stream)
            bar.update()
            if not decoded.frames:
                rows.append(_row(video, 'broken', reason=decoded.reason))
                continue
            data = records.serialise(decoded.frames, plan.encoding, {
                'id': video.id, 'group': video.group, 'label': plan.label_names.index(video.label), 'fps': decoded.fps,
                'num_frames': len(decoded.frames), 'height': decoded.height, 'width': decoded.width})
            record = records.frame_record(data)
            file.write(record)
            rows.append(_row(video, 'ok', decoded, decoded.reason) | {
                '_record': [number, offset, len(data), records.data_crc(record)]})
            offset += records.record_size(len(data))
    os.replace(temporary, path)
    rows_path = _rows_path(incomplete, shard)
    rows_path.with_suffix('.tmp').write_text(_lines(rows))
    os.replace(rows_path.with_suffix('.tmp'), rows_path)


def _lines(rows: Iterable[dict]) -> str:
    return ''.join(json.dumps(row) + '\n' for row in rows)


def _read_rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _finish(plan: Plan, shards: list[tuple], out: Path, incomplete: Path, described: dict) -> list[dict]:
    """Index, manifest, and TFDS's description of the finished shards."""
    rows = [row for shard in shards for row in _read_rows(_rows_path(incomplete, shard))]
    if not any(row['status'] == 'ok' for row in rows):
        shutil.rmtree(incomplete)  # so that the next try reads the files again
        for split, number, count, _ in shards:
            (out / records.shard_name(plan.name, split, number, count)).unlink()
        reason = f'; the first one: {rows[0]["path"]}: {rows[0]["reason"]}' if rows else ''
        raise UserError(f'none of the {len(rows)} videos can be decoded{reason}.')
    for split in dict.fromkeys(row['split'] for row in rows):
        index = [row['_record'] for row in rows if row['split'] == split and row['status'] == 'ok']
        index = np.array(index, np.int64).reshape(-1, records.INDEX_COLUMNS)
        np.save(out / records.index_name(plan.name, split), index)
    manifest = [{key: value for key, value in row.items() if key != '_record'} for row in rows]
    manifest += [_row(video, 'missing', reason='listed, and not in the folder of videos') for video in plan.missing]
    (out / records.MANIFEST).write_text(_lines(manifest))
    (out / records.PLAN).write_text(json.dumps(described))
    for name, text in plan.files.items():
        (out / name).write_text(text)
    _write_tfds_info(plan, shards, rows, out)
    shutil.rmtree(incomplete)
    return manifest


def _write_tfds_info(plan: Plan, shards: list[tuple], rows: list[dict], out: Path) -> None:
    import tensorflow_datasets as tfds

    identity = tfds.core.dataset_info.DatasetIdentity(
        name=plan.name, version=tfds.core.Version('1.0.0'), data_dir=str(out), module_name='data_prep')
    options = ', '.join(f'{name}={value}' for name, value in plan.options.items())
    info = tfds.core.DatasetInfo(
        builder=identity, features=records.features(plan.label_names, plan.encoding),
        description=f'Decoded videos of {plan.name}, one record each ({options}, encoding={plan.encoding}).')
    splits = []
    for split in dict.fromkeys(split for split, *_ in shards):
        mine = [row['_record'] for row in rows if row['split'] == split and row['status'] == 'ok']
        count = next(total for name, _, total, _ in shards if name == split)
        lengths = [sum(record[0] == number for record in mine) for number in range(count)]
        size = sum(records.record_size(record[2]) for record in mine)
        template = tfds.core.ShardedFileTemplate(
            data_dir=str(out), dataset_name=plan.name, split=split, filetype_suffix='tfrecord')
        splits.append(tfds.core.SplitInfo(
            name=split, shard_lengths=lengths, num_bytes=size, filename_template=template))
    info.set_splits(tfds.core.splits.SplitDict(splits))
    info.write_to_directory(str(out))
