"""Reading processes: how many, and what becomes of them."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from vididi_jax.data import pipeline, readers
from vididi_jax.data.source import RecordSource
from vididi_jax.errors import UserError

MB = 2**20


@pytest.mark.parametrize(('wanted', 'cpus', 'memory', 'number'), [
    (0, 8, 1e12, 0),
    (-1, 8, 1e12, 8),
    (-1, 96, 8e9, 11),  # half of 8 GB, 340 MB each
    (-1, 8, 1e8, 1),
    (16, 2, 1e9, 16),  # who says a number has it
])
def test_as_many_as_there_is_room_for(wanted, cpus, memory, number, monkeypatch):
    monkeypatch.setattr(readers, 'usable_cpus', lambda: cpus)
    monkeypatch.setattr(readers, 'free_memory', lambda: memory)
    assert readers.decide(wanted, 10 * MB) == number


def test_what_files_take_in_memory_can_be_had(monkeypatch):
    group = '/sys/fs/cgroup/memory'
    texts = {'/proc/meminfo': 'MemAvailable: 1000000 kB\n', f'{group}.max': '900\n', f'{group}.current': '800\n',
             f'{group}.stat': 'anon 100\ninactive_file 650\n'}
    monkeypatch.setattr(readers, '_text', lambda path: texts.get(path, ''))
    assert readers.free_memory() == 750
    texts[f'{group}.max'] = 'max\n'
    assert readers.free_memory() == 1_024_000_000
    # A job of a cluster: its own group, below the root of what it sees; version 2, and version 1.
    texts['/proc/self/cgroup'] = '0::/job/step\n'
    texts |= {'/sys/fs/cgroup/job/memory.max': '5000\n', '/sys/fs/cgroup/job/memory.current': '4000\n'}
    assert readers.free_memory() == 1000
    texts |= {f'{group}.max': '9000\n', f'{group}.current': '0\n', f'{group}.stat': ''}  # above it, with more
    assert readers.free_memory() == 1000
    texts[f'{group}.max'] = 'max\n'
    texts['/proc/self/cgroup'] = '4:memory:/job\n3:cpuset:/\n'
    job = '/sys/fs/cgroup/memory/job/memory'
    texts |= {f'{job}.limit_in_bytes': '700\n', f'{job}.usage_in_bytes': '600\n',
              f'{job}.stat': 'inactive_file 1\ntotal_inactive_file 20\n'}
    assert readers.free_memory() == 120


def test_cpus_are_those_that_the_groups_of_a_process_leave_it(monkeypatch):
    texts = {'/proc/self/cgroup': '0::/job\n', '/sys/fs/cgroup/job/cpu.max': '100000 100000\n'}
    monkeypatch.setattr(readers, '_text', lambda path: texts.get(path, ''))
    monkeypatch.setattr(os, 'sched_getaffinity', lambda _: set(range(8)))
    assert readers.usable_cpus() == 1
    texts['/proc/self/cgroup'] = '1:cpu,cpuacct:/job\n'
    assert readers.usable_cpus() == 8
    texts |= {'/sys/fs/cgroup/cpu/job/cpu.cfs_quota_us': '300000\n',
              '/sys/fs/cgroup/cpu/job/cpu.cfs_period_us': '100000\n'}
    assert readers.usable_cpus() == 3
    texts['/sys/fs/cgroup/cpu/job/cpu.cfs_quota_us'] = '370000\n'
    assert readers.usable_cpus() == 4  # the nearest


def stream(data):
    source = RecordSource(data, 'train')
    return pipeline.training_stream(
        source, np.arange(len(source)), length=4, stride=1, placement='adjacent', batch_size=4, seed=0)


def test_a_reading_process_that_is_killed_is_one_sentence(tiny_motion):
    with pipeline.iterate(stream(tiny_motion), workers=1) as batches:
        next(batches)
        child, = multiprocessing.active_children()
        for number in (signal.SIGINT, signal.SIGTERM):  # meant for the parent
            os.kill(child.pid, number)
        for _ in range(8):
            next(batches)
        os.kill(child.pid, signal.SIGKILL)
        with pytest.raises(UserError, match='a reading process died .exit code -9.*fewer --config.data.workers'):
            for _ in range(100):
                next(batches)


READ = '''
import sys, time
from tests.data.test_readers import pipeline, stream

if __name__ == '__main__':
    with pipeline.iterate(stream(sys.argv[1]), workers=1) as batches:
        next(batches)
        print('read', flush=True)
        time.sleep(60)
'''


def test_reading_processes_do_not_outlive_a_parent_that_was_killed(tiny_motion, tmp_path, root):
    script = tmp_path / 'read.py'
    script.write_text(READ)
    parent = subprocess.Popen([sys.executable, script, tiny_motion], cwd=root, stdout=subprocess.PIPE, text=True,
                              env={**os.environ, 'PYTHONPATH': str(root)}, stderr=subprocess.DEVNULL)
    assert parent.stdout.readline() == 'read\n'
    parent.kill()
    begin = time.monotonic()
    parent.stdout.read()  # returns when the last process that holds its other end is gone
    assert time.monotonic() - begin < 10
    parent.stdout.close()
    parent.wait()
