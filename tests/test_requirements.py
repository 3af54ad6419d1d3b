"""Versions: requirements.txt and setup.py bound them, constraints/ pins what was tested; the deprecated is an error."""

import importlib.metadata
import runpy
import sys
import warnings
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


@pytest.fixture
def required(root, monkeypatch):
    """{name: Requirement} of requirements.txt and of the extras in setup.py."""
    found = {}
    setuptools = SimpleNamespace(setup=lambda **arguments: found.update(arguments), find_packages=lambda **_: [])
    monkeypatch.setitem(sys.modules, 'setuptools', setuptools)
    runpy.run_path(str(root / 'setup.py'))
    lines = [Requirement(line) for line in found['install_requires'] + found['extras_require']['dev']]
    return {canonicalize_name(line.name): line for line in lines}


def pins(file):
    """{name: version} of a file of constraints/."""
    lines = [Requirement(line) for line in file.read_text().splitlines() if not line.startswith('#')]
    assert all([bound.operator for bound in line.specifier] == ['=='] for line in lines), file
    return {canonicalize_name(line.name): next(iter(line.specifier)).version for line in lines}


def needed(names, python):
    """`names` and whatever these need in turn under a version of Python, by the metadata of what is installed here."""
    version = {'python_version': python, 'python_full_version': f'{python}.0'}
    installed = {canonicalize_name(package.name) for package in importlib.metadata.distributions()}
    found, todo = set(), [(name, '') for name in names]
    while todo:
        name, extra = todo.pop()
        if (name, extra) in found:
            continue
        found.add((name, extra))
        lines = importlib.metadata.requires(name) if name in installed else None  # the linter may be missing
        for line in map(Requirement, lines or []):
            if line.marker is None or line.marker.evaluate({'extra': extra, **version}):
                todo += [(canonicalize_name(line.name), wanted) for wanted in ('', *line.extras)]
    return {name for name, _ in found}


def test_every_requirement_has_a_lower_and_an_upper_bound(required, root, monkeypatch):
    found = {}
    setuptools = SimpleNamespace(setup=lambda **arguments: found.update(arguments), find_packages=lambda **_: [])
    monkeypatch.setitem(sys.modules, 'setuptools', setuptools)
    runpy.run_path(str(root / 'setup.py'))
    extras = [Requirement(line) for lines in found['extras_require'].values() for line in lines]
    for line in (*required.values(), *extras):
        assert sorted(bound.operator for bound in line.specifier) == ['<', '>='], line


def test_what_was_tested_is_what_requirements_allow(root, required):
    files = sorted((root / 'constraints').glob('*.txt'))
    assert files
    for file in files:
        versions = pins(file)
        for name, line in required.items():
            assert versions[name] in line.specifier, (file.name, line)


def test_constraints_leave_no_package_open(root, required):
    for file in (root / 'constraints').glob('*.txt'):
        assert needed(required, file.stem.removeprefix('python')) <= set(pins(file)), file.name


@pytest.mark.parametrize(('module', 'message'), [
    ('vididi_jax.losses', 'old'), ('data_prep.motion', 'old'), ('tests.train.test_step', 'old'),
    ('jax._src.numpy', 'old'), ('flax.linen', 'old'), ('optax', 'old'), ('orbax.checkpoint', 'old'), ('grain', 'old'),
    ('functools', 'jax.lax.old\nis deprecated'), ('einops', 'since version 1, optax.old is deprecated')])
def test_what_is_deprecated_is_an_error(module, message):
    with pytest.raises(DeprecationWarning, match=message):
        warnings.warn_explicit(message, DeprecationWarning, 'file.py', 1, module=module)


def test_what_other_libraries_do_among_themselves_is_none():
    with pytest.warns(DeprecationWarning, match='ast.Str'):
        warnings.warn_explicit('ast.Str is deprecated', DeprecationWarning, 'file.py', 1, module='simple_parsing')
