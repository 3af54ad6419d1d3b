"""Files that are there as a whole, or as they were before."""

import os
from pathlib import Path
from uuid import uuid4


def write_whole(path: Path, text: str) -> None:
    """Write a text; a disk that is full, or a process that is killed, leaves the file that was there."""
    temporary = path.with_name(f'{path.name}.{uuid4().hex[:8]}.tmp')
    try:
        temporary.write_text(text, newline='')
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
