"""Clips cut by time out of every container."""

import av
import numpy as np
import pytest

from data_prep.cut import cut_clip, cut_span
from data_prep.decode import decode_video
from tests.data_prep.videos import damage, levels, pixels, write_video

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


def test_a_video_is_from_its_first_frame_to_the_end_of_its_last(tmp_path):
    path = write_video(tmp_path / 'a.mp4', levels(FRAMES), rate=RATE, g='12', **CONTAINERS['a.mp4'])
    first, last = (cut_clip(path, second, RATE, 1, 32, 'raw') for second in (0, (FRAMES - 0.01) / RATE))
    assert (numbers(first), numbers(last), first.reason, last.reason) == ([0], [FRAMES - 1], '', '')
    for second in (-0.01, FRAMES / RATE):
        assert f'the keyframe at {second:.2f} s is outside' in cut_clip(path, second, RATE, 1, 32, 'raw').reason


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


@pytest.mark.parametrize(('begin', 'end'), [(10, 20), (11, 19), (20, 31)])
def test_a_span_begins_and_ends_with_frames_whose_times_were_rounded(tmp_path, begin, end):
    """MKV counts milliseconds: of 30 frames a second, numbers 10, 19 and 31 are early, and 11 and 20 late."""
    path = write_video(tmp_path / 'a.mkv', levels(40), rate=30, codec='libx264', qp='0', g='12')
    assert numbers(cut_span(path, begin / 30, end / 30, 32, 'raw')) == list(range(begin, end))


def test_a_span_of_few_frames_that_last_is_not_short(tmp_path):
    """40 frames in the first second, then 20 in four: by the mean rate of the file these would be less than two."""
    path = tmp_path / 'a.mp4'
    with av.open(str(path), 'w') as file:
        stream = file.add_stream('mpeg4', rate=40)
        stream.height, stream.width, stream.pix_fmt = 32, 48, 'yuv420p'
        for frame, place in zip(levels(60), (*range(40), *range(40, 200, 8)), strict=True):
            picture = av.VideoFrame.from_ndarray(frame.copy(), format='rgb24').reformat(format='yuv420p')
            picture.pts = place
            file.mux(stream.encode(picture))
        file.mux(stream.encode())
    span = cut_span(path, 1, 5, 32, 'raw')
    assert len(span.frames) == 20 and span.reason == ''
    assert cut_span(path, 1, 11, 32, 'raw').reason == '3.8 s of the listed 10 s'


def test_a_damaged_frame_that_is_repeated_is_one(tmp_path):
    """The last frame, which also stands for what comes after the end."""
    noise = np.random.default_rng(0).integers(0, 256, (20, 64, 96, 3), dtype=np.uint8)
    path = damage(write_video(tmp_path / 'a.mp4', noise, g='5'), 19)
    assert cut_clip(path, 1, 10, 6, 32, 'raw').reason == ''
    clip = cut_clip(path, 1.9, 10, 6, 32, 'raw')
    assert not clip.frames and clip.reason == 'decoding failed around 1.90 s: a frame is damaged'


@pytest.mark.parametrize(('name', 'codec'), [('a.mp4', 'mpeg4'), ('a.mkv', 'mpeg2video')])
def test_what_is_made_from_a_damaged_frame_is_damaged(tmp_path, name, codec):
    """Up to the next key frame, number 10, although a decoder marks frame 2 alone."""
    picture = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    video = np.stack([np.roll(picture, 3 * number, 1) for number in range(20)])
    path = damage(write_video(tmp_path / name, video, codec=codec, g='10', bf='0'), 2)
    for first in (2, 5, 8):
        for clip in (cut_clip(path, (first + 1.4) / 10, 10, 2, 64, 'raw'),
                     cut_span(path, first / 10, (first + 2) / 10, 64, 'raw')):
            assert not clip.frames and clip.reason.endswith('a frame is damaged'), first
    assert cut_clip(path, 0.14, 10, 2, 64, 'raw').reason == ''  # before it
    assert len(cut_span(path, 1, 2, 64, 'raw').frames) == 10  # from the key frame on
