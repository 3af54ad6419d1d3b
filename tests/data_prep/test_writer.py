"""Writing data sets: what TFDS reads, what is quarantined, and runs that were stopped."""

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from argparse import Namespace
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_prep import folder, motion
from data_prep.__main__ import build_parser, run
from data_prep.decode import broken
from data_prep.output import discard
from data_prep.writer import write_dataset
from tests.data_prep.videos import ramp, write_video
from vididi_jax.data import records
from vididi_jax.data.source import RecordSource
from vididi_jax.errors import UserError
from vididi_jax.lock import locked


def prepare(*arguments):
    run(build_parser().parse_args([str(a) for a in arguments]))


def manifest(out):
    return [json.loads(line) for line in (out / 'manifest.jsonl').read_text().splitlines()]


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
    """Six videos, one of them at the root, one with a name that is not UTF-8, one broken, and a text file."""
    root = tmp_path_factory.mktemp('videos')
    for i, name in enumerate(['walk/a.mp4', 'walk/b.avi', 'run/fast/c.mp4', 'd.mkv', os.fsdecode(b'run/caf\xe9.mp4')]):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        os.rename(write_video(root / f'new.{name[-3:]}', ramp(10 + i, seed=i)), root / name)
    (root / 'walk' / 'broken.mp4').write_bytes(b'not a video' * 50)
    (root / 'notes.txt').write_text('read me')
    return root


def test_folder_keeps_what_decodes_and_says_why_not(videos, tmp_path, capsys):
    out = tmp_path / 'out'
    prepare('folder', f'--videos={videos}', f'--out={out}', '--workers=1', '--short_side=32')
    rows = {row['id']: row for row in manifest(out)}
    assert {name: row['label'] for name, row in rows.items()} == {
        'd.mkv': '', 'run/caf\\xe9.mp4': 'run', 'run/fast/c.mp4': 'run/fast',
        'walk/a.mp4': 'walk', 'walk/b.avi': 'walk',
        'walk/broken.mp4': 'walk'}
    assert {name: row['frames'] for name, row in rows.items() if row['status'] == 'ok'} == {
        'walk/a.mp4': 10, 'walk/b.avi': 11, 'run/fast/c.mp4': 12, 'd.mkv': 13, 'run/caf\\xe9.mp4': 14}
    assert rows['walk/broken.mp4']['status'] == 'broken' and rows['walk/broken.mp4']['reason']
    assert list(rows['walk/a.mp4']) == ['id', 'path', 'label', 'group', 'split', 'frames', 'fps', 'width', 'height',
                                        'status', 'reason']
    printed = capsys.readouterr().out
    assert '6 video files' in printed and '1 other files' in printed and '1 broken' in printed
    source = RecordSource(out, 'train')
    assert [source.label_names[source[i].label] for i in range(5)] == [row['label'] for row in source.rows]


def test_tfds_reads_what_is_written(videos, tiny_motion, tmp_path):
    """Splits, sizes and label names; and a record parsed by TFDS's own parser."""
    import tensorflow_datasets as tfds

    out = tmp_path / 'out'
    prepare('folder', f'--videos={videos}', f'--out={out}', '--workers=1', '--short_side=32')
    info = tfds.builder_from_directory(str(out)).info
    assert {name: split.num_examples for name, split in info.splits.items()} == {'train': 5}
    assert info.features['label'].names == ['.', 'run', 'run/fast', 'walk']
    info = tfds.builder_from_directory(str(tiny_motion)).info
    assert {name: split.num_examples for name, split in info.splits.items()} == {'train': 48, 'test': 16}
    shard = (tiny_motion / 'motion-test.tfrecord-00000-of-00001').read_bytes()
    offset = int(np.load(tiny_motion / 'motion-test.index.npy')['offset'][3])
    example = info.features.deserialize_example_np(records.read_record(shard, offset))
    mine = RecordSource(tiny_motion, 'test')[3]
    np.testing.assert_array_equal(example['frames'], mine.frames(range(24)))
    assert (example['id'].decode(), example['label'], example['num_frames']) == (mine.row['id'], mine.label, 24)


def test_a_complete_data_set_is_not_written_twice_nor_over(videos, tmp_path, capsys):
    out = tmp_path / 'out'
    command = ('folder', f'--videos={videos}', f'--out={out}', '--workers=1')
    prepare(*command, '--short_side=32')
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    prepare(*command, '--short_side=32')
    assert 'complete already' in capsys.readouterr().out
    with pytest.raises(UserError, match='other options'):
        prepare(*command, '--short_side=48')
    assert before == {path: path.stat().st_mtime_ns for path in out.iterdir()}


def test_other_labels_and_other_missing_videos_are_another_data_set(tmp_path):
    plan, decode = small_motion()
    write_dataset(plan, decode, tmp_path, workers=1)
    first, second, *others = plan.videos
    swapped = replace(first, label=second.label), replace(second, label=first.label), *others
    for other in (replace(plan, videos=swapped), replace(plan, missing=(replace(first, id='gone'),))):
        with pytest.raises(UserError, match='holds a data set of other videos'):
            write_dataset(other, decode, tmp_path, workers=1)


def test_another_folders_contents_are_never_touched(videos, tmp_path):
    (tmp_path / 'thesis.tex').write_text('x')
    with pytest.raises(UserError, match='not empty'):
        prepare('folder', f'--videos={videos}', f'--out={tmp_path}', '--workers=1')
    with pytest.raises(UserError, match='is a file'):
        prepare('folder', f'--videos={videos}', f'--out={tmp_path / "thesis.tex"}', '--workers=1')
    assert [path.name for path in tmp_path.iterdir()] == ['thesis.tex']
    downloads = tmp_path / 'downloads' / 'incomplete'
    downloads.mkdir(parents=True)
    for name in ('film.mkv', 'film.tmp'):
        (downloads / name).write_text('x')
        with pytest.raises(UserError, match='not empty and was not written by this command: choose another --out'):
            prepare('folder', f'--videos={videos}', f'--out={downloads.parent}', '--workers=1')
        (downloads / name).unlink()  # which raises if it has gone


def test_what_a_command_leaves_that_was_killed_before_its_plan_is_its_own(tmp_path):
    with locked(tmp_path / 'out' / 'incomplete', ''):
        (tmp_path / 'out' / 'incomplete' / f'plan.json.{8 * "a"}.tmp').touch()
    write_dataset(*small_motion(), tmp_path / 'out', workers=1)
    assert not (tmp_path / 'out' / 'incomplete').exists()


def test_where_nothing_decodes_nothing_stays(tmp_path):
    root, out = tmp_path / 'videos', tmp_path / 'out'
    root.mkdir()
    (root / 'a.mp4').write_bytes(b'not a video' * 50)
    command = ('folder', f'--videos={root}', f'--out={out}', '--workers=1', '--short_side=32')
    with pytest.raises(UserError, match='none of the 1 videos can be decoded; the first one: a.mp4: decoding failed'):
        prepare(*command)
    write_video(root / 'a.mp4', ramp())
    prepare(*command)
    assert len(RecordSource(out, 'train')) == 1


@pytest.mark.parametrize(('arguments', 'message'), [
    (('folder', '--videos=nowhere', '--out=x'), 'nowhere'),
    (('folder', '--videos=.', '--out=x', '--workers=0'), 'workers'),
    (('folder', '--videos=.', '--out=x', '--short_side=0'), 'short_side'),
    (('motion', '--out=x', '--train=0'), '--train'),
    (('motion', '--out=x', '--seed=-1'), '--seed'),
])
def test_wrong_arguments_are_one_sentence(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        prepare(*arguments)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_keeps_what_is_open_gets_a_whole_data_set(tmp_path, monkeypatch, tiny_motion):
    """As NFS does: a file that is deleted while it is open stays, by another name, and so does its folder."""
    def rmdir(path, *, dir_fd=None, rmdir=os.rmdir):
        opened = (os.readlink(link) for link in Path('/proc/self/fd').iterdir() if link.is_symlink())
        if any(name.endswith('incomplete/lock (deleted)') for name in opened):
            raise OSError(errno.ENOTEMPTY, 'Directory not empty', str(path))
        rmdir(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, 'rmdir', rmdir)
    prepare('motion', f'--out={tmp_path / "out"}', '--train=8', '--test=8', '--frames=4', '--size=8', '--workers=1')
    assert len(RecordSource(tmp_path / 'out', 'train')) == 8 and not (tmp_path / 'out' / 'incomplete').exists()


def test_a_killed_run_goes_on_and_writes_the_same_bytes(tmp_path, root, tiny_motion):
    """SIGKILL after the first shards; its decoding processes end with it."""
    options = ['--train=512', '--test=64', '--frames=24', '--size=32', '--workers=2']
    command = [sys.executable, '-m', 'data_prep', 'motion', *options]
    process = subprocess.Popen([*command, f'--out={tmp_path / "killed"}'], cwd=root, stderr=subprocess.DEVNULL)
    incomplete = tmp_path / 'killed' / 'incomplete'
    while not list(incomplete.glob('*.part')):
        assert process.poll() is None
        time.sleep(0.01)
    tasks = Path(f'/proc/{process.pid}/task')
    children = [child for file in tasks.glob('*/children') for child in file.read_text().split()]
    process.send_signal(signal.SIGKILL)
    process.wait()
    with pytest.raises(UserError, match='not a prepared data set'):
        RecordSource(tmp_path / 'killed', 'train')
    done = subprocess.run([*command, f'--out={tmp_path / "killed"}'], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0 and 'going on after' in done.stdout
    arguments = Namespace(train=512, test=64, frames=24, size=32, seed=0)
    write_dataset(*motion.plan(arguments), tmp_path / 'whole', workers=1)
    files = {path.name for path in (tmp_path / 'whole').iterdir()}
    assert files == {path.name for path in (tmp_path / 'killed').iterdir()}
    assert all((tmp_path / 'whole' / name).read_bytes() == (tmp_path / 'killed' / name).read_bytes()
               for name in files)
    assert children and not any(os.path.exists(f'/proc/{child}') for child in children)


def small_motion(shards=1):
    """A plan of 64 videos of 512 bytes a shard and two test videos, and how they are made."""
    return motion.plan(Namespace(train=64 * shards, test=2, frames=2, size=8, seed=0))


def same_files(one, other):
    return {path.name: path.read_bytes() for path in one.iterdir()} == {
        path.name: path.read_bytes() for path in other.iterdir()}


def test_a_disk_that_fills_up_is_one_sentence_and_the_run_goes_on(tmp_path, capsys):
    """Here a limit on the size of files: below that of the plan, of the manifest, of the index, and of the shard."""
    write_dataset(*small_motion(), tmp_path / 'whole', workers=1)
    names = 'plan.json', 'manifest.jsonl', 'motion-train.index.npy', 'motion-train.tfrecord-00000-of-00001'
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for name in names:
        size = (tmp_path / 'whole' / name).stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1, hard))
        try:
            with pytest.raises(UserError, match=r'cannot write to .*out .* the same command goes on from here'):
                write_dataset(*small_motion(), tmp_path / 'out', workers=1)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    write_dataset(*small_motion(), tmp_path / 'out', workers=1)
    assert same_files(tmp_path / 'out', tmp_path / 'whole')


def test_one_command_at_a_time_writes_a_data_set(tmp_path):
    out = tmp_path / 'out'
    with locked(out / 'incomplete', 'choose another'), pytest.raises(UserError, match='in use by .* another --out'):
        write_dataset(*small_motion(), out, workers=1)
    write_dataset(*small_motion(), out, workers=1)
    assert RecordSource(out, 'train') and not (out / 'incomplete').exists()


def test_a_second_command_that_finds_it_complete_does_not_stop_the_first(tmp_path, monkeypatch):
    """At its very end both of them delete what the first has left in OUT/incomplete."""
    folder = tmp_path / 'incomplete'
    (folder / 'scratch').mkdir(parents=True)
    (folder / 'plan.json').touch()
    listed = list(folder.iterdir())
    shutil.rmtree(folder)
    discard(tmp_path)
    monkeypatch.setattr(Path, 'iterdir', lambda self: iter(listed))  # asked before they went
    discard(tmp_path)


def test_a_split_of_which_all_videos_are_missing_is_counted_and_named(videos, tmp_path, capsys):
    (tmp_path / 'list.csv').write_text('path,split\nd.mkv,train\nx.mkv,test\ny.mkv,test\n')
    for _ in range(2):
        prepare('folder', f'--videos={videos}', f'--list={tmp_path / "list.csv"}', f'--out={tmp_path / "out"}',
                '--workers=1', '--short_side=16', '--allow_missing')
    assert 'is complete already' in (printed := capsys.readouterr().out)
    assert printed.count('test: 0 videos (0 frames) of 2 listed; 2 missing, 0 broken') == 2 and 'x.mkv' not in printed
    counts = json.loads((tmp_path / 'out' / 'counts.json').read_bytes())
    assert counts['test'] == {'listed': 2, 'ok': 0, 'missing': 2, 'broken': 0}
    assert RecordSource(tmp_path / 'out', 'train').counts == counts['train']
    prepare('verify', tmp_path / 'out')
    with pytest.raises(UserError, match="split 'test' of .* has none of its 2 listed videos, which were all missing"):
        RecordSource(tmp_path / 'out', 'test')
    with pytest.raises(UserError, match="has no split 'val': it has train[.]"):
        RecordSource(tmp_path / 'out', 'val')


def test_labels_are_not_gone_through_for_each_video(tmp_path):
    """Of folders that each hold one video there are as many as videos."""
    class Names(tuple):
        def index(self, *_):
            raise AssertionError

    plan, decode = small_motion()
    labels = Names(reversed(plan.label_names))
    write_dataset(replace(plan, label_names=labels), decode, tmp_path, workers=1)
    source = RecordSource(tmp_path, 'train')
    assert [labels[number] for number in source.labels] == [video.label for video in plan.videos][:len(source)]


def decode_the_first(video, *, decode, count):
    return decode(video) if video.path < f'train/{count:05d}' else broken('lost')


def test_a_shard_without_a_record_is_one_of_the_data_set(tmp_path):
    """A split's last 64 videos are broken: TFDS finds its shards by how many there are."""
    import tensorflow_datasets as tfds

    plan, decode = small_motion(shards=2)
    write_dataset(plan, partial(decode_the_first, decode=decode, count=64), tmp_path, workers=1)
    assert len(RecordSource(tmp_path, 'train')) == 64
    split = tfds.builder_from_directory(str(tmp_path)).info.splits['train']
    assert split.shard_lengths == [64, 0]
    assert split.num_bytes == sum(path.stat().st_size for path in tmp_path.glob('*-train.tfrecord-*'))


class Stop(Exception):
    pass


def decode_some(video, *, decode):
    if video.id == 'motion_train_00070':
        raise Stop
    return decode(video)


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path):
    os.truncate(path, 100)


@pytest.mark.parametrize('file', ['motion-train.tfrecord-00000-of-00002', 'incomplete/train-00000.part',
                                  'incomplete/train-00000.frames'])
@pytest.mark.parametrize('harm', [flip, cut, Path.unlink])
def test_what_a_stopped_run_has_written_is_read_again(tmp_path, capsys, file, harm):
    """And written again where it is damaged."""
    plan, decode = small_motion(shards=2)
    for out in (tmp_path / 'kept', tmp_path / 'harmed'):
        with pytest.raises(Stop):
            write_dataset(plan, partial(decode_some, decode=decode), out, workers=1)
        assert not (out / 'motion-train.tfrecord-00001-of-00002').exists()  # files appear whole
    harm(tmp_path / 'harmed' / file)
    capsys.readouterr()
    write_dataset(plan, decode, tmp_path / 'harmed', workers=1)
    printed = capsys.readouterr().out
    without_part = harm is Path.unlink and file.endswith('part')  # as if the run had been stopped before
    assert 'going on' not in printed and ('00000-of-00002 is damaged' in printed) != without_part
    write_dataset(plan, decode, tmp_path / 'kept', workers=1)
    assert 'going on after 64 of 130' in capsys.readouterr().out
    assert same_files(tmp_path / 'kept', tmp_path / 'harmed')


def test_a_damaged_data_set_is_not_called_complete(tmp_path, capsys):
    """Whatever is damaged, what the command wrote is not written over: the user deletes it."""
    write_dataset(*small_motion(), tmp_path / 'whole', workers=1)
    harms = {'manifest.jsonl': flip, 'plan.json': flip, 'features.json': cut, 'label.labels.txt': Path.unlink,
             'motion-train.tfrecord-00000-of-00001': cut, 'motion-train.index.npy': flip, 'counts.json': flip,
             'motion-train.frames.npy': cut, 'SHA256SUMS': Path.unlink}
    capsys.readouterr()
    for name, harm in harms.items():
        out = shutil.copytree(tmp_path / 'whole', tmp_path / name)
        harm(out / name)
        before = {path.name: path.read_bytes() for path in out.iterdir()}
        with pytest.raises(UserError, match='delete'):
            write_dataset(*small_motion(), out, workers=1)
        assert before == {path.name: path.read_bytes() for path in out.iterdir()}
    assert 'complete' not in capsys.readouterr().out


def test_a_damaged_plan_of_a_stopped_run_is_one_sentence(tmp_path):
    plan, decode = small_motion(shards=2)
    with pytest.raises(Stop):
        write_dataset(plan, partial(decode_some, decode=decode), tmp_path / 'out', workers=1)
    cut(tmp_path / 'out' / 'incomplete' / 'plan.json')
    with pytest.raises(UserError, match=r'incomplete/plan.json cannot be read .*: delete'):
        write_dataset(plan, decode, tmp_path / 'out', workers=1)


@pytest.mark.realdata
def test_real_files_of_every_kind_pass_through_folder(vididi_data, tmp_path):
    """Rotated, out of order, corrupt, with metadata that is not UTF-8: each decodes to its count or is quarantined."""
    import csv

    with open(vididi_data / 'manifest.csv') as file:
        known = {row['path']: row['decoded_frames'] for row in csv.DictReader(file)}
    wanted = [path for path in known if path.startswith(('misc/rotation', 'corrupt', 'hmdb51/cartwheel'))]
    for path in wanted:
        (tmp_path / 'videos' / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / 'videos' / path).symlink_to((vididi_data / path).resolve())
    plan, decode = folder.plan_folder(tmp_path / 'videos', short_side=32, encoding='raw')
    rows = {row['path']: row for row in write_dataset(plan, decode, tmp_path / 'out', workers=1)}
    assert sorted(rows) == sorted(wanted) and len(wanted) >= 7
    assert rows.pop('corrupt/decord_corrupted.mp4')['reason'].startswith('decoding failed after')
    assert all(row['status'] == 'ok' and str(row['frames']) == known[path] for path, row in rows.items())
    source = RecordSource(tmp_path / 'out', 'train')
    for i, row in enumerate(source.rows):
        if 'rotation' in row['path']:  # OpenCV turns frames upright too
            _, frame = cv2.VideoCapture(str(vididi_data / row['path'])).read()
            expected = cv2.resize(frame[..., ::-1], (row['width'], row['height']), interpolation=cv2.INTER_AREA)
            assert np.abs(source[i].frames([0])[0].astype(float) - expected).mean() < 5


def test_groups_come_from_file_names(tmp_path):
    for name in ('run/ann_run.mp4', 'walk/ann_walk.mp4', 'walk/bob_walk.mp4'):
        write_video(tmp_path / 'videos' / name, ramp())
    make = partial(folder.plan_folder, tmp_path / 'videos', short_side=32, encoding='jpeg')
    plan, _ = make(group='^([a-z]+)_')
    assert [video.group for video in plan.videos] == ['ann', 'ann', 'bob']
    cases = (('^([0-9]+)_', 'does not match run/ann_run.mp4'), ('^[a-z]', 'brackets'), ('(', 'brackets'))
    for pattern, message in cases:
        with pytest.raises(UserError, match=message):
            make(group=pattern)
