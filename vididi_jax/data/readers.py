"""Processes that read and decode: how many, and that none outlives the one they work for."""

import os
import signal
from multiprocessing import parent_process
from pathlib import Path
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
    quota, period = _words('/sys/fs/cgroup/cpu.max', 'max 1')
    return count if quota == 'max' else max(1, min(count, round(int(quota) / int(period))))


def free_memory() -> float:
    """Bytes that can still be had, of the machine's memory and of the control group's; inf where no file says."""
    free = next((int(line.split()[1]) * 1024 for line in _text('/proc/meminfo').splitlines()
                 if line.startswith('MemAvailable')), float('inf'))
    most, = _words('/sys/fs/cgroup/memory.max', 'max')
    used, = _words('/sys/fs/cgroup/memory.current', '0')
    cached = next((int(line.split()[1]) for line in _text('/sys/fs/cgroup/memory.stat').splitlines()
                   if line.startswith('inactive_file ')), 0)  # files that were read, which give way
    return free if most == 'max' else min(free, int(most) - int(used) + cached)


def _text(path: str) -> str:
    return Path(path).read_text() if Path(path).is_file() else ''


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
