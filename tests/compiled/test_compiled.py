"""What runs is what is tested: programs as a compiler fuses and splits them, against float64 one operation at a time.

`python -m tests.compiled --help` says how to check more of it than here is time for.
"""

import ast
import os
import re
import subprocess
import sys

import pytest

from tests.compiled.kinds import KINDS
from tests.compiled.programs import FILES_ONLY, every_config, every_program, programs_of, share
from vididi_jax.tasks import TASKS

JITS = 'jit', 'pmap', 'jit_with_options'
# Where programs are compiled, and the kinds that judge them, or why none does.
PLACES = {
    'train/step.py augment_views': {'augment_views'},
    'train/step.py differentiate_views': {'differentiate_views'},
    'train/update.py update': {'update', 'finetune_update', 'detection_update'},
    'train/health.py _embed': {'embed'},
    'train/health.py _look': {'look'},
    'pixels/augment.py augment': {'augment'},
    'pixels/boxes.py augment_with_boxes': {'augment_with_boxes'},
    'evaluate/views.py _outputs': {'features', 'classify', 'convolve'},
    'detection/task.py _probabilities': {'detect'},
    'pixels/augment.py augment_with_windows': 'a part of augment and of augment_with_boxes',
    'pixels/boxes.py whole_frames': 'a part of detect',
    'pixels/crops.py evaluation_crops': 'a part of features',
    'pixels/crops.py centre_crop': 'a part of embed',
    'derivatives.py _differentiate': 'a part of features',
    'report/looks.py _saliency': 'a part of look',
    'weights.py _apply': 'held against the features of evaluation in tests/test_weights.py',
    'evaluate/linear.py _iterate': 'held against scikit-learn in tests/evaluate/test_linear.py',
    'evaluate/linear.py _start': 'as _iterate',
    'evaluate/linear.py _put': 'a copy',
    'train/loop.py step_key': 'whole numbers',
    'compilation.py run_init': 'random numbers, of whatever bits',
    'compilation.py compiled': 'what the others are decorated with',
    'compilation.py compiler_options': 'an empty program',
    'train/processes.py _connect': 'a sum that nobody reads',
}


def compiling(package) -> set[str]:
    """'FILE NAME' of the function or variable that each of `JITS` in the package makes or is in.
    """
    found = set()

    def look(node, file, name):
        if isinstance(node, ast.FunctionDef):
            name = node.name
        elif isinstance(node, ast.Assign):
            name = re.findall(r'\w+', ast.unparse(node.targets[0]))[-1]
        elif isinstance(node, ast.Attribute | ast.Name) and ast.unparse(node).rpartition('.')[2] in JITS:
            found.add(f'{file} {name}')
        for part in ast.iter_child_nodes(node):
            look(part, file, name)

    for path in package.rglob('*.py'):
        look(ast.parse(path.read_text()), path.relative_to(package).as_posix(), '')
    return found


def test_every_program_is_judged_or_there_is_a_reason(root):
    assert compiling(root / 'vididi_jax') == set(PLACES)
    kinds = set().union(*(judges for judges in PLACES.values() if isinstance(judges, set)))
    assert kinds == set(KINDS) == {found.kind for found in every_program()}


def test_the_programs_of_every_config_are_checked(root):
    """And updates of views of every number of frames, though only one program of each structure is."""
    every = every_program()
    for name, config in every_config().items():
        assert bool(programs_of(config)) == (config.task not in FILES_ONLY), name
    assert {config.task for config in every_config().values()} == set(TASKS) - {'inspect'}  # its update is training's
    lengths = ({found.arguments['frames'] for found in programs if found.kind == 'update'}
               for programs in (every, {found for found, _ in share(every)}))
    assert next(lengths) == next(lengths)


# How operations are fused and contracted depends on the instruction set: here one that every x86-64 machine has today.
AS_IN_A_RUN = '--xla_cpu_max_isa=AVX2'
PIXELS = 'augment,augment_views,augment_with_boxes,differentiate_views'


@pytest.mark.parametrize(('options', 'flags'), [
    (('--share', '--augmentations=2'), os.environ['XLA_FLAGS']),
    (('--share', f'--kinds={PIXELS}', '--augmentations=0'), AS_IN_A_RUN)],
    ids=['every program', 'pixels as a run compiles them'])
def test_compiled_and_split_programs_are_those_of_float64(root, options, flags):
    """The tolerances, and why, are in kinds.py and draws.py."""
    done = subprocess.run([sys.executable, '-m', 'tests.compiled', *options], cwd=root, capture_output=True, text=True,
                          env={**os.environ, 'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'})
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
