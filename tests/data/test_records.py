"""The record format: TFRecord framing, features, frames."""

import struct

import cv2
import numpy as np
import pytest

from vididi_jax.data import records
from vididi_jax.errors import UserError


def example(encoding, count=3, height=16, width=20):
    grid = np.add.outer(np.arange(height), np.arange(width))
    video = np.stack([np.stack([4 * grid + 20 * t, 255 - 3 * grid, 100 + 0 * grid], -1) for t in range(count)])
    video = video.astype(np.uint8)
    fields = {'id': 'an id', 'group': 'g01', 'label': 4, 'fps': 12.5,
              'num_frames': count, 'height': height, 'width': width}
    frames = [records.encode_frame(frame, encoding) for frame in video]
    return video, records.serialise(frames, encoding, fields), fields


def test_the_checksum_is_crc32c_masked():
    """crc32c('123456789') is 0xE3069283 (RFC 3720); TFRecord rotates it right by 15 bits and adds a constant."""
    assert records.masked_crc(b'123456789') == (((0xE3069283 >> 15) | (0xE3069283 << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def test_framing_is_length_checksum_data_checksum():
    framed = records.frame_record(b'hello')
    assert struct.unpack('<Q', framed[:8]) == (5,) and framed[12:17] == b'hello'
    assert len(framed) == records.record_size(5) == 21
    empty = records.frame_record(b'')
    assert records.read_record(framed + empty) == b'hello' and records.read_record(framed + empty, 21) == b''
    assert records.data_crc(framed) == records.masked_crc(b'hello')


@pytest.mark.parametrize('position', [0, 9, 14, 20])
def test_every_flipped_bit_is_noticed(position):
    framed = bytearray(records.frame_record(b'hello'))
    framed[position] ^= 4
    with pytest.raises(ValueError, match='checksum'):
        records.read_record(bytes(framed))


@pytest.mark.parametrize('length', [4, 13, 20])
def test_a_cut_record_is_noticed(length):
    with pytest.raises(ValueError, match='ends within'):
        records.read_record(records.frame_record(b'hello')[:length])


def test_raw_frames_come_back_exactly():
    video, data, fields = example('raw')
    record = records.Record(data)
    assert {name: getattr(record, name) for name in fields} == fields
    np.testing.assert_array_equal(record.frames([2, 0, 2]), video[[2, 0, 2]])


def test_jpeg_frames_come_back_nearly_with_their_colours_in_order():
    video, data, _ = example('jpeg')
    assert np.abs(records.Record(data).frames(range(3)).astype(int) - video).mean() < 3  # quality 95


def test_frames_that_are_no_images_of_their_size_are_one_sentence():
    """In a record whose checksum is right."""
    video, _, fields = example('jpeg')
    broken = {
        'no jpeg': records.serialise([b'jpeg', b''], 'jpeg', fields),
        'another size': records.serialise([records.encode_frame(video[0, :9], 'jpeg')] * 2, 'jpeg', fields),
        'few pixels': records.serialise([b'123'] * 2, 'raw', fields),
        'few frames': records.serialise([records.encode_frame(video[0], 'jpeg')], 'jpeg', fields),
    }
    for data in broken.values():
        with pytest.raises(UserError, match='shard 7: frame 1 of an id cannot be decoded'):
            records.Record(data, 'shard 7').frames([1])


def test_only_the_frames_asked_for_are_decoded(monkeypatch):
    video, data, _ = example('jpeg', count=9)
    decoded, decode = [], cv2.imdecode
    monkeypatch.setattr(cv2, 'imdecode', lambda *arguments: decoded.append(1) or decode(*arguments))
    records.Record(data).frames([3, 7, 3])
    assert len(decoded) == 2
