"""Changing prepared data sets in tests, as somebody does who edits one."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from vididi_jax.data import checksums, records
from vididi_jax.data.source import STATUSES


def seal(directory: Path) -> None:
    """Write the checksums of all files anew."""
    files = [path for path in Path(directory).iterdir() if path.is_file() and path.name != checksums.NAME]
    text = checksums.format_sums({path.name: checksums.of_file(path) for path in files})
    (Path(directory) / checksums.NAME).write_text(text)


def edit_manifest(directory: Path, change: Callable[[int, dict], dict | None]) -> tuple[list, list, list]:
    """Each row of the manifest through `change(number, row)`; one that gives None is left out. Nothing else follows.

    Returns what the lines were and are (b'' for one that is left out), and the rows.
    """
    path = Path(directory) / 'manifest.jsonl'
    old = path.read_bytes().splitlines(True)
    rows = [change(i, json.loads(line)) for i, line in enumerate(old)]
    new = [b'' if row is None else (json.dumps(row) + '\n').encode() for row in rows]
    path.write_bytes(b''.join(new))
    return old, new, rows


def edit_rows(directory: Path, change: Callable[[int, dict], dict | None]) -> None:
    """As `edit_manifest`; indices, tables of frames and counts follow, and the checksums of all."""
    directory = Path(directory)
    old, new, rows = edit_manifest(directory, change)
    before, after = (np.cumsum([0] + [len(line) for line in lines]) for lines in (old, new))
    labels = records.parse_label_names((directory / records.LABELS).read_bytes())
    for path in directory.glob('*.index.npy'):
        place = path.with_name(path.name.replace('.index.', '.frames.'))
        index, table, kept, tables = np.load(path), np.load(place), [], []
        for video in index:
            number = int(np.searchsorted(before, video['line']))
            row = rows[number]
            if row is None or row['status'] != 'ok':
                continue
            found = table[video['first'] :][: video['frames']]
            tables.append(np.resize(found, row['frames']))
            video['line'], video['label'] = after[number], labels.index(row['label'])
            for name in ('frames', 'height', 'width'):
                video[name] = row[name]
            video['first'] = sum(map(len, tables[:-1]))
            video['frames_crc'] = records.masked_crc(tables[-1].tobytes())
            kept.append(video)
        np.save(path, np.array(kept, records.VIDEO))
        np.save(place, np.concatenate([np.empty(0, records.FRAME), *tables]))
    counts = json.loads((directory / records.COUNTS).read_bytes())
    for split in counts:
        found = Counter(row['status'] for row in rows if row and row['split'] == split)
        counts[split] = {'listed': found.total(), **{status: found[status] for status in STATUSES}}
    (directory / records.COUNTS).write_text(json.dumps(counts))
    seal(directory)
