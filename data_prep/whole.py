"""How many bytes a file lacks at its end, by what its own structure says.

FFmpeg reads some containers as far as they go, and ends in silence where the file was cut.
"""

import os
import re
import struct
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import BinaryIO

TS_PACKETS = 188, 192, 204  # bytes: plain, with a time stamp before (Blu-ray), with a checksum after (broadcast)
TS_SYNC = 0x47
SEGMENT = b'\x18\x53\x80\x67'  # the id of the element of Matroska that holds the others
SIZE_UNKNOWN = 0, 2**32 - 1  # of a RIFF that was never finished
GIF_EXTENSION, GIF_IMAGE, GIF_TRAILER = 0x21, 0x2C, 0x3B
Y4M_CHROMA = {'420': (2, 2), '411': (4, 1), '422': (2, 1), '444': (1, 1)}  # columns and rows that share a colour
COUNTED = {'gif'}  # formats whose count of frames no header states: FFmpeg counts those that it finds


def missing_bytes(path: str | Path, container: str) -> int:
    """Bytes that are missing at the end of a file; 0 if none are, or if nothing says so.

    Args:
      path: of the file.
      container: FFmpeg's name of its format.

    Raises:
      ValueError: what the file says of itself can be of no file.
      OSError: it cannot be read.
    """
    for name, end in ENDS.items():
        if name in container.split(','):
            size = os.path.getsize(path)
            with open(path, 'rb') as file:
                return max(end(file, size) - size, 0)
    return 0


def _ebml_end(file: BinaryIO, size: int) -> int:
    """Matroska and WebM: elements of an id, a size and so many bytes, each number as long as its first bits say.

    The whole file is one element, the segment. While it is written its size is unknown, and so may be that of the
    clusters in it: then their parts stand in their place.
    """
    end = 0
    while end < size:
        file.seek(end)
        head = file.read(12)
        id_bytes = 9 - head[0].bit_length()
        if id_bytes > 4:  # no element: the file is damaged here, and the decoder will say so
            return 0
        first = head[id_bytes : id_bytes + 1]
        size_bytes = 9 - first[0].bit_length() if first else 1
        number = head[id_bytes : id_bytes + size_bytes]
        end += id_bytes + size_bytes
        if len(number) < size_bytes:
            return max(end, size + 1)
        bits = (1 << 7 * size_bytes) - 1
        if (content := int.from_bytes(number) & bits) != bits:
            end += content
            if head.startswith(SEGMENT):
                break
    return end


def _mp4_end(file: BinaryIO, size: int) -> int:
    """MP4 and MOV: boxes of a size, a name and the rest; the size 1 stands for a longer one, 0 for all that is left."""
    end = 0
    while end < size:
        file.seek(end)
        content, _, longer = struct.unpack('>I4sQ', file.read(16).ljust(16, b'\0'))
        content = longer if content == 1 else content
        if content < 8:
            return 0
        end += content
    return end


def _riff_end(file: BinaryIO, size: int) -> int:
    """AVI: `RIFF`, a size and so many bytes; a large file is a row of these."""
    end = 0
    while end < size:
        file.seek(end)
        kind, content = struct.unpack('<4sI', file.read(8).ljust(8, b'\0'))
        if kind != b'RIFF' or content in SIZE_UNKNOWN:
            return 0
        end += 8 + content + content % 2
    return end


def _flv_end(file: BinaryIO, size: int) -> int:
    """FLV: its metadata may have the number `filesize`, a big-endian float64 after the byte 0."""
    _, found, number = file.read(4096).partition(b'filesize\0')
    stated = struct.unpack('>d', number[:8])[0] if found and len(number) >= 8 else 0.0
    if not abs(stated) < 2**63:
        raise ValueError(f'its header says that the file has {stated:g} bytes')
    return int(stated)


def _ts_end(file: BinaryIO, size: int) -> int:
    """MPEG-TS: packets of equal size that begin with the same byte; the last one may be a part of one."""
    file.seek(max(size - 16 * max(TS_PACKETS), 0))
    tail = file.read()
    for length in TS_PACKETS:
        for start in range(min(length, len(tail))):
            if set(tail[start::length]) == {TS_SYNC}:
                last = range(start, len(tail), length)[-1]
                return size - len(tail) + last + (204 if length == 204 else 188)
    return 0


def _gif_end(file: BinaryIO, size: int) -> int:
    """GIF: a header, blocks that begin with their kind, and a trailer, which some programs leave out after an image."""
    with mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        end, kind = 13 + _gif_table(data, 10), None
        while end < size:
            kind = data[end]
            if kind == GIF_TRAILER:
                return end + 1
            if kind not in (GIF_EXTENSION, GIF_IMAGE):
                return 0
            end = _gif_parts(data, end + (2 if kind == GIF_EXTENSION else 11 + _gif_table(data, end + 9)))
    return end if kind == GIF_IMAGE else end + 1


def _gif_table(data: mmap, place: int) -> int:
    """Bytes of the table of colours that the flags at `place` speak of."""
    flags = data[place] if place < len(data) else 0
    return 6 << (flags & 7) if flags & 0x80 else 0


def _gif_parts(data: mmap, end: int) -> int:
    """Where the parts of a block that begin at `end` end: each has its size before it, and the last one has none."""
    while end < len(data) and data[end]:
        end += 1 + data[end]
    return end + 1


def _y4m_end(file: BinaryIO, size: int) -> int:
    """YUV4MPEG2: a line that says what frames are, and frames of one size, each after a line that begins with FRAME."""
    fields = {word[:1]: word[1:] for word in file.readline(4096).decode('latin-1').split()[1:]}
    form = re.match(r'(mono|4\d\d)(alpha)?(?:jpeg|mpeg2|paldv)?p?(\d*)', fields.get('C', '420'))
    if not form or form[1] not in ('mono', *Y4M_CHROMA):
        return 0
    if not all(fields.get(name, '').isdecimal() for name in 'WH'):  # FFmpeg finds them also where no word begins
        raise ValueError('its header does not say how wide and how high its frames are')
    width, height = int(fields['W']), int(fields['H'])
    columns, rows = Y4M_CHROMA.get(form[1], (1, 1))
    colours = 0 if form[1] == 'mono' else 2 * -(-width // columns) * -(-height // rows)
    frame = (width * height * (2 if form[2] else 1) + colours) * (2 if form[3] else 1)
    end = file.tell()
    while end < size:
        file.seek(end)
        line = file.readline(4096)
        if not line.startswith(b'FRAME'[:len(line)]):
            return 0
        end += max(len(line), len(b'FRAME\n')) + frame
    return end


ENDS = {'matroska': _ebml_end, 'mov': _mp4_end, 'avi': _riff_end, 'flv': _flv_end, 'mpegts': _ts_end, 'gif': _gif_end,
        'yuv4mpegpipe': _y4m_end}
