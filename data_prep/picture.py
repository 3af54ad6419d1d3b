"""A decoded frame as it is stored: upright, of one size, without the comb of interlaced material."""

from threading import local

import av
import cv2
import numpy as np
from av.filter import Graph
from av.sidedata.sidedata import SideDataContainer
from av.video.reformatter import VideoReformatter

from vididi_jax.data.records import encode_frame

ROTATIONS = (False, 1, 1), (True, -1, 1), (False, -1, -1), (True, 1, -1)  # by 0, 90, 180 and 270 degrees to the left
RESERVED, UNSPECIFIED = 3, 2  # numbers of colour matrices
NEIGHBOURHOOD = 17, 17  # pixels over which rows are compared


class Scaler(local):
    """A thread's scaler, which keeps what it has worked out for the last size: that takes longer than a small frame."""

    def __init__(self):
        self.reformat = VideoReformatter().reformat


SCALER = Scaler()


def target_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Height and width with the shorter side `short_side` and the aspect kept, the longer side rounded.

    >>> target_size(240, 320, 128)
    (128, 171)
    """
    scale = short_side / min(height, width)
    return max(round(height * scale), short_side), max(round(width * scale), short_side)


def orientation(frame: av.VideoFrame) -> tuple[bool, int, int]:
    """What puts a frame upright: whether rows become columns, and then the steps down and across, 1 or -1 (mirrored).

    The display matrix (a b . / c d . / ...) shows the pixel at column x, row y in the column a x + c y and the row
    b x + d y, up to a shift: four turns, and their mirror images. Other angles are taken as the nearest of these.
    """
    try:
        # As PyAV 19 does. PyAV 18 keeps `frame.side_data` in the frame, which it keeps: a circle of all its pixels.
        side_data = SideDataContainer(frame)
        matrix = side_data.get('DISPLAYMATRIX') if len(side_data) else None  # to look for it takes a while
    except ValueError:  # side data of a kind that PyAV does not know hide those that it knows
        return ROTATIONS[round(frame.rotation / 90) % 4]
    if matrix is None:
        return False, 1, 1
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
    turned = abs(b) + abs(c) > abs(a) + abs(d)
    down, across = (b, c) if turned else (d, a)
    return turned, -1 if down < 0 else 1, -1 if across < 0 else 1


def upright_size(frame: av.VideoFrame, short_side: int) -> tuple[int, int]:
    """Height and width at which a frame is stored, upright."""
    turned, *_ = orientation(frame)
    return target_size(*((frame.width, frame.height) if turned else (frame.height, frame.width)), short_side)


def encode_upright(frame: av.VideoFrame, height: int, width: int, encoding: str) -> bytes:
    """A decoded frame upright, resized and encoded; downscaling averages areas, upscaling is bicubic.

    Raises:
      ValueError: it cannot be.
    """
    turned, down, across = orientation(frame)
    if frame.colorspace == RESERVED:  # which says nothing, and the scaler refuses it
        frame.colorspace = UNSPECIFIED
    resize = _resize_interlaced if frame.interlaced_frame else _resize
    try:
        small = resize(frame, *((width, height) if turned else (height, width)))
        return encode_frame((small.swapaxes(0, 1) if turned else small)[::down, ::across], encoding)
    except cv2.error as error:  # which is no ValueError
        raise ValueError(f'a frame of {frame.width} x {frame.height} pixels cannot be resized or encoded '
                         f'({error.err})') from error


def _resize(frame: av.VideoFrame, height: int, width: int) -> np.ndarray:
    shrinks = min(frame.height, frame.width) > min(height, width)
    try:
        return SCALER.reformat(  # videos are scaled in parallel, each in one thread
            frame, width, height, format='rgb24', interpolation='AREA' if shrinks else 'BICUBIC', threads=1,
        ).to_ndarray()
    except (av.FFmpegError, OSError) as error:
        raise ValueError(f'its colours, matrix number {int(frame.colorspace)} of the standard, cannot be made RGB '
                         f'({error.strerror})') from error


def _resize_interlaced(frame: av.VideoFrame, height: int, width: int) -> np.ndarray:
    """A frame that is flagged as interlaced: resized whole, and the mean of its two fields where these differ.

    Cameras and broadcasters set the flag on progressive pictures as well, so it proves nothing. Where the fields were
    taken at two times and something moved, a row is more like the next row of its own field than like its neighbour.
    The flag is taken off in either case, because `reformat` resizes the fields of a flagged frame one by one and
    interleaves them again: a comb where there was none.
    """
    whole = _resize(_filtered(frame, 'setfield', 'prog'), height, width)
    rows = frame.reformat(format='gray').to_ndarray()
    neighbours, field = (
        cv2.resize(cv2.boxFilter(difference, cv2.CV_32F, NEIGHBOURHOOD), (width, height), interpolation=cv2.INTER_AREA)
        for difference in (cv2.absdiff(rows[1:-1], rows[:-2]), cv2.absdiff(rows[2:], rows[:-2])))
    combed = neighbours > field
    if combed.any():
        top, bottom = (_resize(_filtered(frame, 'field', side), height, width) for side in ('top', 'bottom'))
        whole[combed] = cv2.addWeighted(top, 0.5, bottom, 0.5, 0)[combed]
    return whole


def _filtered(frame: av.VideoFrame, name: str, argument: str) -> av.VideoFrame:
    """The frame after one of FFmpeg's filters."""
    graph = Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format.name, time_base=frame.time_base)
    graph.link_nodes(source, graph.add(name, argument), graph.add('buffersink')).configure()
    graph.push(frame)
    return graph.pull()
