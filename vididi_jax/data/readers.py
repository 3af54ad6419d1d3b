"""Processes that read and decode: how many, and that none outlives the one they work for."""

import os
import signal
from collections.abc import Iterator
from multiprocessing import parent_process
from pathlib import Path, PurePosixPath
from threading import Thread

AHEAD = 4  # batches of a worker that are ready or being made
OWN = 300 * 2**20  # bytes of a worker without its batches
SHARE = 0.5  # of the free memory


def end_with_parent() -> None:
    """In a process of `multiprocessing`: leave when the parent is gone, however it went, and not before.

    A terminal's Ctrl-C and a cluster's SIGTERM reach every process of a run: what they mean is the parent's to decide.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)

    def wait() -> None:
        parent_process().join()
        os._exit(1)

    Thread(target=wait, daemon=True).start()


def usable_cpus() -> int:
    """CPUs that this process may use: its affinity, and the quota of its control group, if it has one."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    for group in _groups('cpu'):
        quota, period = _words(f'{group}/cpu.max', 'max 1')
        if quota == 'max':
            quota, period = (*_words(f'{group}/cpu.cfs_quota_us', '-1'), *_words(f'{group}/cpu.cfs_period_us', '1'))
        if int(quota) > 0:
            count = max(1, min(count, round(int(quota) / int(period))))
    return count


def free_memory() -> float:
    """Bytes that can still be had, of the machine's memory and of its control groups'; inf where no file says."""
    free = next((int(line.split()[1]) * 1024 for line in _text('/proc/meminfo').splitlines()
                 if line.startswith('MemAvailable')), float('inf'))
    for group in _groups('memory'):
        most, = _words(f'{group}/memory.max', 'max')
        used, = _words(f'{group}/memory.current', '0')
        if most == 'max':
            (most,), (used,) = (_words(f'{group}/memory.{name}_in_bytes', 'max') for name in ('limit', 'usage'))
        stat = dict(line.split() for line in _text(f'{group}/memory.stat').splitlines())
        cached = stat.get('total_inactive_file', stat.get('inactive_file', 0))  # files that were read, which give way
        if most != 'max':
            free = min(free, int(most) - int(used) + int(cached))
    return free


def _groups(controller: str) -> Iterator[str]:
    """The folders of the control groups that this process is in, up to the root, as versions 1 and 2 have them."""
    yield '/sys/fs/cgroup'  # of a container, its own
    for line in _text('/proc/self/cgroup').splitlines():  # 'NUMBER:CONTROLLERS:PATH', the second empty in version 2
        _, controllers, path = line.split(':', 2)
        if not controllers or controller in controllers.split(','):
            mount = PurePosixPath('/sys/fs/cgroup', controller if controllers else '')
            group = mount / path.lstrip('/')
            yield from map(str, (each for each in (group, *group.parents) if each.is_relative_to(mount)))


def _text(path: str) -> str:
    return Path(path).read_text(encoding='utf-8') if Path(path).is_file() else ''


def _words(path: str, default: str) -> list[str]:
    return (_text(path) or default).split()


def decide(wanted: int, batch_bytes: int) -> int:
    """How many reading processes there are to be.

    (grain's `pick_performance_config` counts one batch a process, and not what a process takes without any.)

    Args:
      wanted: their number; -1 for as many as CPUs and memory have room for; 0 for threads.
      batch_bytes: of a batch of this process.
    """
    if wanted >= 0:
        return wanted
    room = SHARE * free_memory() // (OWN + AHEAD * batch_bytes)
    return max(1, int(min(usable_cpus(), room)))
