"""From records to batches of clips, with grain. All randomness on pixels happens later, on the device."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial

import grain
import numpy as np

from vididi_jax.data import clips, memory, readers
from vididi_jax.data.source import RecordSource
from vididi_jax.errors import UserError

RARE = 0.01  # share of the videos that a bounded canvas need not hold
SMALL = 2**16  # bytes that are not worth shared memory
WORTH = 1.1  # from which factor of its pixels on a canvas is bounded


def canvas(source: RecordSource, videos: np.ndarray | None = None) -> tuple[int, int]:
    """Height and width that hold the frames of every video of `source`, or of `videos`: the shape of its batches."""
    height, width = source.sizes[slice(None) if videos is None else videos].max(0)
    return int(height), int(width)


def bounded_canvas(source: RecordSource, videos: np.ndarray) -> tuple[int, int]:
    """A canvas that the odd video does not enlarge for all: one panorama would multiply every batch.

    The canvas of all `videos`, unless that without the highest and the widest `RARE` of them has less than 1 / `WORTH`
    of its pixels. What a clip of one of these shows is then a part of its frames, see `load_clips`.
    """
    largest = canvas(source, videos)
    height, width = (int(side) for side in np.quantile(source.sizes[videos], 1 - RARE, axis=0, method='higher'))
    return (height, width) if largest[0] * largest[1] > WORTH * height * width else largest


def describe_partly_seen(source: RecordSource, videos: np.ndarray) -> str:
    """'; 3 larger than 128x171, seen in part' where `bounded_canvas` leaves videos out, else ''."""
    height, width = bounded_canvas(source, videos)
    count = int((source.sizes[videos] > (height, width)).any(1).sum())
    return f'; {count:,} larger than {height}x{width}, seen in part' if count else ''


def load_clips(
    source: RecordSource, records: np.ndarray, indices: np.ndarray, corners: np.ndarray, clips: np.ndarray,
) -> dict[str, np.ndarray]:
    """Decode the frames of the clips of some videos, straight into a batch.

    Frames keep their size and stand in the top left corner of a canvas of zeros; `size` says how far they reach, and
    what works on them (`vididi_jax.pixels.augment`, `vididi_jax.pixels.crops`) never looks beyond it. Of frames larger
    than the canvas a part as large as it is taken, the same of all clips of the video.

    Args:
      source: the records.
      records: (B,) indices into `source`.
      indices: (B, K, T) frame indices.
      corners: (B, 2) where in its frames that part lies, from 0 for the top or the left to 1.
      clips: uint8 (B, K, T, H, W, 3), what is written to, all of it; H and W are those of the canvas.

    Returns:
      `clips`, `size` int32 (B, 2) height and width of what is seen, `label` int32 (B,),
      `record` int32 (B,).
    """
    shape, sizes = clips.shape[3:5], source.sizes[records]
    indices = indices.reshape(len(records), -1).tolist()
    for write, corner, size, out in zip(source.read(records, indices), corners, sizes, clips, strict=True):
        out = out.reshape(-1, *shape, 3)
        if (size == shape).all():
            write(out)
            continue
        whole = np.empty((len(out), *size, 3), np.uint8)
        write(whole)
        out[:] = 0
        height, width = np.minimum(size, shape)
        top, left = (corner * (size - (height, width))).round().astype(int)
        out[:, :height, :width] = whole[:, top : top + height, left : left + width]
    return {'clips': clips, 'size': np.minimum(sizes, shape).astype(np.int32),
            'label': source.labels[records].astype(np.int32), 'record': np.asarray(records, np.int32)}


def load_whole(source: RecordSource, records: np.ndarray, indices: np.ndarray) -> dict[str, np.ndarray]:
    """`load_clips` on a canvas that holds all frames of these videos."""
    clips = np.empty((*indices.shape, *canvas(source, records), 3), np.uint8)
    return load_clips(source, records, indices, np.zeros((len(records), 2)), clips)


class _RandomClips(grain.transforms.RandomMap):
    """Record index -> which frames of that video, at random. A class, because workers receive it pickled."""

    def __init__(self, source: RecordSource, sample: partial):
        self.source, self.sample = source, sample

    def random_map(self, record: int, rng: np.random.Generator) -> tuple:
        indices = self.sample(rng, int(self.source.num_frames[record]))
        return record, indices, rng.uniform(size=2)


class _FixedClips(grain.transforms.Map):
    """Record index -> which frames of that video, as its number of frames decides."""

    def __init__(self, source: RecordSource, choose: partial):
        self.source, self.choose = source, choose

    def map(self, record: int) -> tuple:
        return record, self.choose(int(self.source.num_frames[record])), np.full(2, 0.5)


class _Load(grain.transforms.Map):
    """Of a batch, which frames -> the frames, see `load_clips`."""

    def __init__(self, source: RecordSource, shape: tuple[int, int]):
        self.source, self.shape = source, shape

    def map(self, chosen: tuple) -> dict[str, np.ndarray | memory.Place]:
        records, indices, corners = chosen
        sent, clips = memory.take((*indices.shape, *self.shape, 3))
        return load_clips(self.source, records, indices, corners, clips) | {'clips': sent}


class _Rows:
    """Some rows of every batch of `examples`, one after the other: a random-access source for grain."""

    def __init__(self, examples: grain.MapDataset, batch_size: int, rows: np.ndarray):
        self.examples, self.batch_size, self.rows = examples, batch_size, rows

    def __len__(self) -> int:
        return len(self.examples) // self.batch_size * len(self.rows)

    def __getitem__(self, index: int):
        batch, row = divmod(index, len(self.rows))
        return self.examples[batch * self.batch_size + int(self.rows[row])]


def _batches(examples: grain.MapDataset, batch_size: int, rows: np.ndarray | None) -> grain.MapDataset:
    """`rows` of each whole batch of `examples`; None for all."""
    if rows is None or len(rows) == batch_size:
        return examples.batch(batch_size)
    return grain.MapDataset.source(_Rows(examples, batch_size, rows)).batch(len(rows))


def training_stream(
    source: RecordSource, videos: np.ndarray, *, length: int, stride: int, placement: str, batch_size: int, seed: int,
    rows: np.ndarray | None = None,
) -> grain.MapDataset:
    """The endless sequence of training batches, as a function of its index.

    Batch i depends on the arguments and on i alone, so a run resumes at any batch, with any number of workers. The
    videos are reshuffled every pass and every pass holds each once. Of a global batch each process reads its `rows`:
    together the processes have what a single one would.

    Args:
      source: the records.
      videos: indices of the records to use.
      length, stride: of a clip.
      placement: 'single' for one random clip a video, see `clips.sample_clip`; 'centre' for the one around its middle
        frame, see `clips.centre_clip`; else see `clips.sample_clip_pair`.
      batch_size: videos in a global batch.
      seed: of shuffling and of clip sampling.
      rows: of each global batch, those to read, see `mesh.rows_here`; None for all.

    Returns:
      Dataset whose element i is `load_clips` of `rows` of global batch i, with K = 2 (1 for 'single' and 'centre'), on
      a `bounded_canvas` ('centre': one that holds all frames).
    """
    order = grain.MapDataset.source(videos).seed(seed).shuffle().repeat()
    shape = bounded_canvas(source, videos)
    if placement == 'centre':
        shape = canvas(source, videos)  # boxes lie anywhere
        examples = order.map(_FixedClips(source, partial(clips.centre_clip, length=length, stride=stride)))
    elif placement == 'single':
        examples = order.random_map(_RandomClips(source, partial(clips.sample_clip, length=length, stride=stride)))
    else:
        sample = partial(clips.sample_clip_pair, length=length, stride=stride, placement=placement)
        examples = order.random_map(_RandomClips(source, sample))
    return _batches(examples, batch_size, rows).map(_Load(source, shape))


def evaluation_batches(
    source: RecordSource, *, clips_per_video: int, length: int, stride: int, batch_size: int, records: np.ndarray,
    rows: np.ndarray | None = None,
) -> grain.MapDataset:
    """Batches of `load_clips` with K evenly spaced clips of each of some videos.

    The last batch is filled up with its last video, so that all have the same shape.

    Args:
      source: the records.
      clips_per_video: K.
      length, stride: see `clips.even_clips`.
      batch_size: videos in a global batch.
      records: indices of the records to read, in order.
      rows: see `training_stream`.
    """
    choose = partial(clips.even_clips, clips=clips_per_video, length=length, stride=stride)
    return _fixed_batches(source, choose, batch_size, records, rows)


def keyframe_batches(
    source: RecordSource, *, length: int, stride: int, batch_size: int, records: np.ndarray,
    rows: np.ndarray | None = None,
) -> grain.MapDataset:
    """As `evaluation_batches`, with the one clip around the middle frame, see `clips.centre_clip`."""
    return _fixed_batches(source, partial(clips.centre_clip, length=length, stride=stride), batch_size, records, rows)


def _fixed_batches(source, choose: partial, batch_size: int, records: np.ndarray, rows) -> grain.MapDataset:
    filled = np.pad(records, (0, -len(records) % batch_size), mode='edge')
    chosen = _batches(grain.MapDataset.source(filled).map(_FixedClips(source, choose)), batch_size, rows)
    return chosen.map(_Load(source, canvas(source, records)))


def _start_worker() -> None:
    """In a worker process: parallelism comes from the workers, not from the image library's own threads."""
    import cv2

    cv2.setNumThreads(0)
    memory.share()
    readers.end_with_parent()


def number_of_workers(dataset: grain.MapDataset, wanted: int) -> int:
    """`readers.decide` for `dataset`, of which one batch is read, where that counts, to see how large it is."""
    if wanted >= 0:
        return wanted
    size = sum(value.nbytes for value in dataset[0].values())
    memory.give_back()  # all others are read elsewhere
    return readers.decide(wanted, size)


@contextmanager
def iterate(dataset: grain.MapDataset, *, workers: int) -> Iterator[Iterator[dict[str, np.ndarray]]]:
    """Read `dataset` ahead, in threads (`workers=0`) or in that many processes, which are ended on leaving.

    Args:
      dataset: batches; slice it (`dataset[step:]`) to start elsewhere.
      workers: see `number_of_workers`. Decoding jpeg wants several, small raw frames want none. The batches are the
        same for any number.

    Raises:
      UserError: what reading raises; also a worker process that died.
    """
    ahead = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1) if workers else grain.ReadOptions(
        num_threads=4, prefetch_buffer_size=4)
    stream = dataset.to_iter_dataset(ahead)
    if workers:
        from absl import flags

        if not flags.FLAGS.is_parsed():  # grain reads its flags even where no absl program runs (notebooks)
            flags.FLAGS.mark_as_parsed()
        # Clips lie in shared memory already; what is small is sent as it is.
        small = grain.experimental.DatasetOptions(min_shm_size=SMALL)
        stream = grain.experimental.WithOptionsIterDataset(stream, small)
        options = grain.MultiprocessingOptions(num_workers=workers)
        stream = stream.mp_prefetch(options, worker_init_fn=lambda *_: _start_worker())
    with closing(iter(stream)) as iterator:
        yield _received(iterator)


def _received(batches: Iterator[dict[str, np.ndarray | memory.Arrived]]) -> Iterator[dict[str, np.ndarray]]:
    """`batches` with their clips; the death of a worker is a `UserError`."""
    known = {}
    try:
        for batch in batches:
            yield batch | {'clips': memory.receive(batch['clips'], known)}
    except RuntimeError as error:
        if 'exit code' not in str(error):
            raise
        code = str(error).partition('exit code ')[2].split('.')[0]
        raise UserError(f'a reading process died (exit code {code}), most often because memory ran out: run the '
                        'same command again with fewer --config.data.workers. (A script of your own must train below '
                        "`if __name__ == '__main__':`, as reading processes import it again.)") from error
