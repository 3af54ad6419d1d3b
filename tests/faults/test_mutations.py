"""Bent configs and command lines: a sentence each, or what they say can be done; and nothing is written."""

import os
import subprocess
import sys

import pytest

from tests.faults.mutations import attempt, make_data, mutations, ready
from tests.test_fields import MAY_BE_EMPTY

COUNT = 400


def test_whatever_is_bent_is_a_sentence_or_works(tmp_path):
    data, run = make_data(tmp_path)
    prepare, refused = ready(run), 0
    for number, mutation in enumerate(mutations(0, COUNT)):
        folder = tmp_path / str(number)
        folder.mkdir()
        told = attempt(mutation, prepare, data, folder)
        refused += bool(told)
        assert len(told) < 800 and '\n' not in told and '  ' not in told, told
        assert not (folder / 'work').exists() and not (run / 'eval').exists(), mutation
        if mutation.kind == 'field':
            (name, value), = mutation.change.items()
            empty = any(name.endswith(field) for field in MAY_BE_EMPTY) and value == []
            assert told or empty or (name, value) == ('eval.run', ''), mutation
        elif mutation.kind == 'words':
            assert told, mutation
    assert COUNT / 2 < refused < COUNT * 0.9  # neither kind is all there is


BROKEN = 'from configs import motion_vicreg\ndef get_config():\n    return motion_vicreg.get_config(nope)\n'


@pytest.mark.parametrize(('words', 'message'), [
    (['--config', '{folder}/broken.py'], "broken.py cannot be read as a config (line 3, NameError: name 'nope' "),
    (['--config=configs/retrieval.py', '--config.eval.name=../../x'], "config.eval.name is '../../x': it must be the "),
    (['--workdir=w'], 'there is no --config: give --config=configs/NAME.py, where NAME.py is one of ava_detection')])
def test_the_command_says_it_and_ends_with_code_1(words, message, tmp_path, root):
    (tmp_path / 'broken.py').write_text(BROKEN)
    done = subprocess.run([sys.executable, root / 'main.py', *(word.format(folder=tmp_path) for word in words)],
                          cwd=tmp_path if words[0] == '--config' else root, capture_output=True, text=True,
                          env={**os.environ, 'PYTHONPATH': str(root)})
    assert done.returncode == 1 and done.stdout == '' and done.stderr.startswith('error: ') and message in done.stderr
    assert done.stderr.count('\n') == 1
