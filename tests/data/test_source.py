"""Opening a data set: what is known of it, and every way in which it can be broken."""

import dataclasses
import os
import pickle
import resource
import shutil
import subprocess
from argparse import Namespace

import numpy as np
import pytest

from data_prep import motion, verify
from data_prep.writer import write_dataset
from tests.data_sets import edit_manifest, edit_rows, seal
from vididi_jax.data import records
from vididi_jax.data.source import RecordSource
from vididi_jax.errors import UserError


@pytest.fixture
def copy(tiny_motion, tmp_path):
    return shutil.copytree(tiny_motion, tmp_path / 'data')


def shard(directory):
    return directory / 'motion-train.tfrecord-00000-of-00001'


def test_what_is_known_without_reading_records(tiny_motion):
    source = RecordSource(tiny_motion, 'train')
    assert len(source) == 48 and source.name == 'motion' and len(source.label_names) == 8
    assert source.counts == {'listed': 48, 'ok': 48, 'missing': 0, 'broken': 0}
    assert [row['id'] for row in source.rows] == [f'motion_train_{i:05}' for i in range(48)]
    assert source.rows[-1] == source.rows[47] and source[5].row == source.rows[5]
    for name, column in (('frames', source.num_frames), ('height', source.sizes[:, 0]), ('width', source.sizes[:, 1])):
        assert column.tolist() == [row[name] for row in source.rows]
    assert [source.label_names[label] for label in source.labels] == [row['label'] for row in source.rows]


def test_workers_get_a_name_and_not_the_columns(tiny_motion):
    source = RecordSource(tiny_motion, 'train')
    sent = pickle.dumps(source)
    assert len(sent) < 5_000
    np.testing.assert_array_equal(pickle.loads(sent)[5].frames([3]), source[5].frames([3]))


def test_the_fingerprint_follows_the_data_and_not_its_place(tiny_motion, copy):
    fingerprint = RecordSource(tiny_motion, 'train').fingerprint
    assert RecordSource(copy, 'train').fingerprint == fingerprint
    for name, old, new in (('plan.json', '"root": ""', '"root": "/videos"'), ('plan.json', '"left"', '"right"'),
                           ('manifest.jsonl', 'ok', 'missing'), ('label.labels.txt', 'left', 'back'),
                           ('features.json', 'float32', 'float64'), ('dataset_info.json', 'Decoded', 'Encoded')):
        before = (copy / name).read_text()
        (copy / name).write_text(before.replace(old, new, 1))
        seal(copy)
        try:
            assert (RecordSource(copy, 'test').fingerprint == fingerprint) == ('root' in old)
        finally:
            (copy / name).write_text(before)


def test_other_pixels_are_other_data(tmp_path):
    """Raw records of two seeds differ in nothing but their pixels: neither index nor manifest has them."""
    one, two = (tmp_path / str(seed) for seed in (0, 1))
    for seed, out in enumerate((one, two)):
        arguments = Namespace(train=4, test=4, frames=4, size=8, seed=seed)
        write_dataset(*motion.plan(arguments), out, workers=1)
    sources = [RecordSource(out, 'train') for out in (one, two)]
    assert sources[0].rows == sources[1].rows and sources[0].fingerprint != sources[1].fingerprint
    shutil.copy(shard(two), one)
    with pytest.raises(UserError, match='offset .* the checksum of frame 1 is wrong; run .* verify'):
        sources[0][2].frames([1])
    with pytest.raises(UserError, match='not the one that the index was written for'):
        verify.verify(str(one))


def test_the_fingerprint_of_a_split_follows_its_own_videos_labels_and_class_names(tmp_path):
    plan, decode = motion.plan(Namespace(train=4, test=4, frames=2, size=8, seed=0))
    first, second, *others = plan.videos
    plans = {
        'same': plan, 'fewer test videos': dataclasses.replace(plan, videos=plan.videos[:-1]),
        'labels': dataclasses.replace(plan, videos=(dataclasses.replace(first, label=second.label),
                                                    dataclasses.replace(second, label=first.label), *others)),
        'class names': dataclasses.replace(plan, label_names=tuple(f'to {name}' for name in plan.label_names), videos=[
            dataclasses.replace(video, label=f'to {video.label}') for video in plan.videos])}
    found = {}
    for name, each in plans.items():
        write_dataset(each, decode, tmp_path / name, workers=1)
        source = RecordSource(tmp_path / name, 'train')
        found[name] = source.fingerprint, source.split_fingerprint
    whole, split = ([prints[i] for prints in found.values()] for i in (0, 1))
    assert len(set(whole)) == 4
    assert split[0] == split[1] and len(set(split)) == 3


def edit_index(directory, change):
    path = directory / 'motion-train.index.npy'
    np.save(path, change(np.load(path)))


def altered(**columns):
    """Other values in the columns of a row of the index."""
    def change(index):
        for name, value in columns.items():
            index[name][3] = value
        return index

    return lambda directory: edit_index(directory, change)


def replace(name, old, new):
    def harm(directory):
        text = (directory / name).read_bytes()
        assert old in text
        (directory / name).write_bytes(text.replace(old, new, 1))

    return harm


def cut(name, length):
    return lambda directory: os.truncate(directory / name, length)


DAMAGE = {  # of files that have checksums
    'truncated shard': (lambda d: os.truncate(shard(d), 99), 'has 99 bytes instead of'),
    'missing shard': (lambda d: shard(d).unlink(), 'is missing'),
    'labels cut': (cut('label.labels.txt', 20), 'label.labels.txt is not what was written'),
    'missing labels': (lambda d: (d / 'label.labels.txt').unlink(), 'label.labels.txt is missing'),
    'another width': (replace('manifest.jsonl', b'"width": 16', b'"width": 32'), 'manifest.jsonl is not what'),
    'another path': (replace('manifest.jsonl', b'train/00000', b'train/00001'), 'manifest.jsonl is not what'),
    'cut table of frames': (lambda d: os.truncate(d / 'motion-train.frames.npy', 999), 'frames.npy cannot be read'),
    'other counts': (replace('counts.json', b'48', b'49'), 'counts.json is not what'),
    'missing manifest': (lambda d: (d / 'manifest.jsonl').unlink(), 'manifest.jsonl is missing'),
    "bit in an index's header": (replace('motion-train.index.npy', b'descr', b'dascr'), 'train.index.npy is not what'),
    'a folder for an index': (lambda d: ((d / 'motion-train.index.npy').unlink(),
                                         (d / 'motion-train.index.npy').mkdir()), 'index.npy is missing'),
    'other features': (replace('features.json', b'uint8', b'uint9'), 'features.json is not what'),
    'another plan': (replace('plan.json', b'"seed": 0', b'"seed": 1'), 'plan.json is not what'),
    'broken description': (cut('dataset_info.json', 0), 'dataset_info.json is not what'),
    'checksums cut': (cut('SHA256SUMS', 100), 'SHA256SUMS is damaged'),
    'checksums of fewer files': (replace('SHA256SUMS', b'  features.json', b'  manifest.json'), 'damaged'),
    'no checksums, as there once were': (lambda d: (d / 'SHA256SUMS').unlink(), 'older version.*prepare it again'),
}
SEALED = {  # and of files whose checksums were written anew
    'data set without a video': (lambda d: edit_rows(d, lambda i, row: row if i else None), '47 videos'),
    'counts that do not add up': (replace('counts.json', b'48', b'49'), 'counts.json cannot be read.*add up'),
    'index without a row': (lambda d: edit_index(d, lambda x: x[:-1]), '47 in the index'),
    'index of another shape': (lambda d: edit_index(d, lambda x: x[:, None]), r'npy cannot be read.*\(48, 1\)'),
    'index of floats': (lambda d: edit_index(d, lambda x: x['offset'] / 2), 'index.npy cannot be read.*float64'),
    'index of other classes': (altered(label=8), 'index of split .train. does not fit the labels'),
    'frames of another split': (lambda d: shutil.copy(d / 'motion-test.frames.npy', d / 'motion-train.frames.npy'),
                                'does not fit .*frames.npy'),
    'index without a header': (lambda d: (d / 'motion-train.index.npy').write_bytes(b'x'), 'index.npy cannot be read'),
    'labels that are no text': (lambda d: (d / 'label.labels.txt').write_bytes(b'\xff'), 'labels.txt cannot be read'),
    'empty description': (lambda d: (d / 'dataset_info.json').write_text('{}'), 'dataset_info.json cannot be read'),
    'plan of another format': (replace('plan.json', b'"format": 4', b'"format": 9'), 'plan.json cannot be.*format'),
    'store that is no text': (replace('plan.json', b'"files"', b'"store": 5, "store_fingerprint": "x", "files"'),
                              'plan.json cannot be read.*its store is no text'),
    'fewer than none': (replace('counts.json', b'"missing": 0, "broken": 0', b'"missing": -3, "broken": 3'),
                        'counts.json cannot be read.*no counts of videos'),
    'frames of 3 TB': (altered(height=2**20, width=2**20), 'frames of 1,099,511,627,776 pixels, and those of at most'),
    'frames of as many pixels as can be': (altered(height=2**31 - 1, width=2**31 - 1), 'those of at most'),
    'a file less': (lambda d: (d / 'features.json').unlink(), 'SHA256SUMS does not list features.json'),
}


@pytest.mark.parametrize('damage', [*DAMAGE, *SEALED])
def test_damage_is_named_on_opening(copy, damage):
    harm, message = (DAMAGE | SEALED)[damage]
    harm(copy)
    if damage in SEALED:
        seal(copy)
    for check in (lambda: RecordSource(copy, 'train'), lambda: verify.verify(str(copy))):
        with pytest.raises(UserError, match=message):
            check()


def test_what_is_not_finished_is_no_data_set(copy):
    (copy / 'incomplete').mkdir()
    (copy / 'SHA256SUMS').unlink()
    with pytest.raises(UserError, match='not a prepared data set.*finish'):
        RecordSource(copy, 'train')


def test_videos_with_their_checksums_are_no_data_set_and_not_to_be_deleted(tmp_path):
    for content in (f'{64 * "0"}  a.avi\n', 'd41d8cd9  *b.avi\r\n'):
        (tmp_path / 'SHA256SUMS').write_text(content, encoding='utf-8')
        with pytest.raises(UserError, match='not a prepared data set .its SHA256SUMS is of other files') as stopped:
            RecordSource(tmp_path, 'train')
        assert 'delete' not in str(stopped.value)


def test_a_data_set_without_a_split_is_damaged(copy):
    (copy / 'counts.json').write_text('{}')
    seal(copy)
    for check in (lambda: RecordSource(copy, 'train'), lambda: verify.verify(str(copy))):
        with pytest.raises(UserError, match='counts.json .*it has no split'):
            check()


def test_files_that_are_not_of_the_data_set_are_named_by_verify(copy):
    """Nothing reads them."""
    fingerprint = RecordSource(copy, 'train').fingerprint
    for name in ('boxes_test.csv', 'notes.txt'):
        (copy / name).write_text('x')
    assert RecordSource(copy, 'train').fingerprint == fingerprint
    with pytest.raises(UserError, match=r'boxes_test.csv is no file of the data set: .* \(1 more files are wrong\)'):
        verify.verify(str(copy))


def test_sha256sum_checks_it_too(copy):
    command = ['sha256sum', '--check', '--strict', '--quiet', 'SHA256SUMS']
    assert subprocess.run(command, cwd=copy).returncode == 0
    flip(shard(copy), 5_000)
    assert subprocess.run(command, cwd=copy, capture_output=True).returncode == 1


def flip(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def test_a_flipped_bit_is_named_on_reading_and_by_verify(copy):
    record = np.load(copy / 'motion-train.index.npy')[7]
    frame = np.load(copy / 'motion-train.frames.npy')[record['first'] + 9]
    flip(shard(copy), frame['offset'] + 50)
    source = RecordSource(copy, 'train')
    assert source[6].frames([9]).any() and source[7].frames([8, 10]).any()
    with pytest.raises(UserError, match=f'offset {frame["offset"]}: the checksum of frame 9 is wrong; run .* verify'):
        source[7].frames([8, 9])
    with pytest.raises(UserError, match=f'offset {record["offset"]}: the checksum of a record is wrong: copy it again'):
        verify.verify(str(copy))


def test_a_flipped_bit_in_the_table_of_frames_is_named_on_reading_and_by_verify(copy):
    path = copy / 'motion-train.frames.npy'
    flip(path, np.load(path, mmap_mode='r').offset + 24 * records.FRAME.itemsize * 7 + 3)
    source = RecordSource(copy, 'train')
    assert source[6].frames([9]).any()
    with pytest.raises(UserError, match='frames.npy, .* of the frames of record 7 is wrong; run .* verify'):
        source[7].frames([9])
    with pytest.raises(UserError, match='motion-train.frames.npy is not what was written'):
        verify.verify(str(copy))


def test_verify_counts_every_record(tiny_motion, capsys):
    verify.verify(str(tiny_motion))
    assert 'train: 48 records of 48 listed' in capsys.readouterr().out


@pytest.mark.parametrize('change', [
    {'frames': 23}, {'width': 15}, {'label': 'pulsing'}, {'status': 'broken'}, {'more': 1}])
def test_a_line_that_is_of_another_video_than_the_index_has_is_refused(copy, change):
    """Where the checksums are right, because somebody has written them anew."""
    old, new, _ = edit_manifest(copy, lambda i, row: row | change if i == 3 else row)
    seal(copy)
    source = RecordSource(copy, 'train')
    assert source.rows[2]['id'] == 'motion_train_00002'
    with pytest.raises(UserError, match='line at byte .* no row of record 3'):
        source.rows[3]
    if len(old[3]) != len(new[3]):
        with pytest.raises(UserError, match='no row of record 4'):
            source.rows[4]


def test_frames_that_are_none_are_one_sentence(copy):
    """Their own checksums, that of the index and that of the file are right."""
    path = copy / 'motion-train.frames.npy'
    index, table = np.load(copy / 'motion-train.index.npy'), np.load(path)
    table['length'][:24] -= 1
    with shard(copy).open('rb') as file:
        for frame in table[:24]:
            file.seek(frame['offset'])
            frame['crc'] = records.masked_crc(file.read(frame['length']))
    index['frames_crc'][0] = records.masked_crc(table[:24].tobytes())
    np.save(path, table)
    np.save(copy / 'motion-train.index.npy', index)
    seal(copy)
    with pytest.raises(UserError, match='offset .*run `python -m data_prep verify'):
        RecordSource(copy, 'train')[0].frames([2])


def test_jpegs_are_held_against_their_checksums(tmp_path):
    """A decoder takes them with a flipped bit, and shows something else; one that is asked for twice is there twice."""
    plan, decode = motion.plan(Namespace(train=4, test=4, frames=4, size=32, seed=0))

    def decode_jpeg(video):
        decoded = decode(video)
        pixels = (np.frombuffer(frame, np.uint8).reshape(32, 32, 3) for frame in decoded.frames)
        return decoded._replace(frames=[records.encode_frame(frame, 'jpeg') for frame in pixels])

    write_dataset(dataclasses.replace(plan, encoding='jpeg'), decode_jpeg, tmp_path, workers=1)
    record = RecordSource(tmp_path, 'train')[1]
    whole = record.frames([2, 0, 2])
    np.testing.assert_array_equal(whole, np.stack([record.frames([i])[0] for i in (2, 0, 2)]))
    frame = np.load(tmp_path / 'motion-train.frames.npy')[4 + 2]
    flip(shard(tmp_path), frame['offset'] + frame['length'] // 2)
    assert record.frames([0]).any()
    with pytest.raises(UserError, match='the checksum of frame 2 is wrong'):
        record.frames([2])


def test_reading_reads_the_frames_asked_for_and_nothing_else(copy):
    """The rest of the record, its own framing and checksum among it, may be anything."""
    index, table = (np.load(copy / f'motion-train.{name}.npy') for name in ('index', 'frames'))
    expected = RecordSource(copy, 'train')[5].frames([20, 3, 20])
    wanted = table[index['first'][5] + np.array([3, 20])]
    data = bytearray(np.random.default_rng(0).bytes(shard(copy).stat().st_size))
    whole = shard(copy).read_bytes()
    for offset, length, _ in wanted.tolist():
        data[offset : offset + length] = whole[offset : offset + length]
    shard(copy).write_bytes(data)
    np.testing.assert_array_equal(RecordSource(copy, 'train')[5].frames([20, 3, 20]), expected)


def test_more_records_are_read_than_files_may_be_open(tiny_motion):
    source = RecordSource(tiny_motion, 'train')
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir('/proc/self/fd')) + 10, limits[1]))
    try:
        kept = [source[i].frames([0]) for i in range(48)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert len({frames.tobytes() for frames in kept}) == 48
