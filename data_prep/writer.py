"""Writing a data set directory: several processes decode, one writes, and a run that was stopped goes on.

Until everything is written the directory holds `incomplete/`: the plan of the run, and for each finished shard its
checksum and the rows of its videos. SHA256SUMS comes last, so a directory that has it is complete. Files appear whole,
and a run that goes on reads again what is there.
"""

import hashlib
import io
import json
import os
import shutil
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data_prep.decode import Decoded
from data_prep.description import describe
from data_prep.output import Output, write, writing
from vididi_jax.data import checksums, records
from vididi_jax.data.readers import end_with_parent
from vididi_jax.data.source import STATUSES, open_splits
from vididi_jax.errors import UserError
from vididi_jax.lock import locked

VIDEOS_PER_SHARD = 64  # what a stopped run loses at most


def printable(name: str) -> str:
    """A file name as text: bytes that are not UTF-8 are written out.

    >>> printable('caf\\udce9.avi')
    'caf\\\\xe9.avi'
    """
    return os.fsencode(name).decode('utf-8', 'backslashreplace')


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


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
        """The plan as json, with the format, and sha256 in place of what is long: lists of videos, other files."""
        described = {'format': records.FORMAT, **json.loads(json.dumps(asdict(self)))}
        lists = {name: _hashed(json.dumps(described[name])) for name in ('videos', 'missing')}
        return described | lists | {'files': {name: _hashed(text) for name, text in self.files.items()}}

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
      UserError: `out` holds something else, the data set of another plan or a damaged one, another process writes to
        it, or it cannot be written to; or no video can be decoded.
    """
    out = Path(out)
    described = plan.described()
    with writing(out):
        if _already_complete(out, described):
            print(f'{out} is complete already: nothing to do')
            return [json.loads(line) for line in (out / records.MANIFEST).read_bytes().splitlines()]
    with locked(out / records.INCOMPLETE, 'choose another --out'):
        return _go_on(plan, decode, out, workers, described)


def _go_on(plan: Plan, decode: Callable, out: Path, workers: int, described: dict) -> list[dict]:
    """Write what is not written yet."""
    write(out, records.PLAN, json.dumps(described).encode(), folder=out / records.INCOMPLETE)
    shards = plan.shards()
    done = _read_parts(plan, shards, out)
    waiting = [shard for shard in shards if shard[:2] not in done]
    videos = [video for *_, part in waiting for video in part]
    before = len(plan.videos) - len(videos)
    if before:
        print(f'going on after {before:,} of {len(plan.videos):,} videos')
    bar = tqdm(total=len(plan.videos), initial=before, unit='video', desc=plan.name, dynamic_ncols=True)
    with bar, _decoded(decode, videos, workers) as stream:
        for shard in waiting:
            done[shard[:2]] = _write_shard(plan, shard, stream, out, bar)
    return _finish(plan, shards, [done[shard[:2]] for shard in shards], out, described)


def _already_complete(out: Path, described: dict) -> bool:
    """Whether `out` holds the data set of this plan; raises if it holds anything but that, or a part of it."""
    if out.exists() and not out.is_dir():
        raise UserError(f'{out} is a file: choose another --out.')
    complete = (out / checksums.NAME).exists()
    plan_path = out / records.PLAN if complete else out / records.INCOMPLETE / records.PLAN
    if not plan_path.exists() and out.is_dir() and any(path.name != records.INCOMPLETE for path in out.iterdir()):
        if (out / records.INFO).exists():
            raise UserError(f'{out} holds a data set that is damaged, or of an older version: delete it, or choose '
                            'another --out.')
        raise UserError(f'{out} is not empty and was not written by this command: choose another --out.')
    if not plan_path.exists():
        return False
    try:
        same = json.loads(plan_path.read_bytes()) == described
    except (OSError, ValueError) as error:
        raise UserError(f'{plan_path} cannot be read ({error}): delete {out}, or choose another --out.') from error
    if not same:
        raise UserError(f'{out} holds a data set of other videos, other options or an older version: choose another '
                        '--out, or delete it.')
    if complete:
        open_splits(out)  # raises if a file is damaged
        shutil.rmtree(out / records.INCOMPLETE, ignore_errors=True)  # of a run that was stopped at its very end
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


def _row(video: Video, status: str, decoded: Decoded | None = None, reason: str = '') -> dict:
    ok = status == 'ok'
    return {
        **{name: getattr(video, name) for name in ('id', 'path', 'label', 'group', 'split')},
        'frames': len(decoded.frames) if ok else None, 'fps': decoded.fps if ok else None,
        'width': decoded.width if ok else None, 'height': decoded.height if ok else None,
        'status': status, 'reason': reason,
    }


def _write_shard(plan: Plan, shard: tuple, stream: Iterator[Decoded], out: Path, bar: tqdm) -> dict:
    """Write one shard and then its part, which is returned.

    A part is {'checksum': of the shard, 'frames': of the file with its table of frames, 'rows': of its videos}; the
    row of a record has '_record' too: what the index says of it, but for its place in the manifest and the table.
    """
    split, number, shards, videos = shard
    rows, tables, offset = [], [], 0
    with Output(out, records.shard_name(plan.name, split, number, shards)) as file:
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
            tables.append(records.locate_frames(data, decoded.frames, offset + records.HEADER.size).tobytes())
            rows.append(_row(video, 'ok', decoded, decoded.reason) | {'_record': {
                'shard': number, 'offset': offset, 'length': len(data), 'crc': records.data_crc(record),
                'label': plan.label_names.index(video.label), 'frames': len(decoded.frames), 'height': decoded.height,
                'width': decoded.width, 'frames_crc': records.masked_crc(tables[-1])}})
            offset += records.record_size(len(data))
    frames = write(out, _frames_part_name(split, number), b''.join(tables), folder=out / records.INCOMPLETE)
    part = {'checksum': file.checksum, 'frames': frames, 'rows': rows}
    framed = records.frame_record(json.dumps(part).encode())  # a record, so that damage is noticed
    write(out, _part_name(split, number), framed, folder=out / records.INCOMPLETE)
    return part


def _part_name(split: str, number: int) -> str:
    return f'{split}-{number:05d}.part'


def _frames_part_name(split: str, number: int) -> str:
    return f'{split}-{number:05d}.frames'


def _read_parts(plan: Plan, shards: list[tuple], out: Path) -> dict[tuple[str, int], dict]:
    """(split, number) -> the part of each shard that is written already, and as it was written."""
    parts, folder = {}, out / records.INCOMPLETE
    found = [shard for shard in shards if (folder / _part_name(*shard[:2])).exists()]
    for split, number, count, _ in tqdm(found, unit='shard', desc='checking', disable=not found, dynamic_ncols=True):
        path, shard = folder / _part_name(split, number), out / records.shard_name(plan.name, split, number, count)
        try:
            part = json.loads(records.read_record(path.read_bytes()))
            if (checksums.of_file(shard), checksums.of_file(folder / _frames_part_name(split, number))) != (
                    part['checksum'], part['frames']):
                raise ValueError('its checksum is wrong')
        except (OSError, ValueError) as error:
            tqdm.write(f'{shard.name} is damaged ({error}): writing it again')
            continue
        parts[split, number] = part
    return parts


def _lines(rows: Iterable[dict]) -> list[bytes]:
    return [(json.dumps({key: value for key, value in row.items() if key != '_record'}) + '\n').encode()
            for row in rows]


def _finish(plan: Plan, shards: list[tuple], parts: list[dict], out: Path, described: dict) -> list[dict]:
    """Index, manifest, and TFDS's description of the finished shards; and the checksums of all."""
    names = [records.shard_name(plan.name, *shard[:3]) for shard in shards]
    rows = [row for part in parts for row in part['rows']]
    incomplete = out / records.INCOMPLETE
    if not any(row['status'] == 'ok' for row in rows):
        with writing(out):
            for name in names:
                (out / name).unlink()
            shutil.rmtree(incomplete)  # so that the next try reads the files again
        reason = f'; the first one: {rows[0]["path"]}: {rows[0]["reason"]}' if rows else ''
        raise UserError(f'none of the {len(rows)} videos can be decoded{reason}.')
    manifest = rows + [_row(video, 'missing', reason='listed, and not in the folder of videos')
                       for video in plan.missing]
    lines = _lines(manifest)
    splits = list(dict.fromkeys(row['split'] for row in rows))
    files = {records.MANIFEST: b''.join(lines), records.PLAN: json.dumps(described).encode(),
             records.COUNTS: json.dumps({split: _counts(manifest, split) for split in splits}).encode(),
             **{name: text.encode() for name, text in plan.files.items()}}
    indices = {split: make_index(split, rows, lines) for split in splits}
    files |= {records.index_name(plan.name, split): _npy(index) for split, index in indices.items()}
    with writing(out):
        files |= describe(plan, shards, indices, incomplete)
    sums = {name: part['checksum'] for name, part in zip(names, parts, strict=True)}
    sums |= {records.frames_name(plan.name, split): _write_frames(plan, split, shards, index, out)
             for split, index in indices.items()}
    sums |= {name: write(out, name, content) for name, content in files.items()}
    write(out, checksums.NAME, checksums.format_sums(sums).encode())
    with writing(out):
        shutil.rmtree(incomplete)
    return [json.loads(line) for line in lines]


def _counts(rows: list[dict], split: str) -> dict[str, int]:
    statuses = Counter(row['status'] for row in rows if row['split'] == split)
    return {'listed': statuses.total(), **{status: statuses[status] for status in STATUSES}}


def make_index(split: str, rows: list[dict], lines: list[bytes]) -> np.ndarray:
    """(records,) `records.VIDEO` of a split, of all rows and lines of the manifest."""
    ends = np.cumsum([len(line) for line in lines])
    mine = [(row['_record'], int(end) - len(line)) for row, line, end in zip(rows, lines, ends, strict=False)
            if row['split'] == split and row['status'] == 'ok']
    index = np.zeros(len(mine), records.VIDEO)
    for name in records.VIDEO.names:
        if name not in ('line', 'first'):
            index[name] = [record[name] for record, _ in mine]
    index['line'] = [line for _, line in mine]
    index['first'] = np.cumsum(index['frames'], dtype=np.int64) - index['frames']
    return index


def _npy(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def _write_frames(plan: Plan, split: str, shards: list[tuple], index: np.ndarray, out: Path) -> str:
    """The table of frames of a split, from those of its shards; returns its checksum."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {
        'descr': np.lib.format.dtype_to_descr(records.FRAME), 'fortran_order': False,
        'shape': (int(index['frames'].sum()),)})
    with Output(out, records.frames_name(plan.name, split)) as file:
        file.write(header.getvalue())
        for name, number, *_ in shards:
            if name == split:
                with writing(out):
                    piece = (out / records.INCOMPLETE / _frames_part_name(split, number)).read_bytes()
                file.write(piece)
    return file.checksum
