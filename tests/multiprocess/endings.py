"""Run by launch.py: steps of nothing but a sum over all processes, until the last one ends itself by `--signal`.

Process I writes the step after which it was told to stop to OUT/I.
"""

import argparse
import os
import signal
import sys
import time
from pathlib import Path

import jax
from jax.experimental import multihost_utils

from vididi_jax.errors import Stopped, one_sentence
from vididi_jax.train import processes
from vididi_jax.train.signals import after_step


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--out', type=Path)
    parser.add_argument('--signal', type=lambda name: signal.Signals[name])
    parser.add_argument('--coordinator')
    parser.add_argument('--num_processes', type=int)
    parser.add_argument('--process_id', type=int)
    arguments = parser.parse_args()
    processes.join(False, arguments.coordinator, arguments.num_processes, arguments.process_id)
    with after_step() as signalled, processes.exit_if_peer_lost():
        for step in range(1, 1000):
            multihost_utils.process_allgather(jax.numpy.ones(8))
            time.sleep(0.05)
            if step == 5 and jax.process_index() == jax.process_count() - 1:
                os.kill(os.getpid(), arguments.signal)
            if number := signalled():
                (arguments.out / str(jax.process_index())).write_text(str(step))
                raise Stopped(number, f' after step {step}')


if __name__ == '__main__':
    with one_sentence():
        sys.exit(main())
