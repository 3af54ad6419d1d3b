"""Decoding: sizes, pixels, and files that are damaged."""

import cv2
import numpy as np
import pytest

from data_prep.decode import decode_video
from data_prep.picture import target_size
from tests.data_prep.videos import ramp, write_video


def pixels(decoded):
    shape = decoded.height, decoded.width, 3
    return np.stack([np.frombuffer(frame, np.uint8).reshape(shape) for frame in decoded.frames])


@pytest.mark.parametrize(('size', 'expected'), [
    ((240, 320), (128, 171)), ((320, 240), (171, 128)), ((144, 180), (128, 160)), ((64, 64), (128, 128))])
def test_the_shorter_side_is_set_and_the_aspect_kept(size, expected):
    assert target_size(*size, 128) == expected


def test_every_frame_is_decoded_and_upright(tmp_path):
    video = ramp()
    decoded = decode_video(write_video(tmp_path / 'a.mp4', video), 48, 'raw')
    assert (len(decoded.frames), decoded.height, decoded.width, decoded.fps, decoded.reason) == (12, 48, 64, 10.0, '')
    assert np.abs(pixels(decoded).astype(int) - video).mean() < 4  # a lossy codec


def test_shrinking_averages_areas(tmp_path):
    video = ramp()
    small = pixels(decode_video(write_video(tmp_path / 'a.mp4', video), 24, 'raw'))
    expected = np.stack([cv2.resize(frame, (32, 24), interpolation=cv2.INTER_AREA) for frame in video])
    assert np.abs(small.astype(int) - expected).mean() < 4


def test_small_videos_are_enlarged(tmp_path):
    decoded = decode_video(write_video(tmp_path / 'a.mp4', ramp()), 96, 'raw')
    assert pixels(decoded).shape == (12, 96, 128, 3)


@pytest.mark.parametrize(('name', 'share'), [('a.avi', 0.6), ('a.mp4', 0.9), ('a.mkv', 0.6)])
def test_a_file_that_was_cut_never_passes_for_a_whole_one(tmp_path, name, share):
    """It is broken, or its reason says that frames are missing."""
    path = write_video(tmp_path / name, ramp(60, 96, 128))
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    decoded = decode_video(path, 48, 'jpeg')
    assert decoded.reason
    assert not decoded.frames or 'the header promises' in decoded.reason


@pytest.mark.parametrize('content', [b'', b'no video at all' * 100])
def test_what_is_no_video_is_broken_with_a_reason(tmp_path, content):
    path = tmp_path / 'a.mp4'
    path.write_bytes(content)
    decoded = decode_video(path, 48, 'jpeg')
    assert not decoded.frames and decoded.reason.startswith('decoding failed')
