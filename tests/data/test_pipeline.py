"""From records to batches: order, shares of processes, resumption, workers."""

import multiprocessing
import subprocess
import sys
import time

import numpy as np
import pytest

from vididi_jax.data import pipeline
from vididi_jax.data.source import RecordSource


@pytest.fixture(scope='module')
def source(tiny_motion):
    return RecordSource(tiny_motion, 'train')


def stream(source, videos=range(48), **changes):
    options = dict(length=4, stride=2, placement='adjacent', batch_size=12, seed=3) | changes
    return pipeline.training_stream(source, np.array(videos), **options)


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])


def test_every_pass_holds_each_video_once_in_another_order(source):
    batches = stream(source)
    passes = [np.concatenate([batches[4 * i + j]['record'] for j in range(4)]) for i in range(2)]
    assert all(sorted(order) == list(range(48)) for order in passes)
    assert list(passes[0]) != list(passes[1])


def test_videos_that_are_not_asked_for_are_in_no_batch(source):
    batches = stream(source, [3, 8, 21, 40], batch_size=2)
    assert sorted(np.concatenate([batches[i]['record'] for i in (0, 1)])) == [3, 8, 21, 40]


def test_a_batch_depends_on_its_index_and_the_seed_alone(source):
    same(stream(source)[5], stream(source)[5])
    same(stream(source)[2:][3], stream(source)[5])
    assert not np.array_equal(stream(source, seed=4)[5]['record'], stream(source)[5]['record'])


def test_the_shares_of_processes_make_up_the_global_batch(source):
    whole = stream(source)[7]
    shares = [stream(source, rows=np.arange(4 * p, 4 * p + 4))[7] for p in range(3)]
    for name in whole:
        together = np.concatenate([share[name] for share in shares])
        np.testing.assert_array_equal(together, whole[name])


def test_clips_are_the_videos_frames(source):
    batch = stream(source, batch_size=2)[0]
    assert batch['clips'].shape == (2, 2, 4, 16, 16, 3) and batch['clips'].dtype == np.uint8
    for clips, record in zip(batch['clips'], batch['record'], strict=True):
        video = source[int(record)].frames(range(24))
        # Whole clips: of a motion that repeats, single frames do not tell where a clip starts.
        places = [[video[start + shift : start + shift + 8 : 2] for shift in (0, 8)] for start in range(24 - 16 + 1)]
        assert any(np.array_equal(place, clips) for place in places)


def test_worker_processes_and_threads_read_the_same(source):
    read = []
    for workers in (0, 2):
        with pipeline.iterate(stream(source)[1:], workers=workers) as batches:
            read.append([next(batches) for _ in range(3)])
    for a, b in zip(*read, strict=True):
        same(a, b)
    same(read[0][0], stream(source)[1])


def test_evaluation_reads_every_video_once_in_order(source):
    with pipeline.iterate(pipeline.evaluation_batches(
            source, clips_per_video=3, length=4, stride=1, batch_size=10, records=np.arange(48)), workers=0) as batches:
        batches = list(batches)
    assert [len(batch['record']) for batch in batches] == [10] * 5
    records = np.concatenate([batch['record'] for batch in batches])
    np.testing.assert_array_equal(records, [*range(48), 47, 47])  # the last batch is filled up
    np.testing.assert_array_equal(batches[0]['clips'][1, 1], source[1].frames([10, 11, 12, 13]))


def test_batches_outlive_the_process_that_made_them(source):
    """A reader that takes its time, such as one that compiles first: the workers have ended before the last batches."""
    batches = pipeline.evaluation_batches(
        source, clips_per_video=1, length=4, stride=1, batch_size=24, records=np.arange(48))
    with pipeline.iterate(batches, workers=2) as read:
        found = [next(read)]
        end = time.monotonic() + 60
        while multiprocessing.active_children() and time.monotonic() < end:
            time.sleep(0.05)
        assert not multiprocessing.active_children()
        found += read
    assert len(found) == 2
    for got, expected in zip(found, (batches[0], batches[1]), strict=True):
        same(got, expected)


def test_videos_of_several_sizes_stand_in_the_corner_of_one_canvas(source):
    clips = np.full((2, 1, 2, 20, 24, 3), 7, np.uint8)  # memory that was something else
    loaded = pipeline.load_clips(source, np.array([7, 2]), np.array([[[0, 1]], [[3, 3]]]), np.zeros((2, 2)), clips)
    assert loaded['clips'] is clips and loaded['size'].tolist() == [[16, 16]] * 2
    np.testing.assert_array_equal(loaded['clips'][0, 0, :, :16, :16], source[7].frames([0, 1]))
    np.testing.assert_array_equal(loaded['clips'][1, 0, :, :16, :16], source[2].frames([3, 3]))
    assert not loaded['clips'][..., 16:, :, :].any() and not loaded['clips'][..., 16:, :].any()
    assert loaded['record'].tolist() == [7, 2] and loaded['label'].tolist() == [7, 2]


def test_of_frames_larger_than_the_canvas_a_part_is_seen(source):
    loaded = pipeline.load_clips(
        source, np.array([7, 2]), np.array([[[0, 1]], [[3, 4]]]), np.array([[0, 1], [0.5, 0]]),
        np.empty((2, 1, 2, 10, 24, 3), np.uint8))
    assert loaded['size'].tolist() == [[10, 16]] * 2
    np.testing.assert_array_equal(loaded['clips'][0, 0, :, :, :16], source[7].frames([0, 1])[:, :10])
    np.testing.assert_array_equal(loaded['clips'][1, 0, :, :, :16], source[2].frames([3, 4])[:, 3:13])


class Shapes:
    """Of a source, the sizes of its videos alone."""

    def __init__(self, *sizes):
        self.sizes = np.concatenate([np.tile(size, (count, 1)) for count, size in sizes])


@pytest.mark.parametrize(('sizes', 'expected'), [
    ([(999, (128, 171)), (1, (128, 683))], (128, 171)),  # a panorama of 16:3
    ([(999, (128, 171)), (1, (128, 180))], (128, 180)),  # not worth it
    ([(95, (128, 171)), (5, (228, 128))], (228, 171)),  # not rare
    ([(50, (128, 171)), (1, (128, 683))], (128, 683)),  # one of few is not rare
    ([(990, (128, 171)), (5, (128, 683)), (5, (683, 128))], (128, 171)),
])
def test_rare_shapes_do_not_enlarge_every_batch(sizes, expected):
    source = Shapes(*sizes)
    everyone = np.arange(len(source.sizes))
    assert pipeline.bounded_canvas(source, everyone) == expected
    assert pipeline.canvas(source) == tuple(source.sizes.max(0))
    left_out = sum(count for count, size in sizes if (np.array(size) > expected).any())
    assert pipeline.describe_partly_seen(source, everyone) == (
        f'; {left_out} larger than {expected[0]}x{expected[1]}, seen in part' if left_out else '')


def test_clips_around_the_middle_frame_in_training_and_in_evaluation(source):
    stream = pipeline.training_stream(
        source, np.arange(len(source)), length=4, stride=2, placement='centre', batch_size=6, seed=0)
    evaluated = pipeline.keyframe_batches(source, length=4, stride=2, batch_size=2, records=np.array([3, 1]))[0]
    assert stream[0]['clips'].shape[:3] == (6, 1, 4) and evaluated['record'].tolist() == [3, 1]
    for batch in (stream[0], stream[9], evaluated):
        for clip, record in zip(batch['clips'][:, 0], batch['record'], strict=True):
            np.testing.assert_array_equal(clip, source[int(record)].frames([8, 10, 12, 14]))
    first_pass = np.concatenate([stream[i]['record'] for i in range(8)])
    np.testing.assert_array_equal(np.sort(first_pass), np.arange(48))


READ = '''
import sys
import subprocess
import sys

import numpy as np
from vididi_jax.data import pipeline
from vididi_jax.data.source import RecordSource

source = RecordSource(sys.argv[1], 'train')
stream = pipeline.training_stream(
    source, np.arange(len(source)), length=4, stride=1, placement='adjacent', batch_size=4, seed=0)
before = set(sys.modules)
with pipeline.iterate(stream, workers=0) as batches:
    next(batches)
print([name for name in set(sys.modules) - before if name.startswith(('tensorflow_datasets', 'cv2', 'vididi_jax'))])
'''


def test_reading_threads_import_nothing(tiny_motion, root):
    """The imports of tensorflow_datasets are lazy, and deadlock now and then when several threads trigger them."""
    done = subprocess.run([sys.executable, '-c', READ, tiny_motion], cwd=root, capture_output=True, text=True)
    assert done.stdout.strip() == '[]', done.stdout + done.stderr[-2000:]


def test_of_large_frames_random_parts_are_seen(tiny_motion, monkeypatch):
    monkeypatch.setattr(pipeline, 'bounded_canvas', lambda *_: (8, 8))
    source = RecordSource(tiny_motion, 'train')
    batches = pipeline.training_stream(
        source, np.array([3]), length=2, stride=1, placement='single', batch_size=1, seed=0)
    tops = set()
    video = source[3].frames(range(24))
    for number in range(12):
        clip = batches[number]['clips'][0, 0]
        tops |= {(y, x) for y in range(9) for x in range(9) for t in range(23)
                 if np.array_equal(video[t:t + 2, y:y + 8, x:x + 8], clip)}
    assert min(len({corner[axis] for corner in tops}) for axis in (0, 1)) > 3
    assert len({y - x for y, x in tops}) > 3  # neither place tells the other
    batches = pipeline.training_stream(
        source, np.array([3]), length=2, stride=1, placement='centre', batch_size=1, seed=0)
    np.testing.assert_array_equal(batches[0]['clips'][0, 0], video[11:13])  # whole frames: boxes lie anywhere
