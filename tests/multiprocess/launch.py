"""Starts N processes of one program on this machine, joined over loopback, each with some virtual CPU devices.

python tests/multiprocess/launch.py --processes=2 --devices=4 main.py --config=configs/motion_vicreg.py:smoke ...

The program gets --coordinator, --num_processes and --process_id. What process 0 prints is shown as it is, the others'
with their number; the exit code is the first that is not 0. When a process fails, the others have GRACE seconds.
"""

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
GRACE = 30


class Done(NamedTuple):
    """What a process left."""

    returncode: int
    stdout: str
    stderr: str


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(('127.0.0.1', 0))
        return bound.getsockname()[1]


def launch(arguments: list[str], *, processes: int, devices: int, timeout: float = 600) -> list[Done]:
    """Run `python ARGUMENTS` in `processes` processes of `devices` virtual devices; one process is not joined."""
    # Tests hardly optimise their programs, and these run for longer than optimising takes: float64, through whole runs.
    flags = os.environ.get('XLA_FLAGS', '').replace('optimization_level=0', 'optimization_level=1')
    flags = f'{flags} --xla_force_host_platform_device_count={devices}'
    environment = {**os.environ, 'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(ROOT)}
    joined = [f'--coordinator=127.0.0.1:{free_port()}', f'--num_processes={processes}'] if processes > 1 else []
    with tempfile.TemporaryDirectory() as folder:
        running, files = [], []
        for i in range(processes):
            files.append([Path(folder, f'{i}.{kind}').open('w+') for kind in ('out', 'err')])
            own = [*joined, f'--process_id={i}'] if joined else []
            running.append(subprocess.Popen([sys.executable, *arguments, *own], cwd=ROOT, env=environment,
                                            stdout=files[i][0], stderr=files[i][1]))
        end = time.monotonic() + timeout
        while any(process.poll() is None for process in running):
            if any(process.poll() for process in running):  # one has failed
                end = min(end, time.monotonic() + GRACE)
            if time.monotonic() > end:
                for process in running:
                    process.kill()
            time.sleep(0.1)
        texts = []
        for pair in files:
            for file in pair:
                file.seek(0)
            texts.append([file.read() for file in pair])
            for file in pair:
                file.close()
    return [Done(process.returncode, *text) for process, text in zip(running, texts, strict=True)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--processes', type=int, default=2, metavar='N')
    parser.add_argument('--devices', type=int, default=1, metavar='N', help='virtual CPU devices of each process')
    parser.add_argument('--timeout', type=float, default=3600, metavar='SECONDS')
    parser.add_argument('program', nargs=argparse.REMAINDER, help='a script and its arguments')
    arguments = parser.parse_args()
    done = launch(arguments.program, processes=arguments.processes, devices=arguments.devices,
                  timeout=arguments.timeout)
    for i, process in enumerate(done):
        for text, stream in ((process.stdout, sys.stdout), (process.stderr, sys.stderr)):
            for line in text.splitlines():
                print(line if i == 0 else f'[{i}] {line}', file=stream)
    return next((process.returncode for process in done if process.returncode), 0)


if __name__ == '__main__':
    sys.exit(main())
