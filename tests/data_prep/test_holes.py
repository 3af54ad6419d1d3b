"""Files that lack something in their middle, and whole files that were joined."""

import av
import pytest

from data_prep.cut import cut_clip, cut_span
from data_prep.decode import decode_video, open_video
from tests.data_prep.videos import levels, pixels, write_video


def marks(path):
    """How many packets FFmpeg takes for damaged."""
    with open_video(path) as (container, stream, _):
        return sum(packet.is_corrupt for packet in container.demux(stream))


@pytest.mark.parametrize('codec', ['libx264', 'mpeg2video', 'mpeg4'])
@pytest.mark.parametrize('zeroed', [True, False])
def test_a_hole_in_the_middle_breaks_what_needs_it(tmp_path, codec, zeroed):
    """Each frame takes one or a few packets of the file, so that nothing is left of most of those that are lost."""
    path = write_video(tmp_path / 'a.ts', levels(60), codec=codec, rate=25, g='12')
    data = bytearray(path.read_bytes())
    place = slice(len(data) // 2 // 188 * 188, len(data) // 2 // 188 * 188 + 8 * 188)
    data[place] = bytes(8 * 188) if zeroed else b''
    path.write_bytes(data)
    whole = decode_video(path, 32, 'raw')
    assert not whole.frames and whole.reason.endswith('frames: bytes of the file are missing there')
    for clip in (cut_span(path, 0.4, 2, 32, 'raw'), cut_clip(path, 1.2, 25, 40, 32, 'raw')):
        assert not clip.frames and clip.reason.endswith('s: bytes of the file are missing there')
    for begin in (0, 0.2, 2):
        clip = cut_span(path, begin, begin + 0.4, 32, 'raw')
        assert len(clip.frames) == 10 and not clip.reason
        assert abs(pixels(clip)[:, 0, 0, 0] / 4 - 25 * begin - range(10)).max() < 1


def join(path, parts):
    path.write_bytes(b''.join(part.read_bytes() for part in parts))
    assert marks(path)  # each part counts from 0
    return path


def test_whole_files_that_were_joined_are_whole(tmp_path):
    parts = [write_video(tmp_path / f'{number}.ts', levels(12 + number), codec='mpeg2video', rate=25)
             for number in range(3)]
    decoded = decode_video(join(tmp_path / 'all.ts', parts), 32, 'raw')
    assert len(decoded.frames) == 12 + 13 + 14 and not decoded.reason


@pytest.mark.parametrize('codec', ['libx264', 'mpeg2video'])
def test_segments_of_a_recording_that_were_joined_are_whole(tmp_path, codec):
    options = {'segment_time': '0.4', 'segment_format': 'mpegts'}
    with av.open(str(tmp_path / '%03d.ts'), 'w', format='segment', options=options) as file:
        stream = file.add_stream(codec, rate=25, options={'g': '10', 'bf': '0'})
        stream.height, stream.width, stream.pix_fmt = 32, 48, 'yuv420p'
        for frame in levels(43):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame.copy(), format='rgb24')))
        file.mux(stream.encode())
    path = join(tmp_path / 'all.ts', sorted(tmp_path.glob('*.ts')))
    decoded = decode_video(path, 32, 'raw')
    assert len(decoded.frames) == 43 and not decoded.reason
    clip = cut_span(path, 0.6, 1.4, 32, 'raw')
    assert len(clip.frames) == 20 and not clip.reason
