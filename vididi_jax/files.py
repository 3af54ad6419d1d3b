"""Files that are there as a whole, or as they were before."""

import os
from pathlib import Path
from uuid import uuid4


def write_whole(path: Path, content: str | bytes) -> None:
    """Write bytes, or a text in UTF-8; a full disk, or a process that is killed, leaves the file that was there."""
    temporary = path.with_name(f'{path.name}.{uuid4().hex[:8]}.tmp')
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
