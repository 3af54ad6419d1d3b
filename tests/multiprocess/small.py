"""Several command lines of main.py in one process, with one convolution in place of every encoder.

small.py '[["--config=FILE", "--workdir=DIR", ...], ...]'. Processes that are joined keep no programs: what an encoder
takes to compile, each of them takes in every test.
"""

import argparse
import json

from benchmarks import commands
from tests.compiled.inputs import Small
from vididi_jax.models.build import compute_dtype
from vididi_jax.train import encoder, processes, state


def build(model, device):
    return Small(model.width, compute_dtype(model, device), model.remat)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('commands', type=json.loads)
    parser.add_argument('--coordinator')
    parser.add_argument('--num_processes', type=int)
    parser.add_argument('--process_id', type=int)
    arguments = parser.parse_args()
    processes.join(False, arguments.coordinator, arguments.num_processes, arguments.process_id)
    for words in arguments.commands:
        commands.run(words)


if __name__ == '__main__':
    state.build_encoder = encoder.build_encoder = build
    main()
