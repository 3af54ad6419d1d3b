"""Shards of a data set that is being written, each with a part: what is known of it and of its videos."""

import json
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from vididi_jax.data import checksums, records

from .decode import Decoded
from .output import Output, write
from .plan import Plan, Video


def row_of(video: Video, status: str, decoded: Decoded | None = None, reason: str = '') -> dict:
    """The row of a video in the manifest."""
    ok = status == 'ok'
    return {
        **{name: getattr(video, name) for name in ('id', 'path', 'label', 'group', 'split')},
        'frames': len(decoded.frames) if ok else None, 'fps': decoded.fps if ok else None,
        'width': decoded.width if ok else None, 'height': decoded.height if ok else None,
        'status': status, 'reason': reason,
    }


def write_shard(plan: Plan, shard: tuple, stream: Iterator[Decoded], out: Path, bar: tqdm) -> dict:
    """Write one shard and then its part, which is returned.

    A part is {'checksum': of the shard, 'frames': of the file with its table of frames, 'rows': of its videos}; the
    row of a record has '_record' too: what the index says of it, but for its place in the manifest and the table.
    """
    split, number, shards, videos = shard
    rows, tables, offset = [], [], 0
    with Output(out, records.shard_name(plan.name, split, number, shards)) as file:
        for video in videos:
            decoded = next(stream)
            bar.update()
            if not decoded.frames:
                rows.append(row_of(video, 'broken', reason=decoded.reason))
                continue
            data = records.serialise(decoded.frames, plan.encoding, {
                'id': video.id, 'group': video.group, 'label': plan.label_numbers[video.label], 'fps': decoded.fps,
                'num_frames': len(decoded.frames), 'height': decoded.height, 'width': decoded.width})
            record = records.frame_record(data)
            file.write(record)
            tables.append(records.locate_frames(data, decoded.frames, offset + records.HEADER.size).tobytes())
            rows.append(row_of(video, 'ok', decoded, decoded.reason) | {'_record': {
                'shard': number, 'offset': offset, 'length': len(data), 'crc': records.data_crc(record),
                'label': plan.label_numbers[video.label], 'frames': len(decoded.frames), 'height': decoded.height,
                'width': decoded.width, 'frames_crc': records.masked_crc(tables[-1])}})
            offset += records.record_size(len(data))
    frames = write(out, frames_part_name(split, number), b''.join(tables), folder=out / records.INCOMPLETE)
    part = {'checksum': file.checksum, 'frames': frames, 'rows': rows}
    framed = records.frame_record(json.dumps(part).encode())  # a record, so that damage is noticed
    write(out, _part_name(split, number), framed, folder=out / records.INCOMPLETE)
    return part


def _part_name(split: str, number: int) -> str:
    return f'{split}-{number:05d}.part'


def frames_part_name(split: str, number: int) -> str:
    return f'{split}-{number:05d}.frames'


def count_parts(out: Path) -> int:
    """How many shards have a part."""
    return len(list((out / records.INCOMPLETE).glob('*.part')))


def read_parts(plan: Plan, shards: list[tuple], out: Path) -> dict[tuple[str, int], dict]:
    """(split, number) -> the part of each shard that is written already, and as it was written."""
    parts, folder = {}, out / records.INCOMPLETE
    found = [shard for shard in shards if (folder / _part_name(*shard[:2])).exists()]
    for split, number, count, _ in tqdm(found, unit='shard', desc='checking', disable=not found, dynamic_ncols=True):
        path, shard = folder / _part_name(split, number), out / records.shard_name(plan.name, split, number, count)
        try:
            part = json.loads(records.read_record(path.read_bytes()))
            if (checksums.of_file(shard), checksums.of_file(folder / frames_part_name(split, number))) != (
                    part['checksum'], part['frames']):
                raise ValueError('its checksum is wrong')
        except (OSError, ValueError) as error:
            tqdm.write(f'{shard.name} is damaged ({error}): writing it again')
            continue
        parts[split, number] = part
    return parts
