"""From records to batches of clips, with grain. All randomness on pixels happens later, on the device."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial

import grain
import numpy as np

from vididi_jax.data import clips, readers
from vididi_jax.data.source import RecordSource
from vididi_jax.errors import UserError


def canvas(source: RecordSource) -> tuple[int, int]:
    """Height and width that hold the frames of every video of `source`: the static shape of its batches."""
    return max(row['height'] for row in source.rows), max(row['width'] for row in source.rows)


def load_clips(source: RecordSource, record: int, indices: np.ndarray, shape: tuple[int, int]) -> dict[str, np.ndarray]:
    """Decode the frames of one video's clips.

    Frames keep their size and stand in the top left corner of a canvas of zeros; `size` says how far they reach, and
    what works on them (`vididi_jax.pixels.augment`, `vididi_jax.pixels.crops`) never looks beyond it.

    Args:
      source: the records.
      record: index into `source`.
      indices: (K, T) frame indices.
      shape: height and width of the canvas.

    Returns:
      `clips` uint8 (K, T, H, W, 3), `size` int32 (2,) true height and width, `label` int32, `record` int32.
    """
    video = source[record]
    frames = video.frames(indices.ravel())
    out = np.zeros((indices.size, *shape, 3), np.uint8)
    out[:, : video.height, : video.width] = frames
    return {
        'clips': out.reshape(*indices.shape, *shape, 3),
        'size': np.array([video.height, video.width], np.int32),
        'label': np.int32(video.label),
        'record': np.int32(record),
    }


class _RandomClips(grain.transforms.RandomMap):
    """Record index -> random clips of that video. A class, because workers receive it pickled."""

    def __init__(self, source: RecordSource, sample: partial):
        self.source, self.sample, self.shape = source, sample, canvas(source)

    def random_map(self, record: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        indices = self.sample(rng, self.source.rows[record]['frames'])
        return load_clips(self.source, record, indices, self.shape)


class _FixedClips(grain.transforms.Map):
    """Record index -> the clips of that video that its number of frames decides."""

    def __init__(self, source: RecordSource, choose: partial):
        self.source, self.choose, self.shape = source, choose, canvas(source)

    def map(self, record: int) -> dict[str, np.ndarray]:
        return load_clips(self.source, record, self.choose(self.source.rows[record]['frames']), self.shape)


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
      Dataset whose element i is `load_clips` with K = 2 (1 for 'single' and 'centre'), stacked over `rows` of global
      batch i.
    """
    order = grain.MapDataset.source(videos).seed(seed).shuffle().repeat()
    if placement == 'centre':
        examples = order.map(_FixedClips(source, partial(clips.centre_clip, length=length, stride=stride)))
    elif placement == 'single':
        examples = order.random_map(_RandomClips(source, partial(clips.sample_clip, length=length, stride=stride)))
    else:
        sample = partial(clips.sample_clip_pair, length=length, stride=stride, placement=placement)
        examples = order.random_map(_RandomClips(source, sample))
    return _batches(examples, batch_size, rows)


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
    return _batches(grain.MapDataset.source(filled).map(_FixedClips(source, choose)), batch_size, rows)


def _start_worker() -> None:
    """In a worker process: parallelism comes from the workers, not from the image library's own threads."""
    import cv2

    cv2.setNumThreads(0)
    readers.end_with_parent()


def number_of_workers(dataset: grain.MapDataset, wanted: int) -> int:
    """`readers.decide` for `dataset`, of which one batch is read to see how large it is."""
    return readers.decide(wanted, sum(value.nbytes for value in dataset[0].values())) if wanted else 0


@contextmanager
def iterate(dataset: grain.MapDataset, *, workers: int) -> Iterator[Iterator[dict[str, np.ndarray]]]:
    """Read `dataset` ahead, in threads (`workers=0`) or in that many processes, which are ended on leaving.

    Args:
      dataset: batches; slice it (`dataset[step:]`) to start elsewhere.
      workers: see `number_of_workers`. Decoding jpeg wants several, raw frames want none. The batches are the same for
        any number.

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
        options = grain.MultiprocessingOptions(num_workers=workers)
        stream = stream.mp_prefetch(options, worker_init_fn=lambda *_: _start_worker())
    with closing(iter(stream)) as iterator:
        yield _told(iterator)


def _told(batches: Iterator[dict[str, np.ndarray]]) -> Iterator[dict[str, np.ndarray]]:
    """`batches`, where the death of a worker is a `UserError`."""
    try:
        yield from batches
    except RuntimeError as error:
        if 'exit code' not in str(error):
            raise
        code = str(error).partition('exit code ')[2].split('.')[0]
        raise UserError(f'a reading process died (exit code {code}), most often because memory ran out, here or in '
                        '/dev/shm: run the same command again with fewer --config.data.workers.') from error
