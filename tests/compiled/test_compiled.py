"""What runs is what is tested: programs as a compiler fuses and splits them, against float64 one operation at a time.

`python -m tests.compiled --help` says how to check more of it than here is time for.
"""

import os
import subprocess
import sys

import pytest

from tests.compiled.kinds import KINDS
from tests.compiled.programs import FILES_ONLY, every_config, every_program, programs_of, share, structure
from vididi_jax.tasks import TASKS


def test_the_programs_of_every_config_are_among_those_checked():
    """One of each structure on eight devices, and one of each kind on one."""
    every, chosen = every_program(), share(every_program())
    assert {found.kind for found, devices in chosen if devices == (1, 8)} == set(KINDS)
    assert all(8 in devices and found in every for found, devices in chosen)
    checked = {structure(found) for found, _ in chosen}
    for name, config in every_config().items():
        own = programs_of(config)
        assert bool(own) == (config.task not in FILES_ONLY), name
        assert own <= every and {structure(found) for found in own} <= checked, name
    assert {config.task for config in every_config().values()} == set(TASKS) - {'inspect'}  # its update is training's
    lengths = ({found.arguments['frames'] for found in programs if found.kind == 'update'}
               for programs in (every, {found for found, _ in chosen}))
    assert next(lengths) == next(lengths)


# How operations are fused and contracted depends on the instruction set: here one that every x86-64 machine has today.
AS_IN_A_RUN = '--xla_cpu_max_isa=AVX2'


@pytest.mark.parametrize(('options', 'flags'), [
    (('--share', '--augmentations=2'), os.environ['XLA_FLAGS']),
    (('--share', '--kinds=augment,differentiate_views', '--augmentations=0'), AS_IN_A_RUN)],
    ids=['every program', 'pixels as a run compiles them'])
def test_compiled_and_split_programs_are_those_of_float64(root, options, flags):
    """The tolerances, and why, are in kinds.py and draws.py."""
    done = subprocess.run([sys.executable, '-m', 'tests.compiled', *options], cwd=root, capture_output=True, text=True,
                          env={**os.environ, 'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'})
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
