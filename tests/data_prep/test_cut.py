"""Clips cut by time out of every container."""

import numpy as np
import pytest

from data_prep.cut import cut_clip, cut_span
from data_prep.decode import decode_video
from tests.data_prep.videos import levels, pixels, write_video

RATE, FRAMES = 25, 60
CONTAINERS = {  # file name: options of its stream; a key frame every 12, and frames between that depend on later ones
    'a.mp4': dict(codec='libx264', qp='0', bf='2'),
    'open.mp4': dict(codec='libx264', qp='4', bf='2', **{'x264-params': 'open-gop=1'}),
    'a.mkv': dict(codec='libx264', qp='0', bf='2'),
    'a.webm': dict(codec='libvpx', deadline='realtime', crf='4'),
    'a.avi': dict(codec='mpeg4', bf='2', qmax='2'),
    'h264.avi': dict(codec='libx264', qp='0', bf='2'),
    'a.flv': dict(codec='libx264', qp='0', bf='2'),
    'a.ts': dict(codec='libx264', qp='0', bf='2'),
    'open.ts': dict(codec='libx264', qp='4', bf='2', **{'x264-params': 'open-gop=1'}),
    'mpeg2.ts': dict(codec='mpeg2video', bf='2', qmax='2'),
    'mpeg4.ts': dict(codec='mpeg4', bf='2', qmax='2'),
    'a.m2ts': dict(codec='libx264', qp='0', container={'mpegts_m2ts_mode': '1'}),
    'a.wmv': dict(codec='wmv2', qmax='2'),
    'a.mxf': dict(codec='mpeg2video', bf='2', qmax='2'),
    'a.mpg': dict(codec='mpeg2video', bf='2', qmax='2'),
}


def numbers(clip):
    return np.round(pixels(clip).mean((1, 2, 3)) / 4).astype(int).tolist()


@pytest.mark.parametrize('name', CONTAINERS)
def test_each_frame_is_the_one_shown_at_its_time_in_every_container(tmp_path, name):
    path = write_video(tmp_path / name, levels(FRAMES), rate=RATE, g='12', **CONTAINERS[name])
    assert numbers(decode_video(path, 32, 'raw')) == list(range(FRAMES))
    for middle in (0, 1, 7, 12, 13, 26, 40, 57):
        clip = cut_clip(path, (middle + 0.4) / RATE, RATE, 6, 32, 'raw')
        assert numbers(clip) == np.clip(np.arange(middle - 3, middle + 3), 0, FRAMES - 1).tolist(), middle
        assert bool(clip.reason) == (middle < 3)
    assert 'outside its video, which has 2.40 s' in cut_clip(path, 2.41, RATE, 4, 32, 'raw').reason
    for begin, end in ((0, 12), (7, 13), (12, 24), (13, 20), (26, 60), (55, 60)):
        span = cut_span(path, begin / RATE, end / RATE, 32, 'raw')
        assert numbers(span) == list(range(begin, end)) and not span.reason and span.fps == RATE, begin
    assert cut_span(path, 1, 11, 32, 'raw').reason == '1.4 s of the listed 10 s'
    assert 'is after the end of its video' in cut_span(path, 3, 13, 32, 'raw').reason


@pytest.mark.parametrize('name', ['a.mkv', 'a.avi', 'a.flv', 'a.ts'])
def test_a_clip_that_a_cut_file_ends_in_is_broken(tmp_path, name):
    """And not one that is short because its video is; what comes before the cut is all right."""
    path = write_video(tmp_path / name, levels(FRAMES), rate=RATE, g='12', **CONTAINERS[name])
    assert cut_span(path, 1, 11, 32, 'raw').reason == '1.4 s of the listed 10 s'
    data = path.read_bytes()
    path.write_bytes(data[:int(len(data) * (0.7 if name == 'a.avi' else 0.5)) + 3])  # half of an AVI is its head
    assert len(cut_span(path, 0, 0.4, 32, 'raw').frames) == 10
    for clip in (cut_span(path, 0.2, 2, 32, 'raw'), cut_span(path, 2.2, 2.4, 32, 'raw'),
                 cut_clip(path, 0.8, RATE, 2 * RATE, 32, 'raw')):
        assert not clip.frames and clip.reason.endswith(
            ('bytes are missing at its end', 's: bytes of the file are missing there'))


@pytest.mark.realdata
@pytest.mark.parametrize('name', [
    'ucf101/BoxingSpeedBag/v_BoxingSpeedBag_g23_c04.avi', 'hmdb51/pour/KOREAN_TEA_CEREMONY_-_Simple_Demo_pour_u_nm_np1_'
    'fr_med_0.avi', 'ut_interaction/set1/punch/6_2_4.avi'])
def test_frames_follow_one_another_where_their_time_stamps_do_not(vididi_data, name):
    """AVI files of XviD: two frames in a packet, and the next one empty."""
    whole = decode_video(vididi_data / name, 48, 'raw')
    clip = cut_clip(vididi_data / name, len(whole.frames) / 2 / whole.fps, whole.fps, 12, 48, 'raw')
    start = whole.frames.index(clip.frames[0])
    assert clip.frames == whole.frames[start : start + 12]
