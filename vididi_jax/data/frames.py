"""Some frames of one video: where their bytes lie, and how they get to where their pixels go."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from vididi_jax.data import records, storage


class Frames:
    """Frames of a video that are asked for; one that is asked for twice is read once.

    Attributes:
      encoding: of the frames.
      rows: what the table of frames says of each, `records.FRAME`.
    """

    def __init__(self, indices: Sequence[int], table: np.ndarray, shard: Path | str, encoding: str):
        """
        Args:
          indices: of the frames.
          table: of all frames of the video, `records.FRAME`.
          shard: the place of the file that has them.
          encoding: of the frames.
        """
        self.encoding, self.shard, self.indices, self.first = encoding, shard, [int(frame) for frame in indices], {}
        for position, frame in enumerate(self.indices):
            self.first.setdefault(frame, position)
        self.rows = table[list(self.first)]

    @cached_property
    def parts(self) -> list[storage.Part]:
        """Where the bytes of each lie."""
        return [storage.Part(self.shard, offset, length) for offset, length, _ in self.rows.tolist()]

    def check(self, number: int, data: bytes) -> None:
        """Raises `ValueError` if these are not the bytes of the part of this number."""
        if records.masked_crc(data) != self.rows['crc'][number]:
            raise self._wrong_checksum(number)

    def _wrong_checksum(self, number: int) -> ValueError:
        return ValueError(f'the checksum of frame {list(self.first)[number]} is wrong')

    def decode(self, encoded: Sequence[bytes], out: np.ndarray) -> None:
        """Write the pixels to `out` (len(indices), height, width, 3) uint8, from the bytes of all parts.

        Raises:
          UserError: bytes that are no image of this size.
        """
        for part, data, position in zip(self.parts, encoded, self.first.values(), strict=True):
            try:
                records.decode_frame(data, self.encoding, out[position])
            except Exception as error:  # whatever a decoder makes of it
                raise storage.wrong(part, error) from error
        self._repeat(out)

    def read(self, out: np.ndarray) -> None:
        """As `decode`, of parts of files, which are read now; raw frames go straight to where they belong.

        Raises:
          UserError: as `decode`; also bytes that are not those that were written, or that cannot be read.
        """
        if self.encoding != 'raw':
            self.decode(storage.read_parts(self.parts, self.check), out)
            return
        pixels = out.reshape(len(out), -1)
        for number in np.flatnonzero(self.rows['length'] != pixels.shape[1])[:1]:
            part = self.parts[number]
            raise storage.wrong(part, ValueError(f'{part.length:,} bytes are no image of {pixels.shape[1]:,}'))
        crcs = storage.read_into(
            self.shard, self.rows['offset'].tolist(), [pixels[position] for position in self.first.values()])
        for number in np.flatnonzero(records.masked(crcs) != self.rows['crc'])[:1]:
            raise storage.wrong(self.parts[number], self._wrong_checksum(number))
        self._repeat(out)

    def _repeat(self, out: np.ndarray) -> None:
        if len(self.first) == len(self.indices):
            return
        for position, frame in enumerate(self.indices):
            if position != self.first[frame]:
                out[position] = out[self.first[frame]]
