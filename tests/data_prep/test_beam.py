"""Shards written by Apache Beam: the same bytes as without it. What needs Beam itself is deselected where it is not."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from data_prep import beam, folder, shards
from data_prep.__main__ import build_parser, main, run
from data_prep.output import TEMPORARY
from data_prep.writer import write_dataset
from tests.data_prep.test_writer import cut, manifest, same_files, small_motion
from tests.data_prep.videos import ramp, write_video
from vididi_jax.errors import UserError

ONE = '--runner=DirectRunner', '--beam_options='
TWO = '--runner=DirectRunner', '--beam_options=--direct_running_mode=multi_processing --direct_num_workers=2'


@pytest.fixture
def videos(tmp_path, monkeypatch):
    """Nine videos, two a shard: two splits, one broken, one cut, one with a name that is not UTF-8."""
    monkeypatch.setattr('data_prep.plan.VIDEOS_PER_SHARD', 2)
    names = [f'train/{label}/{i}.mp4' for label in ('run', 'walk') for i in range(3)] + ['val/run/a.mkv']
    for i, name in enumerate((*names, os.fsdecode(b'train/run/caf\xe9.mp4'))):
        path = write_video(tmp_path / 'new' / f'{i}{name[-4:]}', ramp(6 + i, seed=i))
        (tmp_path / 'videos' / name).parent.mkdir(parents=True, exist_ok=True)
        os.rename(path, tmp_path / 'videos' / name)
    (tmp_path / 'videos' / 'val' / 'run' / 'broken.mp4').write_bytes(b'not a video' * 50)
    cut(tmp_path / 'videos' / 'train' / 'walk' / '1.mp4')
    return tmp_path / 'videos'


def command(videos, *more):
    return ['folder', f'--videos={videos}', '--split_by_dir', '--short_side=32', *map(str, more)]


def prepare(*arguments):
    run(build_parser().parse_args(arguments))


@pytest.mark.beam
def test_the_bytes_do_not_depend_on_who_writes(videos, tmp_path, monkeypatch):
    ways = {'local1': ['--workers=1'], 'local4': ['--workers=4'], 'beam1': ONE, 'beam2': TWO}
    monkeypatch.chdir(videos.parent)  # where the workers of a pipeline need not be
    monkeypatch.setenv('PYTHONPATH', str(Path(beam.__file__).parents[1]))
    for name, way in ways.items():
        prepare(*command(videos.name, f'--out={name}', *way))
    rows = {row['id']: row for row in manifest(tmp_path / 'beam2')}
    assert len(rows) == 9 and [name for name, row in rows.items() if row['status'] == 'broken'] == [
        'train/walk/1.mp4', 'val/run/broken.mp4']
    assert rows['val/run/broken.mp4']['reason'].startswith('decoding failed')
    assert len(list((tmp_path / 'beam2').glob('*.tfrecord-*'))) == 5
    for name in ways:
        assert same_files(tmp_path / name, tmp_path / 'local1'), name


@pytest.mark.beam
def test_splits_that_share_videos_have_the_same_bytes(tmp_path):
    (tmp_path / 'lists').mkdir()
    names = [f'v_Bowl_g{group:02d}_c01.avi' for group in (1, 2, 3)]
    for name in names:
        write_video(tmp_path / 'videos' / 'Bowl' / name, ramp())
    (tmp_path / 'lists' / 'classInd.txt').write_text('1 Bowl\n')
    for split in (1, 2, 3):
        tests = names[split - 1 : split]
        (tmp_path / 'lists' / f'testlist0{split}.txt').write_text(f'Bowl/{tests[0]}\n')
        (tmp_path / 'lists' / f'trainlist0{split}.txt').write_text(
            ''.join(f'Bowl/{name} 1\n' for name in names if name not in tests))
    for name, way in (('local', ['--workers=1']), ('beam', ONE)):
        prepare('ucf101', f'--videos={tmp_path / "videos"}', f'--splits={tmp_path / "lists"}', '--split=all',
                '--short_side=32', f'--out={tmp_path / name}', *way)
    for part in ('store', 'split1', 'split2', 'split3'):
        assert same_files(tmp_path / 'local' / part, tmp_path / 'beam' / part)


def fail_at(video, *, decode, name):
    if video.id.endswith(name):
        raise OSError('the disk of this worker is broken')
    return decode(video)


@pytest.mark.beam
def test_a_pipeline_that_fails_is_one_sentence_and_goes_on(videos, tmp_path, capsys):
    plan, decode = folder.plan(build_parser().parse_args(command(videos, '--out=')))
    failing = partial(fail_at, decode=decode, name='a.mkv')
    with pytest.raises(UserError, match=r'Beam pipeline failed \(.*the disk of this worker is broken.*goes on from'):
        write_dataset(plan, failing, tmp_path / 'out', 1, beam.pipeline_flags('DirectRunner', ''))
    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / 'out').glob('*.tfrecord-*')}
    assert finished and not list((tmp_path / 'out').rglob(f'*{TEMPORARY}'))
    capsys.readouterr()
    prepare(*command(videos, f'--out={tmp_path / "out"}', *ONE))
    assert 'going on after' in capsys.readouterr().out
    assert finished == {path: path.stat().st_mtime_ns for path in finished}
    write_dataset(plan, decode, tmp_path / 'local', workers=1)
    assert same_files(tmp_path / 'local', tmp_path / 'out')


@pytest.mark.beam
@pytest.mark.parametrize(('flags', 'message'), [
    (['--runner=NoRunner'], r'pipeline failed \(.*NoRunner'), (['--runner=PortableRunner'], r'pipeline failed \(')])
def test_a_runner_that_is_not_there_is_one_sentence(videos, tmp_path, flags, message):
    with pytest.raises(UserError, match=message):
        prepare(*command(videos, f'--out={tmp_path / "out"}', *flags, '--beam_options=--job_endpoint=localhost:1 '
                         '--job_server_timeout=1'))


def session_of(pid):
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0


@pytest.mark.beam
def test_a_killed_pipeline_goes_on_and_writes_the_same_bytes(tmp_path, root):
    """SIGKILL after the first shards; its workers end with it."""
    options = ['motion', '--train=1024', '--test=64', '--frames=24', '--size=32']
    killed = [sys.executable, '-m', 'data_prep', *options, f'--out={tmp_path / "killed"}', *TWO]
    process = subprocess.Popen(killed, cwd=root, stderr=subprocess.DEVNULL, start_new_session=True)
    while len(list((tmp_path / 'killed' / 'incomplete').glob('*.part'))) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    workers = [pid for pid in map(int, filter(str.isdecimal, os.listdir('/proc'))) if session_of(pid) == process.pid]
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 30
    while any(os.path.exists(f'/proc/{worker}') for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert len(workers) > 1
    parts = [path.stem for path in (tmp_path / 'killed' / 'incomplete').glob('*.part')]
    assert 2 <= len(parts) < 17
    written = [path for part in parts for path in (tmp_path / 'killed').glob(f'*{part.replace("-", ".tfrecord-")}-*')]
    finished = {path: path.stat().st_mtime_ns for path in written}
    assert len(finished) == len(parts)
    done = subprocess.run(killed, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0 and f'going on after {64 * len(parts):,} of 1,088 videos' in done.stdout
    assert finished == {path: path.stat().st_mtime_ns for path in finished}
    prepare(*options, f'--out={tmp_path / "whole"}', '--workers=1')
    assert same_files(tmp_path / 'whole', tmp_path / 'killed')


def test_without_apache_beam_a_runner_is_one_sentence(videos, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(beam, 'find_spec', lambda name: None)
    monkeypatch.setattr(sys, 'argv', ['data_prep', *command(videos, f'--out={tmp_path / "out"}', *ONE)])
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr()
    assert ended.value.code == 1 and not (tmp_path / 'out').exists() and not printed.out
    assert printed.err.count('\n') == 1 and 'pip install -e ".[beam]"' in printed.err


@pytest.mark.parametrize(('flags', 'message'), [
    (['--beam_options=--project=mine'], '--beam_options needs --runner'),
    (['--runner=DirectRunner', '--workers=2'], '--workers is of runs without --runner'),
    (['--runner=DirectRunner', "--beam_options=--project='mine"], 'No closing quotation')])
def test_flags_that_do_not_fit_are_one_sentence(videos, tmp_path, monkeypatch, flags, message):
    monkeypatch.setattr(beam, 'find_spec', lambda name: name)
    with pytest.raises(UserError, match=message):
        prepare(*command(videos, f'--out={tmp_path / "out"}', *flags))
    assert not (tmp_path / 'out').exists()


def stopped_after_the_plan(out):
    """A data set of one shard and another, of which nothing is written but the plan; its first shard, and `decode`."""
    plan, decode = small_motion()
    with pytest.raises(ZeroDivisionError):
        write_dataset(plan, lambda video: 1 / 0, out, workers=1)
    return plan, plan.shards()[0], decode


def test_a_shard_that_is_written_twice_at_the_same_time_is_whole(tmp_path):
    """As when a runner takes a worker for lost: the other one begins and ends while the first is in the middle."""
    out = tmp_path / 'out'
    plan, shard, decode = stopped_after_the_plan(out)

    def interrupted(video):
        if video is shard[-1][30]:
            beam.write_task(shard, plan, decode, out)
            assert list(shards.read_parts(plan, [shard], out)) == [shard[:2]]
        return decode(video)

    beam.write_task(shard, plan, interrupted, out)
    write_dataset(plan, decode, tmp_path / 'whole', workers=1)
    write_dataset(plan, decode, out, workers=1)
    assert same_files(out, tmp_path / 'whole')


def test_a_task_that_is_given_again_decodes_nothing(tmp_path):
    plan, shard, decode = stopped_after_the_plan(tmp_path)
    beam.write_task(shard, plan, decode, tmp_path)
    beam.write_task(shard, plan, None, tmp_path)


def test_a_worker_that_does_not_see_the_files_says_so(videos, tmp_path):
    """And takes no video for a broken one."""
    plan, decode = folder.plan(build_parser().parse_args(command(videos, '--out=')))
    shard = plan.shards()[0]
    with pytest.raises(UserError, match=r'does not see .*out/incomplete: --videos and --out must lie on a file system'):
        beam.write_task(shard, plan, decode, tmp_path / 'out')
    (tmp_path / 'out' / 'incomplete').mkdir(parents=True)
    videos.rename(tmp_path / 'elsewhere')
    with pytest.raises(UserError, match=r'does not see .*videos/train/run/0.mp4'):
        beam.write_task(shard, plan, decode, tmp_path / 'out')
    assert not list((tmp_path / 'out').glob('*.tfrecord-*'))


def test_a_run_that_goes_on_deletes_what_a_killed_one_left(tmp_path):
    plan, _, decode = stopped_after_the_plan(tmp_path)
    (tmp_path / 'incomplete' / f'motion{TEMPORARY}').write_bytes(bytes(1000))
    with pytest.raises(ZeroDivisionError):
        write_dataset(plan, lambda video: 1 / 0, tmp_path, workers=1)
    assert not list(tmp_path.rglob(f'*{TEMPORARY}'))
