"""The memory of batches, which is used again and again, also between processes.

Memory that is new costs as much as half of the decoding into it: the system hands it out page by page, zeroed, and
takes it back. A batch lies therefore in a `Segment`, whose first byte says whether somebody still looks at it. Who
reads for another process shares the segment itself, and sends only where it is.
"""

import math
import mmap
import os
import weakref
from dataclasses import dataclass
from threading import Lock

import numpy as np

HEADER = 64  # bytes before the array, which is so aligned that JAX on a CPU need not copy it
FREE, TAKEN = 0, 1


class Segment:
    """Memory for one array; `file` is its descriptor if other processes are to see it, else -1."""

    def __init__(self, size: int, shared: bool):
        self.size, self.file = size, os.memfd_create('clips') if shared else -1
        if shared:
            os.ftruncate(self.file, HEADER + size)
        self.memory = mmap.mmap(self.file, HEADER + size)

    @property
    def free(self) -> bool:
        return self.memory[0] == FREE


@dataclass(frozen=True)  # and no tuple, which grain would take for a structure
class Place:
    """Where an array lies: in the memory behind `file`, a descriptor of process `process`; `Arrived` where it is sent.
    """

    process: int
    file: int
    shape: tuple[int, ...]

    def __reduce__(self) -> tuple:
        return Arrived, (self.process, self.file, self.shape)


class Arrived:
    """A `Place` in the process that it was sent to, which opens it at once: who sent it may end before it is used."""

    def __init__(self, process: int, file: int, shape: tuple[int, ...]):
        self.place, self.shape = (process, file), shape
        try:
            self.opened = open(f'/proc/{process}/fd/{file}', 'r+b', buffering=0)
        # It was killed, or told to end, and then nobody asks for the batch. What is left of it is root's.
        except (FileNotFoundError, PermissionError, ProcessLookupError):
            self.opened = None


_segments: list[Segment] = []
_lock, _shared = Lock(), False


def share() -> None:
    """From now on this process makes arrays for another one; where the system has no such memory, grain copies them."""
    global _shared
    _shared = hasattr(os, 'memfd_create')


def take(shape: tuple[int, ...]) -> tuple[np.ndarray | Place, np.ndarray]:
    """What to hand on, and an array of uint8 of any content to fill: the same, unless `share` was called.

    The memory is taken again when no view of the array is left, or of what `receive` made of its place.
    """
    size = math.prod(shape)
    with _lock:
        found = next((segment for segment in _segments if segment.size == size and segment.free), None)
        if found is None:  # what is free is of other sizes: of another task by now
            _drop_free()
            found = Segment(size, _shared)
            _segments.append(found)
        found.memory[0] = TAKEN
    if _shared:
        return Place(os.getpid(), found.file, shape), _array(found.memory, shape)
    array = _array(found.memory, shape, give_back=True)
    return array, array


def give_back() -> None:
    """Give memory back to the system that nobody looks at, where no more arrays will be made."""
    with _lock:
        _drop_free()


def _drop_free() -> None:
    # Descriptors stay open: another process knows memory by their numbers, which must not come to mean another.
    _segments[:] = [segment for segment in _segments if not segment.free]


def receive(sent: np.ndarray | Arrived, known: dict[tuple[int, int], mmap.mmap]) -> np.ndarray:
    """The array of what another process handed on; `known` is kept as long as that process works.

    Raises:
      RuntimeError: that process ended before this came.
    """
    if isinstance(sent, np.ndarray):
        return sent
    if sent.opened is None:
        raise RuntimeError(f'process {sent.place[0]} ended before its batch came: exit code unknown.')
    with sent.opened as file:
        if sent.place not in known:
            known[sent.place] = mmap.mmap(file.fileno(), 0)
    return _array(known[sent.place], sent.shape, give_back=True)


def _array(memory: mmap.mmap, shape: tuple[int, ...], give_back: bool = False) -> np.ndarray:
    array = np.frombuffer(memory, np.uint8, math.prod(shape), HEADER)  # lives as long as any view of it
    if give_back:
        weakref.finalize(array, _set_free, memory).atexit = False
    return array.reshape(shape)


def _set_free(memory: mmap.mmap) -> None:
    memory[0] = FREE
