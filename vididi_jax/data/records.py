"""The record format.

A prepared data set is a TFDS data set directory. Shards `NAME-SPLIT.tfrecord-00000-of-00002` hold one TFRecord a video:
  uint64 length | uint32 masked crc32c(length) | data | uint32 masked crc32c(data), little-endian,
with data a serialised tf.train.Example. Beside them: features.json, dataset_info.json and label.labels.txt (TFDS),
manifest.jsonl, one line a listed video, `NAME-SPLIT.index.npy` (an element a record, see `VIDEO`) and
`NAME-SPLIT.frames.npy` (an element a frame, see `FRAME`), plan.json, what data_prep was asked for, counts.json, how
many videos of a split are listed, there, missing and broken, and SHA256SUMS (`data.checksums`).

Splits that share videos, such as the three official ones of UCF101, are views of one store: `store` is a data set of
the one split `videos`, and beside it `split1` and so on are data sets without shards, table of frames and TFDS's
description. They have index and manifest of their splits; their plan says in which store the places in the index are.

Features of an example: `frames` (a list of jpeg images, or of raw uint8 frames), `id`, `label`, `group`, `fps` (0 if
the file does not say), `num_frames`, `height`, `width`. Each frame is an element of its own, and the table of frames
says where its bytes are, so that a reader reads and decodes only the frames it needs.
"""

import struct
from collections.abc import Sequence

import cv2
import google_crc32c
import numpy as np
from tensorflow_datasets.proto import tf_example_pb2  # not where threads read: in several at once it deadlocks

ENCODINGS = ('jpeg', 'raw')
SHORT_SIDE, ENCODING = 128, 'jpeg'  # of stored frames, if nothing else is said
JPEG_QUALITY = 95
BEGINNING = 64  # bytes of a frame that are looked for: preparing to look for all of it takes longer than looking
MANIFEST = 'manifest.jsonl'
PLAN = 'plan.json'
INFO, FEATURES = 'dataset_info.json', 'features.json'  # TFDS's
INCOMPLETE = 'incomplete'  # folder of a data set that is being written
COUNTS = 'counts.json'
STORE, STORE_SPLIT = 'store', 'videos'  # folder of a data set that others are views of, and its split
FORMAT = 4  # of the directory; part of the plan, so that a data set of another one is not taken for complete
VIDEO = np.dtype([  # an element of the index
    ('shard', '<i4'), ('offset', '<i8'), ('length', '<i8'),  # the record: its place, and the bytes of its data
    ('crc', '<u4'),  # masked crc32c of its data
    ('line', '<i8'),  # where its line of the manifest begins, in bytes
    ('label', '<i4'), ('frames', '<i4'), ('height', '<i4'), ('width', '<i4'),
    ('first', '<i8'), ('frames_crc', '<u4'),  # its first element of the table of frames; masked crc32c of its elements
])
FRAME = np.dtype([('offset', '<i8'), ('length', '<i4'), ('crc', '<u4')])  # in the shard; masked crc32c of the bytes
LABELS = 'label.labels.txt'  # TFDS's file of class names
NO_LABEL = '.'  # what stands there for the label '', which TFDS does not read back
HEADER, FOOTER = struct.Struct('<QI'), struct.Struct('<I')


def masked_crc(data: bytes | np.ndarray) -> int:
    """TFRecord's checksum: crc32c, rotated right by 15 bits, plus a constant; of bytes or a contiguous array."""
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def masked(crcs: Sequence[int]) -> np.ndarray:
    """(N,) uint32: what `masked_crc` makes of these sums, all at once."""
    crcs = np.asarray(crcs, np.uint32)
    return ((crcs >> 15) | (crcs << 17)) + np.uint32(0xA282EAD8)


def frame_record(data: bytes) -> bytes:
    """One record as it stands in a file: length, data and their checksums."""
    length = struct.pack('<Q', len(data))
    return b''.join((length, FOOTER.pack(masked_crc(length)), data, FOOTER.pack(masked_crc(data))))


def read_record(buffer, offset: int = 0) -> bytes:
    """The data of the record at `offset` of a shard's bytes.

    Raises:
      ValueError: the record is cut short, or one of its checksums is wrong.
    """
    if offset + HEADER.size > len(buffer):
        raise ValueError('the file ends within a record')
    length, crc = HEADER.unpack_from(buffer, offset)
    if crc != masked_crc(buffer[offset : offset + 8]):
        raise ValueError('the checksum of a length is wrong')
    start = offset + HEADER.size
    if start + length + FOOTER.size > len(buffer):
        raise ValueError('the file ends within a record')
    data = buffer[start : start + length]
    if FOOTER.unpack_from(buffer, start + length)[0] != masked_crc(data):
        raise ValueError('the checksum of a record is wrong')
    return data


def data_crc(record) -> int:
    """The checksum of the data of a whole record as it stands in a file; it is not verified here."""
    return FOOTER.unpack_from(record, len(record) - FOOTER.size)[0]


def record_size(length):
    """Bytes that a record of `length` bytes of data takes in a file."""
    return HEADER.size + length + FOOTER.size


def shard_name(name: str, split: str, shard: int, shards: int) -> str:
    """TFDS's file name of a shard."""
    return f'{name}-{split}.tfrecord-{shard:05d}-of-{shards:05d}'


def is_shard(name: str) -> bool:
    """Whether a file of a data set is a shard, by its name."""
    return '.tfrecord-' in name


def index_name(name: str, split: str) -> str:
    """File name of a split's index."""
    return f'{name}-{split}.index.npy'


def frames_name(name: str, split: str) -> str:
    """File name of a split's table of frames."""
    return f'{name}-{split}.frames.npy'


def is_large(name: str) -> bool:
    """Whether a file of a data set has checksums of its parts elsewhere, so that opening need not read it."""
    return is_shard(name) or name.endswith('.frames.npy')


def encode_frame(frame: np.ndarray, encoding: str) -> bytes:
    """uint8 RGB (H, W, 3) -> bytes of a jpeg image, or the raw pixels."""
    if encoding == 'raw':
        return np.ascontiguousarray(frame).tobytes()
    done, data = cv2.imencode('.jpg', cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))
    if not done:
        raise ValueError(f'a frame of shape {frame.shape} cannot be encoded as jpeg')
    return data.tobytes()


def features(label_names: Sequence[str], encoding: str):
    """The TFDS features of a data set."""
    import tensorflow_datasets as tfds

    frame = (tfds.features.Tensor(shape=(None, None, 3), dtype=np.uint8, encoding='bytes') if encoding == 'raw'
             else tfds.features.Image(shape=(None, None, 3), encoding_format='jpeg'))
    return tfds.features.FeaturesDict({
        'frames': tfds.features.Sequence(frame),
        'id': tfds.features.Text(),
        'label': tfds.features.ClassLabel(names=[name or NO_LABEL for name in label_names]),
        'group': tfds.features.Text(),
        'fps': tfds.features.Scalar(np.float32),
        'num_frames': tfds.features.Scalar(np.int64),
        'height': tfds.features.Scalar(np.int64),
        'width': tfds.features.Scalar(np.int64),
    })


def serialise(frames: Sequence[bytes], encoding: str, fields: dict) -> bytes:
    """A tf.train.Example of encoded frames and the other features, as `features` describes it."""
    example = tf_example_pb2.Example()
    feature = example.features.feature
    feature['frames/value' if encoding == 'raw' else 'frames'].bytes_list.value.extend(frames)
    if encoding == 'raw':
        feature['frames/shape'].int64_list.value.extend((fields['height'], fields['width'], 3) * len(frames))
    for name in ('id', 'group'):
        feature[name].bytes_list.value.append(fields[name].encode())
    for name in ('label', 'num_frames', 'height', 'width'):
        feature[name].int64_list.value.append(fields[name])
    feature['fps'].float_list.value.append(fields['fps'])
    return example.SerializeToString(deterministic=True)


def locate_frames(data: bytes, frames: Sequence[bytes], offset: int) -> np.ndarray:
    """The elements of the table of frames of a record.

    Args:
      data: of the record, from `serialise`.
      frames: that it was made from.
      offset: where in the shard `data` begins.

    Returns:
      (len(frames),) `FRAME`.
    """
    table, place = np.empty(len(frames), FRAME), 0
    for i, frame in enumerate(frames):
        start = frame[:BEGINNING]
        place = data.index(start, place)  # between two frames lie some bytes of framing
        while not data.startswith(frame, place):
            place = data.index(start, place + 1)
        table[i] = offset + place, len(frame), masked_crc(frame)
        place += len(frame)
    return table


def decode_frame(data: bytes, encoding: str, out: np.ndarray) -> None:
    """Bytes of an encoded frame -> uint8 RGB pixels in `out` (height, width, 3).

    Raises:
      ValueError: they are no image of that size.
    """
    pixels = np.frombuffer(data, np.uint8)
    if encoding == 'raw':
        out[...] = pixels.reshape(out.shape)
        return
    frame = cv2.imdecode(pixels, cv2.IMREAD_COLOR_RGB)
    if np.shape(frame) != out.shape:
        raise ValueError(f'it is no image of {out.shape[0]} x {out.shape[1]} pixels')
    out[...] = frame


def parse_label_names(data: bytes) -> list[str]:
    """Class names in order of their numbers, from the content of LABELS; '' is the label of videos without one."""
    return ['' if name == NO_LABEL else name for name in data.decode().splitlines()]
