"""Which code runs: its commit, and the versions of what it stands on."""

import importlib.metadata
import json
import platform
import subprocess
from functools import cache
from pathlib import Path

PACKAGES = ('vididi_jax', 'jax', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'numpy', 'opencv-python-headless', 'av')


@cache
def commit() -> str:
    """Commit of the code that runs, with '+changes' if the tree differs from it; 'unknown' outside of its own git.

    Of an installed package it is the one that pip has installed from a repository.

    Asked once, at the start: the code that runs is that of then, whatever is checked out meanwhile.
    """
    folder = Path(__file__).resolve().parents[1]

    def git(*arguments: str) -> str:
        return subprocess.run(('git', '-C', folder, *arguments), capture_output=True, text=True, check=True).stdout

    try:
        if Path(git('rev-parse', '--show-toplevel').strip()) != folder:  # installed somewhere inside of another one
            return installed_commit(folder)
        return git('rev-parse', 'HEAD').strip() + ('+changes' if git('status', '--porcelain', '-uno').strip() else '')
    except (OSError, subprocess.CalledProcessError):
        return installed_commit(folder)


def installed_commit(folder: Path) -> str:
    """That of a package in `folder`, as pip has written down (PEP 610); 'unknown' where it has not."""
    try:
        found = importlib.metadata.distribution('vididi_jax')
        if Path(found.locate_file('vididi_jax')).resolve().parent != folder:  # another copy
            return 'unknown'
        return json.loads(found.read_text('direct_url.json') or '{}').get('vcs_info', {}).get('commit_id', 'unknown')
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return 'unknown'


def versions() -> dict[str, str]:
    """Of Python, and of those of `PACKAGES` that are installed: this project need not be, in a checkout."""
    found = {'python': platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
