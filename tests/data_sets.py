"""Changing prepared data sets in tests, as somebody does who edits one."""

import json
from collections.abc import Callable
from pathlib import Path

from vididi_jax.data import checksums


def seal(directory: Path) -> None:
    """Write the checksums of all files anew."""
    files = [path for path in Path(directory).iterdir() if path.is_file() and path.name != checksums.NAME]
    text = checksums.format_sums({path.name: checksums.of_file(path) for path in files})
    (Path(directory) / checksums.NAME).write_text(text)


def edit_rows(directory: Path, change: Callable[[int, dict], dict | None]) -> None:
    """Each row of the manifest through `change(number, row)`; one that gives None is left out. Sealed after that."""
    path = Path(directory) / 'manifest.jsonl'
    rows = [change(i, json.loads(line)) for i, line in enumerate(path.read_text().splitlines())]
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows if row is not None))
    seal(directory)
