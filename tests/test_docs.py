"""The pages: what they name exists, their commands parse, their Python runs, their links lead somewhere."""

import argparse
import importlib
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from absl import flags

from tests.data_prep.videos import ramp, write_video
from tests.pages import PAGES, anchors, blocks, commands, links
from vididi_jax.command import EXAMPLES, flag_words
from vididi_jax.config import shipped
from vididi_jax.fields import check_fields
from vididi_jax.flags import define_config_flag, parse_flags

ROOTS = ('vididi_jax.', '')
MODULES = {'prep': 'data_prep.__main__', 'export': 'vididi_jax.weights', 'import': 'vididi_jax.weights',
           'schedule': 'vididi_jax.schedule'}  # of the commands of vididi that have no config
OTHERS = {'git', 'cd', '.', 'gcloud', 'aws', 'pip', 'ruff', '.ci/run'}
ELSEWHERE = {'pytorch.md', 'extend.md', 'performance.md'}  # run by tests/parity, below, and in test_pages.py


def exists(name: str) -> bool:
    """Whether a dotted name is a module, or something in one, below vididi_jax or at the top."""
    for root in ROOTS:
        module, _, attribute = (root + name).rpartition('.')
        try:
            if hasattr(importlib.import_module(module), attribute):
                return True
        except ImportError:
            pass
        module, _, owner = module.rpartition('.')
        try:
            if hasattr(getattr(importlib.import_module(module), owner, None), attribute):
                return True
        except (ImportError, ValueError):
            pass
    return False


def test_architecture_names_what_exists(root):
    text = (root / 'docs' / 'architecture.md').read_text()
    assert len(text.splitlines()) <= 60
    names = re.findall(r'`([\w./]+)`', text)
    paths = [name for name in names if name.endswith(('.py', '/', '.md', '.css', '.js'))]
    dotted = [name for name in names if '.' in name and name not in paths]
    assert len(paths) > 20 and len(dotted) > 15
    for path in paths:
        places = (root / path, root / 'vididi_jax' / path, root / 'vididi_jax' / 'models' / path)
        assert any(place.exists() for place in places), path
    for name in dotted:
        assert exists(name), name


class Parsed(Exception):
    """The command line was taken."""


def take(module: str, words: list[str], monkeypatch, whole=argparse.ArgumentParser.parse_args) -> None:
    """Run a module up to the point where its arguments are parsed."""
    def stop(parser, *given):
        whole(parser, *given)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', stop)
    monkeypatch.setattr(sys, 'argv', [module, *words])
    with pytest.raises(Parsed):
        runpy.run_module(module, run_name='__main__')


def take_flags(words: list[str]) -> None:
    """Parse a command line of main.py, and hold the config against the rules of its fields."""
    words = ['main.py', *(f'{word}=True' if word == '--multihost' else word for word in words)]
    values = flags.FlagValues()
    config = define_config_flag(values, words)
    for name in ('workdir', 'multihost', 'coordinator', 'num_processes', 'process_id'):
        flags.DEFINE_string(name, None, '', flag_values=values)
    parse_flags(words, values)
    check_fields(config.value)
    assert values.workdir


def test_flags_that_are_repeated_give_the_entries_of_a_tuple():
    words = ['main.py', '--config=configs/retrieval.py', '--workdir=x',
             '--config.retrieval.ks=1', '--config.retrieval.ks=7']
    values = flags.FlagValues()
    config = define_config_flag(values, words)
    flags.DEFINE_string('workdir', None, '', flag_values=values)
    parse_flags(words, values)
    assert config.value.retrieval.ks == (1, 7)


@pytest.mark.filterwarnings('ignore:.*found in sys.modules:RuntimeWarning')
def test_commands_parse(root, monkeypatch):
    """Every command of every page: programs, targets, configs, fields with their values, options."""
    monkeypatch.chdir(root)
    targets = re.search(r'^\.PHONY: (.*)$', (root / 'Makefile').read_text(), re.MULTILINE)[1].split()
    found = 0
    for page in PAGES:
        for block in blocks(page, 'bash') if page.name != 'extend.md' else ():
            for program, *words in commands(block.text):
                found += 1
                if program == 'make':
                    assert words[0] in targets, block
                elif program == 'python3':
                    assert words[:2] == ['-m', 'venv'], block
                elif program == 'vididi' and words[0] in MODULES:
                    take(MODULES[words[0]], words if words[0] in ('export', 'import') else words[1:], monkeypatch)
                elif program == 'vididi' and words != ['--help']:
                    assert words[0] in EXAMPLES, block
                    take_flags(flag_words(words[0], words[1:]))
                elif program == 'python' and words[0] == 'main.py':
                    take_flags(words[1:])
                elif program == 'python' and words[0] == '-m' and words[1] not in ('pytest', 'pip', 'tests.compiled'):
                    take(words[1] + '.__main__' * (words[1] == 'data_prep'), words[2:], monkeypatch)
                elif program == 'python' and words[0] != '-m':
                    assert (root / words[0]).is_file(), block
                elif program != 'python':
                    assert program in OTHERS | {'vididi'}, f'{block}: {program}'
    assert found > 70


@pytest.fixture
def desk(tmp_path, finished, tiny_motion, tiny_config, monkeypatch):
    """A folder with the videos, data sets and runs that pages speak of, where configs are tiny ones."""
    import vididi_jax.api

    for name in ('mine', 'tour'):
        shutil.copytree(finished[0], tmp_path / 'runs' / name)
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data' / 'mine').symlink_to(tiny_motion)
    write_video(tmp_path / 'my.mp4', ramp(24))

    def get_config(name):
        assert shipped(name)  # raises, if it is none
        return tiny_config

    monkeypatch.setattr(vididi_jax.api, 'get_config', get_config)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize('page', [page for page in PAGES if page.name not in ELSEWHERE and blocks(page, 'python')],
                         ids=lambda page: page.name)
def test_python_runs(page, desk):
    scope = {'__name__': '__main__'}
    for block in blocks(page, 'python'):
        exec(compile(block.text, str(block), 'exec'), scope)
    if page.name == 'encoders.md':
        assert scope['features'].shape == (4, 16) and np.isfinite(scope['feature']).all()


def test_links_lead_somewhere():
    known = {page: anchors(page) for page in PAGES}
    found = 0
    for page in PAGES:
        for link in links(page):
            path, _, anchor = link.partition('#')
            if path.startswith('https://'):
                continue
            found += 1
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), f'{page.name}: {link}'
            assert not anchor or anchor in known.get(target, anchors(target)), f'{page.name}: {link}'
    assert found > 40


def test_every_page_is_in_the_table_of_contents(root):
    listed = {name for block in blocks(root / 'docs' / 'index.md', '{toctree}') for name in block.text.split()
              if not name.startswith(':')}
    assert {path.stem for path in (root / 'docs').glob('*.md')} - {'index'} <= listed


def test_files_that_pages_name_exist(root):
    name = re.compile(r'`((?:configs|docs|vididi_jax|benchmarks|tests|notebooks)/[\w./]+)(?::\w+)?`')
    for page in PAGES:
        for path in name.findall(page.read_text()):
            assert path == 'configs/NAME.py' or (root / path).exists(), f'{page.name}: {path}'


def test_troubles_are_sentences_of_the_code(root):
    """What the page on troubles quotes, from one `...` to the next, stands in a string of the code."""
    files = (path for folder in ('vididi_jax', 'data_prep') for path in (root / folder).rglob('*.py'))
    code = '\n'.join(path.read_text() for path in files)
    code = re.sub(r"'\s*\n?\s*f?'", '', code)
    page = (root / 'docs' / 'troubleshooting.md').read_text()
    quoted = [row for part in page.split('\n## ')[2:] for row in re.findall(r'^\| `([^`]+)`', part, re.MULTILINE)
              if not row.startswith('An attempt')]
    assert len(quoted) > 20
    for sentence in quoted:
        parts = (re.escape(part.strip()) for part in sentence.split('...'))
        assert re.search('.{0,200}?'.join(parts), code), sentence


def test_readme_is_a_page_to_begin_with(root):
    assert len((root / 'README.md').read_text().splitlines()) <= 150


CHECK = """
import numpy as np
from vididi_jax.losses import barlow_twins_loss
from vididi_jax.report.orders import orders_section

z = np.random.default_rng(0).normal(size=(2, 16, 5))
first, second = (z - z.mean(1, keepdims=True)) / z.std(1, keepdims=True)
square = (np.eye(5) - first.T @ second / 16) ** 2
expected = np.diag(square).sum() + 0.1 * (square.sum() - np.diag(square).sum())
np.testing.assert_allclose(barlow_twins_loss(*z.astype('f'), off_diagonal=0.1)[0], expected, rtol=1e-4)  # float32
assert '>67 %<' in orders_section([{'orders': [0, 2]}] * 2 + [{'orders': [2, 0]}])[2]
"""


def call(folder: Path, *words: str) -> str:
    done = subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_examples_of_additions_work(extended, root):
    """As the page has them, all at once; the run of the page itself is one of `make docs`."""
    prepare, _ = (words for block in blocks(root / 'docs' / 'extend.md', 'bash') for words in commands(block.text))
    assert 'train: 16 videos' in call(extended, *prepare[1:], '--workers=1')
    told = call(extended, 'main.py', '--config=mine.py:smoke', '--config.task=inspect')
    assert 'crossed' in told and 'c3d_small' in told and 'off_diagonal' in told
    call(extended, '-c', CHECK)
