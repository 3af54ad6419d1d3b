"""The one form of a result: WORKDIR/eval/NAME/results.json, which says exactly what was measured, and on what."""

import importlib.metadata
import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from uuid import uuid4

import jax

from vididi_jax.config import to_dict
from vididi_jax.errors import UserError

PACKAGES = ('jax', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'numpy')


@cache
def commit() -> str:
    """Commit of the code that runs, with '+changes' if the tree differs from it; 'unknown' outside of its own git.

    Asked once, at the start: the code that runs is that of then, whatever is checked out meanwhile.
    """
    folder = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str:
        return subprocess.run(('git', '-C', folder, *arguments), capture_output=True, text=True, check=True).stdout

    try:
        if Path(git('rev-parse', '--show-toplevel').strip()) != folder:  # installed somewhere inside of another one
            return 'unknown'
        return git('rev-parse', 'HEAD').strip() + ('+changes' if git('status', '--porcelain', '-uno').strip() else '')
    except (OSError, subprocess.CalledProcessError):
        return 'unknown'


def device() -> str:
    """The kind of the devices that compute."""
    return f'{jax.devices()[0].device_kind} ({jax.default_backend()})'


def provenance(config) -> dict:
    """What made a result: the evaluation's config, the commit, versions, device and date."""
    return {
        'config': to_dict(config),
        'commit': commit(),
        'versions': {'python': platform.python_version(),
                     **{package: importlib.metadata.version(package) for package in PACKAGES}},
        'device': f'{jax.device_count()} x {device()}',
        'date': datetime.now(UTC).isoformat(timespec='seconds'),
    }


def write_results(workdir: str | Path, name: str, *, task: str, metrics: dict, config, **details) -> Path:
    """Write a result.

    Args:
      workdir: of the encoder that was evaluated.
      name: of the folder below `WORKDIR/eval`.
      task: what was measured, for example 'retrieval'.
      metrics: the figures.
      config: the evaluation's config.
      **details: split, clips, counts, seed, checkpoint and what else the task must say.

    Returns:
      The path of results.json.
    """
    result = {'task': task, 'metrics': metrics, **details, **provenance(config)}
    path = Path(workdir) / 'eval' / name / 'results.json'
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(result, indent=2) + '\n')
    return path


def write_whole(path: Path, text: str) -> None:
    """Write a file that is there as a whole, or as it was before."""
    temporary = path.with_name(f'{path.name}.{uuid4().hex[:8]}.tmp')
    try:
        temporary.write_text(text, newline='')
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_result(path: Path) -> dict:
    """A results.json; raises `UserError` if it is damaged."""
    try:
        result = json.loads(path.read_text())
        result['task']
        return result
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f'{path} is damaged ({error}): evaluate {path.parents[2]} again.') from error


commit()
