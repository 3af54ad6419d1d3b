"""Files that lack something in their middle, as where a broadcast was disturbed or a disk has a bad block.

Frames that are lost whole leave nothing that a decoder could call damaged. In MPEG-TS packets are counted, and FFmpeg
marks where the count is wrong.
"""

from collections import deque
from collections.abc import Iterable, Iterator

import av

AHEAD = 2  # packets after a mark that tell whether two files meet there
LEAP = 1.5  # times the step before it: so long a step has lost a frame


class Hole(ValueError):
    """A frame that is needed may be lost, or need one that is."""


def unbroken(packets: Iterable[av.Packet], first: float = float('-inf')) -> Iterator[av.VideoFrame]:
    """The decoded frames of the packets of one stream.

    Args:
      packets: of the stream, and no others.
      first: time stamp from which on frames are needed; holes that only earlier ones suffer from are none.

    Raises:
      Hole: something is lost.
    """
    since = None  # packets since the last hole
    for packet, hole in _judged(packets):
        if hole:
            since = 0
        elif since is not None:
            since += 1  # the packet after the mark is the damaged one, also where it has a key frame
            if since > 1 and packet.is_keyframe and packet.pts is not None and packet.pts <= first:
                since = None
        for frame in packet.decode():
            if since is not None and (frame.pts is None or frame.pts >= first):
                raise Hole('bytes of the file are missing there')
            yield frame


def _judged(packets: Iterable[av.Packet]) -> Iterator[tuple[av.Packet, bool]]:
    """Each packet, and whether something is lost after it, which those that follow tell."""
    before, waiting = None, deque()
    for packet in packets:
        waiting.append(packet)
        if len(waiting) > AHEAD:
            yield waiting[0], waiting[0].is_corrupt and not _files_meet(before, *waiting)
            before = waiting.popleft()
    yield from ((packet, packet.is_corrupt) for packet in waiting)


def _files_meet(before: av.Packet | None, marked: av.Packet, last: av.Packet, following: av.Packet) -> bool:
    """Whether a mark is only where one whole file ends and another begins, of which each counts its packets.

    The mark is at the last frame but one. The next file begins with a key frame, and its time goes on or begins anew.
    """
    stamps = [packet.dts if packet else None for packet in (before, marked, last, following)]
    if None in stamps or not following.is_keyframe:
        return False
    usual, *steps = (after - now for now, after in zip(stamps, stamps[1:], strict=False))
    return max(steps) <= LEAP * usual
