"""Which code runs: its commit, and the versions of what it stands on."""

import importlib.metadata
import platform
import subprocess
from functools import cache
from pathlib import Path

PACKAGES = ('vididi_jax', 'jax', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'numpy', 'opencv-python-headless', 'av')


@cache
def commit() -> str:
    """Commit of the code that runs, with '+changes' if the tree differs from it; 'unknown' outside of its own git.

    Asked once, at the start: the code that runs is that of then, whatever is checked out meanwhile.
    """
    folder = Path(__file__).resolve().parents[1]

    def git(*arguments: str) -> str:
        return subprocess.run(('git', '-C', folder, *arguments), capture_output=True, text=True, check=True).stdout

    try:
        if Path(git('rev-parse', '--show-toplevel').strip()) != folder:  # installed somewhere inside of another one
            return 'unknown'
        return git('rev-parse', 'HEAD').strip() + ('+changes' if git('status', '--porcelain', '-uno').strip() else '')
    except (OSError, subprocess.CalledProcessError):
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
