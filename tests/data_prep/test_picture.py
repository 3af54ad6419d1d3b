"""Frames as they are stored: every orientation, interlaced material of both field orders, one scaler for all."""

import gc
import struct
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from data_prep import picture
from data_prep.cut import cut_clip, cut_span
from data_prep.decode import decode_video
from data_prep.picture import encode_upright, orientation
from tests.data_prep.videos import pixels, write_video


def corners():
    """Blue frames, red at the top left and green at the bottom right: uint8 (3, 48, 64, 3)."""
    video = np.full((3, 48, 64, 3), (0, 0, 200), np.uint8)
    video[:, :16, :24], video[:, -16:, -24:] = (200, 0, 0), (0, 200, 0)
    return video


def turn(path, matrix):
    """Give a video another display matrix (a, b, c, d)."""
    data = path.read_bytes()
    identity, one = struct.pack('>9i', 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30), 1 << 16
    at = data.index(identity, data.index(b'tkhd'))  # in the header of the track
    a, b, c, d = (one * value for value in matrix)
    path.write_bytes(data[:at] + struct.pack('>9i', a, b, 0, c, d, 0, 0, 0, 1 << 30) + data[at + len(identity):])


@pytest.mark.parametrize(('matrix', 'upright'), [  # (a, b, c, d): column x, row y is shown at a x + c y, b x + d y
    ((1, 0, 0, 1), lambda frame: frame),
    ((-1, 0, 0, 1), lambda frame: frame[:, ::-1]),
    ((1, 0, 0, -1), lambda frame: frame[::-1]),
    ((-1, 0, 0, -1), lambda frame: np.rot90(frame, 2)),
    ((0, 1, -1, 0), lambda frame: np.rot90(frame, -1)),
    ((0, -1, 1, 0), lambda frame: np.rot90(frame)),
    ((0, 1, 1, 0), lambda frame: frame.swapaxes(0, 1)),
    ((0, -1, -1, 0), lambda frame: np.rot90(frame, 2).swapaxes(0, 1)),
])
def test_each_of_the_eight_matrices_puts_frames_upright(tmp_path, matrix, upright):
    path = write_video(tmp_path / 'a.mp4', corners(), codec='libx264', qp='0')
    turn(path, matrix)
    expected = upright(corners()[0])
    decoded = pixels(decode_video(path, 48, 'raw'))
    assert decoded.shape == (3, *expected.shape)
    assert np.abs(decoded[1].astype(int) - expected).mean() < 4


@pytest.mark.parametrize('matrix', [(1, 0, 0, 1), (-1, 0, 0, -1), (0, 1, -1, 0), (0, -1, 1, 0)])
def test_rotations_that_pyav_tells_are_those_of_the_matrix(tmp_path, monkeypatch, matrix):
    """They are asked for where side data of a kind that PyAV does not know stand beside the matrix."""
    path = write_video(tmp_path / 'a.mp4', corners(), codec='libx264', qp='0')
    turn(path, matrix)
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    expected = orientation(frame)

    def unknown(frame):
        raise ValueError('31 is not a valid Type')

    monkeypatch.setattr(picture, 'SideDataContainer', unknown)
    assert orientation(frame) == expected


def test_frames_are_freed_as_soon_as_they_are_stored(tmp_path):
    """And not when Python looks for circles next: by then they may be gigabytes."""
    path = write_video(tmp_path / 'a.mp4', np.tile(corners(), (10, 1, 1, 1)), codec='libx264')
    turn(path, (0, 1, -1, 0))
    for decode in (decode_video, lambda *options: cut_clip(path, 1.5, 10, 20, *options[1:]),
                   lambda *options: cut_span(path, 0.5, 2.5, *options[1:])):
        gc.disable()
        gc.freeze()  # what other tests have left is not looked through
        try:
            assert len(decode(path, 48, 'raw').frames) >= 20
            assert gc.collect() < 20
        finally:
            gc.unfreeze()
            gc.enable()


def test_jpegs_of_a_camera_with_exif_are_decoded(tmp_path):
    """Of a film of jpegs, each with a block that PyAV 18 has no name for."""
    exif = b'Exif\0\0II*\0' + struct.pack('<IHHHIHHI', 8, 1, 0x128, 3, 1, 2, 0, 0)  # one field, the unit of a length
    block = b'\xff\xe1' + struct.pack('>H', len(exif) + 2) + exif
    path = tmp_path / 'a.avi'
    with av.open(str(path), 'w') as file:
        stream = file.add_stream('mjpeg', rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, 'yuvj420p'
        for number, frame in enumerate(corners()):
            data = cv2.imencode('.jpg', frame[..., ::-1])[1].tobytes()
            packet = av.Packet(data[:2] + block + data[2:])
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, number, number, Fraction(1, 10)
            packet.is_keyframe = True
            file.mux(packet)
    decoded = decode_video(path, 48, 'raw')
    assert decoded.reason == '' and np.abs(pixels(decoded).astype(int) - corners()).mean() < 4


def test_a_colour_matrix_that_is_reserved_is_none(tmp_path):
    frame = av.VideoFrame.from_ndarray(corners()[0], format='rgb24').reformat(format='yuv420p')
    plain = encode_upright(frame, 48, 64, 'raw')
    frame.colorspace = 3
    assert encode_upright(frame, 48, 64, 'raw') == plain


def scene(second):
    """A textured square that moves over a texture, 240 pixels a second, both without colour: uint8 (96, 128, 3)."""
    rng = np.random.default_rng(0)
    ground, square = (cv2.GaussianBlur(rng.integers(0, 256, size).astype(np.float32), (0, 0), 1.5)
                      for size in ((96, 128), (60, 50)))
    frame = 60 + ground / 4
    left = round(10 + 240 * second)
    frame[18:78, left : left + 50] = 130 + square / 3
    return np.repeat(np.clip(frame, 16, 235).astype(np.uint8)[..., None], 3, axis=-1)


def comb(frames):
    """How much rows differ from the mean of their neighbours."""
    frames = frames.astype(float)
    return np.abs(frames[:, 1:-1] - (frames[:, :-2] + frames[:, 2:]) / 2).mean()


@pytest.mark.parametrize('order', ['tff', 'bff'])
@pytest.mark.parametrize('short_side', [96, 64, 48, 24])
def test_interlaced_frames_have_no_comb(tmp_path, order, short_side):
    def stored(name, video, **options):
        path = write_video(tmp_path / f'{name}.mp4', video, rate=25, codec='libx264', qp='0', **options)
        return pixels(decode_video(path, short_side, 'raw')).astype(int)

    flag = {'x264-params': f'{order}=1'}
    first = np.stack([scene(n / 25) for n in range(6)])
    second = np.stack([scene((n + 0.5) / 25) for n in range(6)])
    plain = stored('plain', first)
    area = np.stack([cv2.resize(frame, plain.shape[2:0:-1], interpolation=cv2.INTER_AREA) for frame in first])
    assert np.abs(plain - area).mean() < 2  # FFmpeg rounds down
    np.testing.assert_array_equal(stored('progressive', first, **flag), plain)

    woven = first.copy()
    rows = slice(1, None, 2) if order == 'tff' else slice(0, None, 2)
    woven[:, rows] = second[:, rows]
    blend = (plain + stored('second', second)) / 2
    interlaced = stored('woven', woven, **flag)
    assert np.abs(interlaced - blend).mean() < 1
    assert comb(interlaced) < 1.1 * comb(blend)


def test_frames_of_every_kind_in_turn_are_scaled_as_each_one_alone():
    """The scaler is kept from frame to frame; format, range, colours and size must not leak into the next one."""
    rng, frames = np.random.default_rng(0), []
    for pixel_format in ('yuv420p', 'yuvj420p', 'yuv444p', 'rgb24', 'gray', 'yuv420p10le'):
        for colours in (1, 5):
            for reach in (1, 2):
                for shape in ((48, 64, 3), (97, 51, 3)):
                    frame = av.VideoFrame.from_ndarray(rng.integers(0, 256, shape, np.uint8), format='rgb24')
                    frame = frame.reformat(format=pixel_format)
                    frame.colorspace, frame.color_range = colours, reach
                    frames.append(frame)
    for i in rng.permutation(4 * len(frames)):
        frame, (height, width) = frames[i // 4], ((32, 40), (40, 32), (32, 32), (120, 130))[i % 4]
        method = 'AREA' if min(frame.height, frame.width) > min(height, width) else 'BICUBIC'
        alone = frame.reformat(width, height, format='rgb24', interpolation=method).to_ndarray()
        assert encode_upright(frame, height, width, 'raw') == alone.tobytes()
