"""Decoding: sizes, pixels, and files that are damaged."""

import struct

import av
import cv2
import numpy as np
import pytest
from av.stream import Disposition

from data_prep import decode
from data_prep.cut import cut_clip, cut_span
from data_prep.decode import decode_video
from data_prep.picture import target_size
from data_prep.whole import missing_bytes
from tests.data_prep.videos import damage, levels, pixels, ramp, write_video
from vididi_jax.api import read_clips
from vididi_jax.errors import UserError


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


CONTAINERS = {  # file name: codec, options of the container
    'a.mp4': ('libx264', {'movflags': 'faststart'}),
    'end.mp4': ('mpeg4', {}),
    'a.mov': ('mpeg4', {'movflags': 'faststart'}),
    'a.avi': ('mpeg4', {}),
    'h264.avi': ('libx264', {}),
    'a.mkv': ('libx264', {}),
    'live.mkv': ('mpeg4', {'live': '1'}),
    'a.webm': ('libvpx', {}),
    'live.webm': ('libvpx', {'live': '1'}),
    'a.flv': ('flv', {}),
    'h264.flv': ('libx264', {}),
    'a.ts': ('libx264', {}),
    'mpeg2.ts': ('mpeg2video', {}),
    'a.m2ts': ('libx264', {'mpegts_m2ts_mode': '1'}),
}
PIXELS = {'a.gif': 'rgb8', 'a.y4m': 'yuv420p', '10_bits.y4m': 'yuv420p10', 'full.y4m': 'yuv444p', 'tv.y4m': 'yuv411p',
          'grey.y4m': 'gray'}  # containers of frames that are not compressed, or each by itself


@pytest.mark.parametrize('name', CONTAINERS)
def test_a_whole_file_is_ok_and_one_that_was_cut_is_broken(tmp_path, name):
    """In every container, wherever it was cut; unless every frame is there, and what was cut an index."""
    codec, container = CONTAINERS[name]
    video = levels(40)
    path = write_video(tmp_path / name, video, codec=codec, container=container, rate=25, g='12', deadline='realtime')
    whole = decode_video(path, 32, 'raw')
    assert (len(whole.frames), whole.fps, whole.reason) == (40, 25.0, '')
    assert np.abs(pixels(whole).astype(int) - video).mean() < 2
    data = path.read_bytes()
    cuts = np.random.default_rng(0).integers(len(data) // 2, len(data), 12)
    for size in (*cuts, int(0.9 * len(data)) // 188 * 188 + 1, int(0.96 * len(data)), len(data) - 1):
        path.write_bytes(data[:size])
        cut = decode_video(path, 32, 'raw')
        assert (not cut.frames and cut.reason) or cut.frames == whole.frames, (size, len(data), len(cut.frames))


def test_an_index_that_was_cut_breaks_no_file_that_has_all_its_frames(tmp_path):
    path = write_video(tmp_path / 'a.avi', levels(40), rate=25)
    path.write_bytes(path.read_bytes()[:-40])
    decoded = decode_video(path, 32, 'raw')
    assert missing_bytes(path, 'avi') == 40 and (len(decoded.frames), decoded.reason) == (40, '')


def test_a_damaged_frame_breaks_a_file_that_is_whole(tmp_path):
    """The file lacks nothing, and no count is wrong: only the decoder knows."""
    noise = np.random.default_rng(0).integers(0, 256, (20, 64, 96, 3), dtype=np.uint8)
    decoded = decode_video(damage(write_video(tmp_path / 'a.mp4', noise, g='5'), 9), 32, 'raw')
    assert not decoded.frames and decoded.reason == 'frame 9 is damaged, or the file was cut there'


@pytest.mark.parametrize(('promised', 'reason'), [(44, ''), (80, '40 frames, and the header promises 80')])
def test_of_frames_that_the_header_promises_a_tenth_may_be_lacking(tmp_path, promised, reason):
    path = write_video(tmp_path / 'a.avi', levels(40), rate=25)
    data = path.read_bytes()
    place = data.index(b'strh') + 40  # dwLength of the stream's header
    assert data[place : place + 4] == (40).to_bytes(4, 'little')
    path.write_bytes(data[:place] + promised.to_bytes(4, 'little') + data[place + 4 :])
    decoded = decode_video(path, 32, 'raw')
    assert (len(decoded.frames), decoded.reason) == (40, reason)


@pytest.mark.parametrize('name', PIXELS)
def test_a_gif_or_y4m_that_was_cut_is_broken(tmp_path, name):
    """Wherever: neither of them says how many frames or bytes it has."""
    path = write_video(tmp_path / name, levels(20, 33, 47), codec='gif' if name == 'a.gif' else 'wrapped_avframe',
                       pixel_format=PIXELS[name], container={'strict': '-1'})
    assert len(decode_video(path, 33, 'raw').frames) == 20 and not decode_video(path, 33, 'raw').reason
    data = path.read_bytes()
    for size in (len(data) // 2, len(data) // 2 + 1, len(data) // 2 + 7, int(0.9 * len(data)), len(data) - 2):
        path.write_bytes(data[:size])
        cut = decode_video(path, 33, 'raw')
        assert not cut.frames and cut.reason.endswith('bytes are missing at its end'), size


def test_a_gif_is_walked_to_its_end(tmp_path):
    """With a comment and a table of colours for one image, as other programs write them; some leave out the trailer."""
    path = write_video(tmp_path / 'a.gif', levels(1), codec='gif', pixel_format='rgb8')
    data = path.read_bytes()
    end = 13 + (6 << (data[10] & 7))
    before, after = data[end:].split(b'\x2c\0\0\0\0\x30\0\x20\0\0')
    image = b'\x2c\0\0\0\0\x30\0\x20\0' + bytes([0x80 | data[10] & 7]) + data[13:end]
    head = data[:10] + b'\0\0\0' + b'\x21\xfe\x05hello\0' + before
    whole = head + image + after
    path.write_bytes(whole)
    assert decode_video(path, 32, 'raw').reason == ''
    for size, lack in ((len(whole), 0), (len(whole) - 1, 0), (len(whole) - 2, 1), (len(head), 1), (len(head) - 2, 3)):
        path.write_bytes(whole[:size])
        assert missing_bytes(path, 'gif') == lack, size


def test_bytes_are_missing_from_an_mp4_of_long_boxes_and_from_packets_with_checksums(tmp_path):
    """Boxes of more than 4 GB have their size elsewhere; 204 bytes a packet are what broadcasts have."""
    path = tmp_path / 'video'
    boxes = b'\0\0\0\x10ftypisom\0\0\0\0' + b'\0\0\0\x01mdat' + (100).to_bytes(8, 'big') + bytes(84)
    packets = 40 * (b'\x47' + bytes(203))
    for data, container in ((boxes, 'mov,mp4,m4a,3gp,3g2,mj2'), (packets, 'mpegts')):
        for lack in (0, 5):
            path.write_bytes(data[:len(data) - lack])
            assert missing_bytes(path, container) == lack


@pytest.mark.parametrize('sizes', [((32, 48), (48, 32)), ((32, 48), (48, 32), (32, 48))])
def test_a_shape_that_changes_is_said(tmp_path, sizes):
    """As where a phone is turned, or turned back, while it sends: MPEG transport streams, one after the other."""
    parts = [write_video(tmp_path / f'{size}.ts', levels(6, *size), codec='mpeg2video').read_bytes() for size in sizes]
    (tmp_path / 'both.ts').write_bytes(b''.join(parts))
    decoded = decode_video(tmp_path / 'both.ts', 32, 'raw')
    assert len(decoded.frames) > 6 and (decoded.height, decoded.width) == (32, 48)  # some of both
    assert 'the shape of its frames changes' in decoded.reason


def test_what_follows_a_whole_file_does_not_break_it(tmp_path):
    path = write_video(tmp_path / 'a.mkv', levels(10))
    path.write_bytes(path.read_bytes() + b'\x42\x86\x88more' * 9)
    assert len(decode_video(path, 32, 'raw').frames) == 10


@pytest.mark.parametrize(('rate', 'expected'), [(25, 25.0), (30, 30.0)])
def test_a_rate_of_a_frame_a_tick_is_none(tmp_path, rate, expected):
    """A WebM that says 1000 a second: the frames' own times, which are rounded to milliseconds, say it."""
    path = write_video(tmp_path / 'a.webm', levels(20), codec='libvpx', rate=rate, deadline='realtime')
    data = path.read_bytes()
    stated = b'\x23\xe3\x83\x84' + int(1e9 / rate).to_bytes(4, 'big')  # DefaultDuration, in nanoseconds
    assert data.count(stated) == 1
    path.write_bytes(data.replace(stated, b'\x23\xe3\x83\x84' + int(1e6).to_bytes(4, 'big')))
    decoded = decode_video(path, 32, 'raw')
    assert (len(decoded.frames), decoded.fps, decoded.reason) == (20, expected, '')


def test_of_two_streams_the_default_one_is_read_and_that_is_said(tmp_path):
    path = write_video(tmp_path / 'a.mkv', levels(5), 120 + levels(6), default=1)
    decoded = decode_video(path, 32, 'raw')
    assert pixels(decoded).min() > 100 and len(decoded.frames) == 6
    assert decoded.reason == 'of its 2 video streams number 2, the default one, is read'
    clip = cut_clip(path, 0.2, 10, 2, 32, 'raw')
    assert pixels(clip).min() > 100 and clip.reason == decoded.reason
    decoded = decode_video(write_video(tmp_path / 'b.mkv', levels(5), 120 + levels(6), default=0), 32, 'raw')
    assert pixels(decoded).max() < 100 and 'number 1, the default one' in decoded.reason


@pytest.mark.parametrize('name', ['12:30:05.mp4', 'http:a.mp4', 'file:a.mkv'])
def test_a_colon_in_a_name_is_no_address(tmp_path, monkeypatch, name):
    write_video(tmp_path / 'a.mp4', levels(5)).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert len(decode_video(name, 32, 'raw').frames) == 5 and cut_clip(name, 0.2, 10, 2, 32, 'raw').frames


def test_a_cover_picture_is_no_video(tmp_path):
    path = tmp_path / 'a.m4a'
    with av.open(str(path), 'w', format='mp4') as file:
        sound, cover = file.add_stream('aac', rate=8000), file.add_stream('mjpeg')
        cover.height, cover.width, cover.pix_fmt, cover.disposition = 32, 48, 'yuvj420p', Disposition.attached_pic
        file.mux(cover.encode(av.VideoFrame.from_ndarray(levels(1)[0].copy(), format='rgb24')))
        file.mux(cover.encode())
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format='fltp', layout='mono')
        silence.sample_rate = 8000
        file.mux(sound.encode(silence))
        file.mux(sound.encode())
    for decoded in (decode_video(path, 32, 'raw'), cut_clip(path, 0.2, 10, 2, 32, 'raw')):
        assert not decoded.frames and decoded.reason == 'the file has no video stream'


def test_a_list_of_videos_is_none(tmp_path):
    """It would be stored as another video, made of its neighbours."""
    write_video(tmp_path / 'a.mp4', levels(5))
    path = tmp_path / 'list.mp4'
    path.write_text("ffconcat version 1.0\nfile 'a.mp4'\nfile 'a.mp4'\n")
    for decoded in (decode_video(path, 32, 'raw'), cut_span(path, 0, 1, 32, 'raw')):
        assert not decoded.frames and decoded.reason == 'the file is a list of other files, and no video'
    with pytest.raises(UserError, match='list.mp4 cannot be read as a video: the file is a list of other files'):
        read_clips(path)


def test_a_video_larger_than_a_record_is_broken(tmp_path, monkeypatch):
    path = write_video(tmp_path / 'a.mp4', ramp())
    monkeypatch.setattr(decode, 'MOST_BYTES', 1000)  # fewer than one of its frames has
    decoded = decode_video(path, 48, 'raw')
    assert not decoded.frames and 'more than the 2 GB of a record' in decoded.reason


@pytest.mark.parametrize('content', [b'', b'no video at all' * 100])
def test_what_is_no_video_is_broken_with_a_reason(tmp_path, content):
    path = tmp_path / 'a.mp4'
    path.write_bytes(content)
    decoded = decode_video(path, 48, 'jpeg')
    assert not decoded.frames and decoded.reason.startswith('decoding failed')


@pytest.mark.parametrize('size', [float('inf'), float('-inf'), float('nan'), 1e300])
def test_a_size_that_no_file_has_breaks_the_one_that_states_it(tmp_path, size):
    path = write_video(tmp_path / 'a.flv', levels(5), codec='flv')
    head, found, rest = path.read_bytes().partition(b'filesize\0')
    path.write_bytes(head + found + struct.pack('>d', size) + rest[8:])
    for decoded in (decode_video(path, 32, 'raw'), cut_span(path, 0, 9, 32, 'raw')):
        assert not decoded.frames and f'its header says that the file has {size:g} bytes' in decoded.reason


def test_a_y4m_whose_header_has_no_words_is_broken(tmp_path):
    path = write_video(tmp_path / 'a.y4m', levels(3), codec='wrapped_avframe')
    path.write_bytes(path.read_bytes().replace(b'YUV4MPEG2 W', b'YUV4MPEG2\0W'))
    reason = 'decoding failed after 3 frames: its header does not say how wide and how high its frames are'
    assert decode_video(path, 32, 'raw')[:5] == ([], 0, 0, 0.0, reason)


def test_interlaced_frames_of_two_rows_are_broken(tmp_path):
    """No row of them lies between two."""
    path = write_video(tmp_path / 'a.mkv', levels(3, 2), codec='mpeg2video', flags='+ilme+ildct')
    assert 'a frame of 48 x 2 pixels cannot be resized' in decode_video(path, 16, 'jpeg').reason


def test_a_moment_that_no_clock_of_a_file_reaches_is_after_its_end(tmp_path):
    path = write_video(tmp_path / 'a.mp4', levels(3))
    assert 'is after the end of its video' in cut_span(path, 1e30, 1e30 + 1e20, 32, 'raw').reason
