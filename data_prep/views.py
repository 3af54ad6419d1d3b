"""Views of a store: data sets without shards of their own, such as the three official splits of UCF101.

`OUT/store` holds every video once, as a data set of the one split `videos`; `OUT/split1` and so on hold for each of
their splits an index and a manifest, and are opened as any other data set. OUT is moved or copied as a whole.
"""

import json
from pathlib import Path

from vididi_jax.data import records
from vididi_jax.data.source import RecordSource, open_splits

from .finish import count, line_starts, manifest_lines, npy_of, write_last
from .output import is_complete, unfinished, write, writing
from .plan import Plan, Video, digest


def write_views(plan: Plan, out: Path) -> None:
    """Write the views of `plan`, whose store is in `out`, and say what they have; what is complete stays.

    Raises:
      UserError: as `writer.write_dataset`.
    """
    store = RecordSource(out / records.STORE, records.STORE_SPLIT)
    numbers = {row['id']: number for number, row in enumerate(store.rows)}
    every = {row['id']: row for row in map(json.loads, (store.directory / records.MANIFEST).read_bytes().splitlines())}
    for name, videos in plan.views.items():
        described = _described(plan, name, videos, store)
        with writing(out):
            complete = is_complete(out / name, described)
        if not complete:
            with unfinished(out / name):
                _write_view(videos, store, every, numbers, out / name, described)
        for source in open_splits(out / name):
            print(f'{name} {source.split}: {source.counts["ok"]:,} videos of {source.counts["listed"]:,} listed')


def _described(plan: Plan, name: str, videos: tuple[Video, ...], store: RecordSource) -> dict:
    """The plan of a view, as that of any data set, with the store that it is a view of."""
    described = plan.described()
    described['options'] |= {'official_split': int(name.removeprefix('split'))}
    return described | {'videos': digest(videos), 'missing': digest(()), 'store': f'../{records.STORE}',
                        'store_fingerprint': store.fingerprint}


def _write_view(videos: tuple[Video, ...], store: RecordSource, every: dict[str, dict], numbers: dict[str, int],
                out: Path, described: dict) -> None:
    """Write one view.

    Args:
      videos: its listed videos, each with its split.
      store: that has them.
      every: id -> row of the store's manifest.
      numbers: id -> number of the record in the store, of those that have one.
      out, described: its directory and its plan.
    """
    write(out, records.PLAN, json.dumps(described).encode(), folder=out / records.INCOMPLETE)
    splits = list(dict.fromkeys(video.split for video in videos))
    # In the store's order, so that neighbours in a split are neighbours on the disk; then what is missing or broken.
    videos = sorted(videos, key=lambda video: numbers.get(video.id, len(numbers)))
    rows = [every[video.id] | {'split': video.split} for video in videos]
    lines = manifest_lines(rows)
    starts = line_starts(lines)
    files = {records.MANIFEST: b''.join(lines), records.PLAN: json.dumps(described).encode(),
             records.COUNTS: json.dumps({split: count(rows, split) for split in splits}).encode(),
             records.LABELS: (store.directory / records.LABELS).read_bytes()}
    for split in splits:
        mine = [i for i, row in enumerate(rows) if row['split'] == split and row['status'] == 'ok']
        index = store.index[[numbers[rows[i]['id']] for i in mine]]
        index['line'] = [starts[i] for i in mine]
        files[records.index_name(store.name, split)] = npy_of(index)
    write_last(out, files, {})
