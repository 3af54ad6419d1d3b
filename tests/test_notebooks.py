"""Notebooks are what their scripts say and have run without an error; one of them is run here, `make notebooks` all."""

import json
import re
import sys
from types import ModuleType, SimpleNamespace

import pytest

from tests.pages import ROOT

SCRIPTS = sorted((ROOT / 'notebooks').glob('*.py'))
LARGEST = 3_000_000  # bytes, with outputs


def cells(text: str) -> list[tuple[str, str]]:
    """(kind, source) of each cell of a script in the percent format, as a notebook has them."""
    found = []
    for part in re.split(r'^# %%', text, flags=re.MULTILINE)[1:]:
        head, _, source = part.partition('\n')
        kind = 'markdown' if 'markdown' in head else 'code'
        source = source.strip('\n')
        found.append((kind, re.sub('^# ?', '', source, flags=re.MULTILINE) if kind == 'markdown' else source))
    return found


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: path.stem)
def test_a_notebook_is_its_script_with_outputs(script):
    path = script.with_suffix('.ipynb')
    notebook = json.loads(path.read_text())
    assert cells(script.read_text()) == [(cell['cell_type'], ''.join(cell['source'])) for cell in notebook['cells']]
    outputs = [output for cell in notebook['cells'] for output in cell.get('outputs', ())]
    assert outputs and all(output['output_type'] != 'error' for output in outputs)
    assert path.stat().st_size < LARGEST
    assert not re.search(r'"[^"]*(/home/|/work/|/tmp/|/root/)', path.read_text())


def test_there_is_a_notebook_for_each_script():
    assert len(SCRIPTS) == 5
    assert {path.stem for path in (ROOT / 'notebooks').glob('*.ipynb')} == {path.stem for path in SCRIPTS}


def test_the_notebook_of_derivatives_runs(tmp_path, monkeypatch):
    shown = []
    display = ModuleType('IPython.display')
    display.Image, display.display = (lambda data, format='png': SimpleNamespace(data=data)), shown.append
    ipython = ModuleType('IPython')
    ipython.version_info, ipython.get_ipython = (9, 0, 0), lambda: None  # which matplotlib asks
    monkeypatch.setitem(sys.modules, 'IPython', ipython)
    monkeypatch.setitem(sys.modules, 'IPython.display', display)
    monkeypatch.chdir(tmp_path)
    script = ROOT / 'notebooks' / 'derivatives.py'
    scope = {}
    exec(compile(script.read_text(), script, 'exec'), scope)
    assert [picture.data[:4] for picture in shown] == [b'\x89PNG', b'GIF8']
    assert 0.5 < scope['still'] < 1 and scope['velocity'].shape == (4, 11, 64, 64, 3)
