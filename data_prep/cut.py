"""Cutting a clip out of a video file by time, with PyAV."""

from collections import deque
from collections.abc import Iterable, Iterator
from heapq import heappop, heappush
from itertools import dropwhile
from pathlib import Path

import av
import numpy as np

from data_prep.decode import FAILURES, Decoded, broken, failure, open_video
from data_prep.picture import encode_upright, upright_size

ROUNDING = 0.0005  # seconds: mkv rounds time stamps to milliseconds, so a frame may seem to come that much too late
EARLIER = 0, 10  # seconds before the clip where a key frame is looked for; MPEG-TS finds the one after
UNSEARCHABLE = {'mpeg'}  # MPEG-PS has time stamps now and then, and after a search they are those of other frames
EXCHANGED = 4  # frames over which time stamps are put in order


def cut_clip(path: str | Path, second: float, fps: float, count: int, short_side: int, encoding: str) -> Decoded:
    """The frames around a moment, sampled by time.

    Frame i of the clip is the frame of the file that is shown at
      t_i = second + (i - count // 2) / fps,
    counted from the file's first frame, whatever its own frame rate is. Before the first frame the first one is shown,
    after the end the last one; the result's `reason` counts these. Decoding starts at a key frame before the clip, and
    at the start of the file if that fails or gives a damaged frame.

    Args:
      path: of the video file.
      second: of the middle frame, seconds from the file's first frame.
      fps, count: frames a second, and how many.
      short_side, encoding: of the stored frames, as for `decode_video`.

    Returns:
      The clip; broken if `second` is not within the video, or a frame it needs cannot be decoded.
    """
    times = second + (np.arange(count) - count // 2) / fps
    try:
        shown, end, remark = _shown(path, times)
        if second < 0 or second >= end:
            return broken(f'the keyframe at {second:.2f} s is outside its video, which has {end:.2f} s')
        height, width = upright_size(shown[0], short_side)
        encoded = {id(frame): encode_upright(frame, height, width, encoding) for frame in shown}
    except FAILURES as error:
        return failure(error, f'around {second:.2f} s')
    edges = ((times < 0).sum(), 'before its start and repeat the first'), ((times >= end).sum(),
                                                                          'after its end and repeat the last')
    odd = [remark, *(f'{n} of {count} frames lie {where} frame' for n, where in edges if n)]
    return Decoded([encoded[id(frame)] for frame in shown], height, width, fps, '; '.join(filter(None, odd)))


def _shown(path: str | Path, times: np.ndarray) -> tuple[list[av.VideoFrame], float, str]:
    """The frame shown at each of the ascending `times`, the end of the video (inf if not reached), and a remark."""
    with open_video(path) as (container, stream, remark):
        start = next(_timed(container.decode(stream)), (0,))[0]  # `stream.start_time` may be that of another frame
        for begin in (times[0] - earlier for earlier in EARLIER):
            if begin > 0 and container.format.name not in UNSEARCHABLE:
                try:
                    container.seek(start + int(begin / stream.time_base), stream=stream, backward=True)
                    decoded = dropwhile(lambda frame: not frame.key_frame, container.decode(stream))
                    return *_pick(decoded, start, times), remark
                except FAILURES:
                    pass  # the file cannot be searched, or not there
    with open_video(path) as (container, stream, remark):  # to search for its start would miss it in MPEG-TS
        return *_pick(container.decode(stream), start, times), remark


def _pick(decoded: Iterable[av.VideoFrame], start: int, times: np.ndarray) -> tuple[list[av.VideoFrame], float]:
    """Of frames in the order of display those shown at `times` after the time stamp `start`, and the end if it came.

    Raises:
      ValueError: there is none, they begin too late, or one that is needed is damaged.
    """
    shown, last, stamp, step = [], None, start, 0
    for now, frame in _timed(decoded):
        moment = float((now - start) * frame.time_base)
        tolerance = min(float(frame.time_base) / 2, ROUNDING)
        if last is None and moment > max(times[0], 0) + tolerance:
            raise ValueError('the frames before cannot be decoded')
        while last and len(shown) < len(times) and times[len(shown)] < moment - tolerance:
            shown.append(_undamaged(last))
        if len(shown) == len(times):
            return shown, np.inf
        last, stamp, step = frame, now, now - stamp if last else 0
    if last is None:
        raise ValueError('the file has no decodable frame')
    lasts = last.duration if 2 * (last.duration or 0) > step else step  # MKV without durations has one tick each
    end = float((stamp - start + (lasts or 0)) * last.time_base)
    return shown + [_undamaged(last)] * (len(times) - len(shown)), end


def _timed(frames: Iterable[av.VideoFrame]) -> Iterator[tuple[int, av.VideoFrame]]:
    """Frames with ascending time stamps: in AVI those of B-frames and their neighbours may be exchanged."""
    waiting, stamps = deque(), []
    for frame in frames:
        if frame.pts is None:
            raise ValueError('its frames have no time stamps: convert it to mp4 or mkv')
        waiting.append(frame)
        heappush(stamps, frame.pts)
        if len(waiting) > EXCHANGED:
            yield heappop(stamps), waiting.popleft()
    while waiting:
        yield heappop(stamps), waiting.popleft()


def _undamaged(frame: av.VideoFrame) -> av.VideoFrame:
    if frame.is_corrupt:
        raise ValueError('a frame is damaged')
    return frame
