"""Cutting a clip out of a video file by time, with PyAV."""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from data_prep.decode import LENIENT, Decoded, broken, encode_upright, upright_size

ROUNDING = 0.0005  # seconds: mkv rounds time stamps to milliseconds, so a frame may seem to come that much too late


def cut_clip(path: str | Path, second: float, fps: float, count: int, short_side: int, encoding: str) -> Decoded:
    """The frames around a moment, sampled by time.

    Frame i of the clip is the frame of the file that is shown at
      t_i = second + (i - count // 2) / fps,
    counted from the file's first frame, whatever its own frame rate is. Before the first frame the first one is shown,
    after the end the last one; the result's `reason` counts these. Decoding starts at the key frame before the clip.

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
        with av.open(str(path), **LENIENT) as container:
            if not container.streams.video:
                return broken('the file has no video stream')
            stream = container.streams.video[0]
            stream.thread_type = 'NONE'  # clips are cut in parallel, each in one thread
            shown, end = _shown(container, stream, times)
            if second < 0 or second >= end:
                return broken(f'the keyframe at {second:.2f} s is outside its video, which has {end:.2f} s')
            height, width = upright_size(shown[0], short_side)
            if any(frame.is_corrupt for frame in shown):
                return broken(f'a frame around {second:.2f} s is damaged')
            encoded = {id(frame): encode_upright(frame, height, width, encoding) for frame in shown}
    except (av.FFmpegError, OSError, ValueError) as error:
        return broken(f'decoding failed around {second:.2f} s: {getattr(error, "strerror", None) or error}')
    edges = ((times < 0).sum(), 'before its start and repeat the first'), ((times >= end).sum(),
                                                                          'after its end and repeat the last')
    reason = '; '.join(f'{n} of {count} frames lie {where} frame' for n, where in edges if n)
    return Decoded([encoded[id(frame)] for frame in shown], height, width, fps, reason)


def _shown(container, stream, times: np.ndarray) -> tuple[list[av.VideoFrame], float]:
    """The frame shown at each of the ascending `times`, and the end of the video; inf if it was not reached."""
    begin = max(times[0], 0.0)
    tolerance = min(float(stream.time_base) / 2, ROUNDING)
    try:
        decoded = _decode(container, stream, begin)
        first = next(decoded, None)
    except av.FFmpegError:  # the file cannot be searched
        first = None
    if first is None or first[0] > begin + tolerance:  # the search went too far
        decoded = _decode(container, stream, 0.0)
        first = next(decoded, None)
    if first is None:
        raise ValueError('the file has no decodable frame')
    shown, last = [], first[1]
    for moment, frame in decoded:
        while len(shown) < len(times) and times[len(shown)] < moment - tolerance:
            shown.append(last)
        if len(shown) == len(times):
            return shown, np.inf
        last = frame
    rate = stream.average_rate or stream.guessed_rate
    duration = (last.duration or 0) * stream.time_base or (1 / rate if rate else 0)
    end = _second(stream, last) + float(duration)
    return shown + [last] * (len(times) - len(shown)), end


def _decode(container, stream, second: float) -> Iterator[tuple[float, av.VideoFrame]]:
    """(second, frame) in the order of display, from the key frame before `second` on."""
    container.seek((stream.start_time or 0) + int(second / stream.time_base), stream=stream, backward=True)
    for frame in container.decode(stream):
        yield _second(stream, frame), frame


def _second(stream, frame: av.VideoFrame) -> float:
    if frame.pts is None:
        raise ValueError('its frames have no time stamps: convert it to mp4 or mkv')
    return float((frame.pts - (stream.start_time or 0)) * stream.time_base)
