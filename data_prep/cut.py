"""Cutting a clip out of a video file by time, with PyAV."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from heapq import heappop, heappush
from itertools import dropwhile
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream

from .decode import (
    ENOUGH,
    FAILURES,
    Decoded,
    broken,
    cut_off,
    failure,
    frame_rate,
    open_video,
)
from .holes import unbroken
from .picture import encode_upright, upright_size
from .whole import missing_bytes

ROUNDING = 0.0005  # seconds: mkv rounds time stamps to milliseconds, so a frame may seem to come that much too late
EARLIER = 0, 10  # seconds before the clip where a key frame is looked for; MPEG-TS finds the one after
UNSEARCHABLE = {'mpeg'}  # MPEG-PS has time stamps now and then, and after a search they are those of other frames
SHORTER = 's of the listed'  # of the remark on a clip that has not all of what is listed
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
      The clip; broken if `second` is not within the video, a frame it needs cannot be decoded, or the file was cut
      before its end.
    """
    times = second + (np.arange(count) - count // 2) / fps

    def pick(decoded: Iterable[av.VideoFrame], start: int, stream: VideoStream) -> tuple:
        shown, end = _pick(decoded, start, times)
        return shown, end, missing_bytes(path, stream.container.format.name) if end < np.inf else 0

    try:
        shown, end, lack, remark = _decoded_from(path, times[0], pick)
        if lack:
            return cut_off('before the end of the clip', lack)
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


def cut_span(path: str | Path, begin: float, end: float, short_side: int, encoding: str) -> Decoded:
    """Every frame of a file that starts at `begin` or later and before `end`, seconds from the file's first frame.

    Args:
      path: of the video file.
      begin, end: of the clip.
      short_side, encoding: of the stored frames, as for `decode_video`.

    Returns:
      The clip; its `reason` says if the file ends before it does. Broken if the file was cut there or has nothing of
      it, or a frame that it needs cannot be decoded.
    """
    def encode(decoded: Iterable[av.VideoFrame], start: int, stream: VideoStream) -> tuple:
        frames, stamps, height, width, earlier, base, lack = [], [], 0, 0, begin <= 0, 0, 0
        for now, frame, damaged in _timed(decoded):
            moment = float((now - start) * frame.time_base)
            tolerance = min(float(frame.time_base) / 2, ROUNDING)
            if moment >= end - tolerance:
                break
            if moment < begin - tolerance:
                earlier = True
                continue
            if not frames:
                if moment > begin + tolerance and not earlier:
                    raise ValueError('the frames before cannot be decoded')
                height, width = upright_size(frame, short_side)
            frames.append(encode_upright(_undamaged(frame, damaged), height, width, encoding))
            stamps.append(now)
            base = frame.time_base
        else:
            lack = missing_bytes(path, stream.container.format.name)
        if not frames and not earlier:  # the search led past the clip
            raise ValueError('the frames before cannot be decoded')
        lasted = float((stamps[-1] - stamps[0]) * base) if stamps else 0.0
        return frames, lasted, lack, height, width, frame_rate(stream, stamps) if stamps else 0.0

    try:
        frames, lasted, lack, height, width, fps, remark = _decoded_from(path, begin, encode)
    except FAILURES as error:
        return failure(error, f'from {begin:.2f} to {end:.2f} s')
    if lack:
        return cut_off('before the end of the clip', lack)
    if not frames:
        return broken(f'the clip from {begin:.2f} to {end:.2f} s is after the end of its video')
    seconds = max(lasted, len(frames) / fps) if fps else end - begin  # a rate may vary
    short = '' if seconds >= ENOUGH * (end - begin) else shorter(seconds, end - begin)
    return Decoded(frames, height, width, fps, '; '.join(filter(None, (remark, short))))


def shorter(seconds: float, listed: float) -> str:
    """The remark on such a clip, both in seconds."""
    return f'{seconds:.1f} {SHORTER} {listed:.0f} s'


def is_shorter(reason: str) -> bool:
    """Whether a reason of the manifest has that remark."""
    return SHORTER in reason


def _decoded_from(path: str | Path, first: float, use: Callable) -> tuple:
    """What `use` makes of the decoded frames of a file from a key frame before `first` seconds on, and a remark.

    `use(frames, time stamp of the file's first frame, stream) -> tuple` raises one of `FAILURES` if frames that it
    needs are not there or damaged: then it gets them from an earlier key frame, and at last from the file's start.
    """
    with open_video(path) as (container, stream, remark):
        start = next(_timed(container.decode(stream)), (0,))[0]  # `stream.start_time` may be that of another frame
        needed = start + (first - ROUNDING) / float(stream.time_base)
        for begin in (first - earlier for earlier in EARLIER):
            if begin > 0 and container.format.name not in UNSEARCHABLE:
                try:
                    container.seek(start + int(begin / stream.time_base), stream=stream, backward=True)
                    decoded = dropwhile(lambda frame: not frame.key_frame, unbroken(container.demux(stream), needed))
                    return *use(decoded, start, stream), remark
                except FAILURES:
                    pass  # the file cannot be searched, or not there
    with open_video(path) as (container, stream, remark):  # to search for its start would miss it in MPEG-TS
        return *use(unbroken(container.demux(stream), needed), start, stream), remark


def _pick(decoded: Iterable[av.VideoFrame], start: int, times: np.ndarray) -> tuple[list[av.VideoFrame], float]:
    """Of frames in the order of display those shown at `times` after the time stamp `start`, and the end if it came.

    Raises:
      ValueError: there is none, they begin too late, or one that is needed is damaged.
    """
    shown, last, harmed, stamp, step = [], None, False, start, 0
    for now, frame, damaged in _timed(decoded):
        moment = float((now - start) * frame.time_base)
        tolerance = min(float(frame.time_base) / 2, ROUNDING)
        if last is None and moment > max(times[0], 0) + tolerance:
            raise ValueError('the frames before cannot be decoded')
        while last and len(shown) < len(times) and times[len(shown)] < moment - tolerance:
            shown.append(_undamaged(last, harmed))
        if len(shown) == len(times):
            return shown, np.inf
        last, harmed, stamp, step = frame, damaged, now, now - stamp if last else 0
    if last is None:
        raise ValueError('the file has no decodable frame')
    lasts = last.duration if 2 * (last.duration or 0) > step else step  # MKV without durations has one tick each
    end = float((stamp - start + (lasts or 0)) * last.time_base)
    if len(shown) < len(times):
        _undamaged(last, harmed)
    return shown + [last] * (len(times) - len(shown)), end


def _timed(frames: Iterable[av.VideoFrame]) -> Iterator[tuple[int, av.VideoFrame, bool]]:
    """Frames with ascending time stamps: in AVI those of B-frames and their neighbours may be exchanged.

    And whether each is damaged, or may be made from one that is: up to the next key frame, which needs none before it.
    """
    waiting, stamps, damaged = deque(), [], False
    for frame in frames:
        if frame.pts is None:
            raise ValueError('its frames have no time stamps: convert it to mp4 or mkv')
        damaged = frame.is_corrupt or (damaged and not frame.key_frame)
        waiting.append((frame, damaged))
        heappush(stamps, frame.pts)
        if len(waiting) > EXCHANGED:
            yield heappop(stamps), *waiting.popleft()
    while waiting:
        yield heappop(stamps), *waiting.popleft()


def _undamaged(frame: av.VideoFrame, damaged: bool) -> av.VideoFrame:
    if damaged:
        raise ValueError('a frame is damaged')
    return frame
