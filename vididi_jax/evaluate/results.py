"""The one form of a result: WORKDIR/eval/NAME/results.json, which says exactly what was measured, and on what."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path

import jax

from vididi_jax.config import to_dict
from vididi_jax.errors import UserError
from vididi_jax.files import write_whole
from vididi_jax.provenance import commit, versions
from vididi_jax.train.processes import locked_together


def device() -> str:
    """The kind of the devices that compute."""
    return f'{jax.devices()[0].device_kind} ({jax.default_backend()})'


def provenance(config) -> dict:
    """What made a result: the evaluation's config, the commit, versions, device and date."""
    return {
        'config': to_dict(config),
        'commit': commit(),
        'versions': versions(),
        'device': f'{jax.device_count()} x {device()}',
        'date': datetime.now(UTC).isoformat(timespec='seconds'),
    }


def alone(evaluate: Callable) -> Callable:
    """`evaluate(evaluation)`, during which no other command can evaluate into the same folder.

    Of two at once, scores, pictures and results.json could be of one and of the other.
    """

    @wraps(evaluate)
    def run(evaluation):
        with locked_together(evaluation.folder, 'set another --config.eval.name'):
            return evaluate(evaluation)

    return run


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


TOLD = {'task': '{}', 'encoder': 'the {} encoder', 'protocol': '{}', 'fingerprint': 'the data {}'}


def check_name(workdir: str | Path, config, **asked: str) -> None:
    """Raises `UserError` if the result of something else has the name of this one, which would overwrite it.

    Args:
      workdir: of the encoder.
      config: of the evaluation.
      **asked: `protocol` and `fingerprint` of the result, once they are known; then its encoder's kind counts, too.
    """
    folder = Path(workdir) / 'eval' / config.eval.name
    path = folder / 'results.json'
    if folder.exists() and not folder.is_dir():
        raise UserError(f'{folder} is no folder: set another --config.eval.name, or move it away.')
    try:
        there = json.loads(path.read_bytes()) if path.is_file() else {}
    except ValueError:  # what is damaged is written anew
        return
    if not isinstance(there, dict) or 'task' not in there:
        return
    if asked:
        asked['encoder'] = 'untrained' if config.eval.untrained else 'trained'
    for name, value in {'task': config.task, **asked}.items():
        if there.get(name, value) != value:
            before, now = (TOLD[name].format(what) for what in (there[name], value))
            raise UserError(f'{path} is a result of {before}, which one of {now} would overwrite: set another '
                            f'--config.eval.name, or delete {folder}.')


# What a field is, where a result has it: tables and pages are made of these.
FORMS = {'task': str, 'protocol': str, 'encoder': str, 'commit': str, 'device': str, 'date': str, 'clips_x_crops': str,
         'config': dict, 'training_config': dict, 'confusion': dict, 'folds': list | dict, 'chance': int | float,
         'seed': int, 'checkpoint_step': int, 'training_commits': list,
         'test_videos_seen_in_pretraining': int | None}


def _are_numbers(value, depth: int) -> bool:
    """Whether it is a table of tables, and so on, of numbers: {name: ... {name: number}}."""
    if depth:
        return isinstance(value, dict) and all(_are_numbers(part, depth - 1) for part in value.values())
    return isinstance(value, int | float)


def _is_right(name: str, value, task: str) -> bool:
    """Whether a field of a result is what it should be."""
    if name in ('metrics', 'std'):  # {kind of feature: {metric: number}}, of each part where there are several
        return _are_numbers(value, 3 if task == 'eval_all' else 2)
    if name == 'chance' and task == 'eval_all':
        return _are_numbers(value, 1)
    if name == 'counts':
        return _are_numbers(value, 2) and all(side.keys() >= {'videos', 'listed'} for side in value.values())
    return isinstance(value, FORMS.get(name, object))


def read_result(path: Path) -> dict:
    """A results.json; raises `UserError` if it is damaged."""
    try:
        result = json.loads(path.read_bytes())
        task = result['task']
        if wrong := [name for name, value in result.items() if not _is_right(name, value, task)]:
            raise ValueError(f'its {wrong[0]}: {result[wrong[0]]!r:.80}')
        return result
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f'{path} is damaged ({error}): evaluate {path.parents[2]} again.') from error


def check_whole(path: Path, result: dict, *names: str) -> None:
    """Raises `UserError` if the result of a results.json lacks one of these fields, or has nothing in it."""
    if absent := [name for name in names if result.get(name) in (None, {}, [])]:
        raise UserError(f'{path} is not whole (it has no {absent[0]}): evaluate {path.parents[2]} again.')
