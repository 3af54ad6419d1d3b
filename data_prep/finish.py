"""What is written last: manifest, columns, description and checksums."""

import io
import json
from collections import Counter
from collections.abc import Iterable
from itertools import accumulate
from pathlib import Path

import numpy as np

from vididi_jax.data import checksums, records
from vididi_jax.data.source import STATUSES
from vididi_jax.errors import UserError

from .description import describe
from .output import Output, discard, write, writing
from .plan import Plan, shown
from .shards import frames_part_name, row_of


def manifest_lines(rows: Iterable[dict]) -> list[bytes]:
    """The lines of the manifest, with their ends."""
    return [(json.dumps({key: value for key, value in row.items() if key != '_record'}) + '\n').encode()
            for row in rows]


def finish(plan: Plan, shards: list[tuple], parts: list[dict], out: Path, described: dict) -> list[dict]:
    """Index, manifest, and TFDS's description of the finished shards; and the checksums of all."""
    names = [records.shard_name(plan.name, *shard[:3]) for shard in shards]
    rows = [row for part in parts for row in part['rows']]
    incomplete = out / records.INCOMPLETE
    if not any(row['status'] == 'ok' for row in rows):
        with writing(out):
            for name in names:
                (out / name).unlink()
        discard(out)  # so that the next try reads the files again
        reason = f'; the first one: {shown(rows[0]["path"])}: {rows[0]["reason"]}' if rows else ''
        raise UserError(f'none of the {len(rows)} videos can be decoded{reason}.')
    manifest = rows + [row_of(video, 'missing', reason='listed, and not in the folder of videos')
                       for video in plan.missing]
    lines = manifest_lines(manifest)
    splits, listed = (list(dict.fromkeys(row['split'] for row in found)) for found in (rows, manifest))
    files = {records.MANIFEST: b''.join(lines), records.PLAN: json.dumps(described).encode(),
             records.COUNTS: json.dumps({split: count(manifest, split) for split in listed}).encode(),
             **{name: text.encode() for name, text in plan.files.items()}}
    indices = {split: make_index(split, rows, lines) for split in splits}
    files |= {records.index_name(plan.name, split): npy_of(index) for split, index in indices.items()}
    with writing(out):
        files |= describe(plan, shards, indices, incomplete)
    sums = {name: part['checksum'] for name, part in zip(names, parts, strict=True)}
    sums |= {records.frames_name(plan.name, split): _write_frames(plan, split, shards, index, out)
             for split, index in indices.items()}
    write_last(out, files, sums)
    return [json.loads(line) for line in lines]


def write_last(out: Path, files: dict[str, bytes], sums: dict[str, str]) -> None:
    """Write the small files, name -> content, and the checksums of these and, from `sums`, of all others: the end."""
    sums = sums | {name: write(out, name, content) for name, content in files.items()}
    write(out, checksums.NAME, checksums.format_sums(sums).encode())
    discard(out)


def count(rows: list[dict], split: str) -> dict[str, int]:
    """How many of the rows of a split are listed, and of each status."""
    statuses = Counter(row['status'] for row in rows if row['split'] == split)
    return {'listed': statuses.total(), **{status: statuses[status] for status in STATUSES}}


def make_index(split: str, rows: list[dict], lines: list[bytes]) -> np.ndarray:
    """(records,) `records.VIDEO` of a split, of the rows of what was read and the lines of the manifest."""
    mine = [(row['_record'], start) for row, start in zip(rows, line_starts(lines), strict=False)
            if row['split'] == split and row['status'] == 'ok']
    index = np.zeros(len(mine), records.VIDEO)
    for name in records.VIDEO.names:
        if name not in ('line', 'first'):
            index[name] = [record[name] for record, _ in mine]
    index['line'] = [line for _, line in mine]
    index['first'] = np.cumsum(index['frames'], dtype=np.int64) - index['frames']
    return index


def line_starts(lines: list[bytes]) -> list[int]:
    """Where each line begins, in bytes.

    >>> line_starts([b'ab\\n', b'c\\n', b'd\\n'])
    [0, 3, 5]
    """
    return [0, *accumulate(map(len, lines[:-1]))]


def npy_of(array: np.ndarray) -> bytes:
    """The content of the .npy file of an array."""
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
                    piece = (out / records.INCOMPLETE / frames_part_name(split, number)).read_bytes()
                file.write(piece)
    return file.checksum
