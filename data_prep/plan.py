"""What is to be written: the listed videos of a data set, and all that decides what becomes of them."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property

from vididi_jax.data import records

VIDEOS_PER_SHARD = 64  # what a stopped run loses at most


def printable(name: str) -> str:
    """A file name as text: bytes that are not UTF-8 are written out.

    >>> printable('caf\\udce9.avi')
    'caf\\\\xe9.avi'
    """
    return name.encode('utf-8', 'surrogateescape').decode('utf-8', 'backslashreplace')


def shown(name: str) -> str:
    """A file name, or a line with some, as it is printed: nothing in it ends the line or speaks to the terminal.

    >>> shown('new\\nline.avi')
    'new\\\\nline.avi'
    """
    return ''.join(char if char.isprintable() else ascii(char)[1:-1] for char in printable(name))


@dataclass(frozen=True)
class Video:
    """A listed video. `path` is relative to the folder of videos; `label` is a class name; `id` is its name in text."""

    id: str
    path: str
    label: str
    group: str
    split: str


def digest(videos: Sequence[Video]) -> str:
    """sha256 of a list of videos."""
    return hashlib.sha256(json.dumps([asdict(video) for video in videos]).encode()).hexdigest()


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
      views: where the videos are of several splits: name of a view -> its listed videos, see `data_prep.views`.
    """

    name: str
    root: str
    label_names: tuple[str, ...]
    videos: tuple[Video, ...]
    missing: tuple[Video, ...]
    encoding: str
    options: dict
    files: dict[str, str] = field(default_factory=dict)
    views: dict[str, tuple[Video, ...]] = field(default_factory=dict)

    @cached_property
    def label_numbers(self) -> dict[str, int]:
        """Class name -> its number: there may be as many classes as videos."""
        return {name: number for number, name in enumerate(self.label_names)}

    def described(self) -> dict:
        """The plan as json, with the format, and sha256 in place of what is long: lists of videos, other files."""
        names = [each.name for each in fields(self) if each.name not in ('videos', 'missing', 'views')]
        described = {name: getattr(self, name) for name in names}
        return {'format': records.FORMAT, **json.loads(json.dumps(described)), 'videos': digest(self.videos),
                'missing': digest(self.missing),
                'files': {name: hashlib.sha256(text.encode()).hexdigest() for name, text in self.files.items()}}

    def shards(self) -> list[tuple[str, int, int, tuple[Video, ...]]]:
        """(split, shard, number of the split's shards, its videos)."""
        found = []
        for split in dict.fromkeys(video.split for video in self.videos):
            videos = [video for video in self.videos if video.split == split]
            parts = [tuple(videos[i : i + VIDEOS_PER_SHARD]) for i in range(0, len(videos), VIDEOS_PER_SHARD)]
            found += [(split, number, len(parts), part) for number, part in enumerate(parts)]
        return found
