"""The record format: TFRecord framing, features, frames."""

import struct

import numpy as np
import pytest

from vididi_jax.data import records


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
    expected = (((0xE3069283 >> 15) | (0xE3069283 << 17)) + 0xA282EAD8) & 0xFFFFFFFF
    assert records.masked_crc(b'123456789') == expected
    assert records.masked([0xE3069283, 0]).tolist() == [expected, 0xA282EAD8]


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


@pytest.mark.parametrize('encoding', ['raw', 'jpeg'])
def test_the_table_says_where_in_the_shard_each_frame_is(encoding):
    """Also where frames are alike, or begin as what stands before them does."""
    video, _, fields = example(encoding)
    video = np.concatenate([np.full_like(video, 0), video, video, np.full_like(video, 10)])
    frames = [records.encode_frame(frame, encoding) for frame in video]
    data = records.serialise(frames, encoding, fields | {'num_frames': len(frames)})
    shard = b'x' * 100 + data
    for frame, (offset, length, crc) in zip(frames, records.locate_frames(data, frames, 100).tolist(), strict=True):
        assert shard[offset : offset + length] == frame and crc == records.masked_crc(frame)


def test_a_frame_that_goes_on_as_its_framing_begins_is_found_where_it_is():
    """In the record two bytes stand before it, a tag and the length 72, which it repeats for as long as is searched."""
    frame = 32 * b'\x0a\x48' + bytes(8)
    data = records.serialise([frame], 'raw', example('raw')[2] | {'num_frames': 1, 'height': 4, 'width': 6})
    (offset, length, _), = records.locate_frames(data, [frame], 0).tolist()
    assert data[offset - 2 : offset + length] == b'\x0a\x48' + frame


def decode(data, encoding, shape):
    out = np.zeros(shape, np.uint8)
    records.decode_frame(data, encoding, out)
    return out


def test_raw_frames_come_back_exactly():
    video, _, _ = example('raw')
    np.testing.assert_array_equal(decode(records.encode_frame(video[2], 'raw'), 'raw', video[2].shape), video[2])


def test_jpeg_frames_come_back_nearly_with_their_colours_in_order():
    video, _, _ = example('jpeg')
    found = decode(records.encode_frame(video[1], 'jpeg'), 'jpeg', video[1].shape)
    assert np.abs(found.astype(int) - video[1]).mean() < 3  # quality 95


def test_bytes_that_are_no_image_of_their_size_are_refused():
    video, _, _ = example('jpeg')
    for data, encoding in ((b'jpeg', 'jpeg'), (records.encode_frame(video[0, :9], 'jpeg'), 'jpeg'), (b'123', 'raw'),
                           (b'', 'raw')):
        with pytest.raises(ValueError):
            decode(data, encoding, video[0].shape)
