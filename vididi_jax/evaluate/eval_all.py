"""Every evaluation of a workdir in one go."""

import importlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ml_collections import ConfigDict

from vididi_jax.config import flatten, to_dict
from vididi_jax.errors import UserError
from vididi_jax.evaluate.recognition import Evaluation, chance_text, print_table
from vididi_jax.evaluate.results import check_name, write_results
from vididi_jax.fields import check_fields
from vididi_jax.train.processes import locked_together, on_process_zero

# In the order of the table; the quick ones first.
TASKS = {'retrieval': 'retrieval', 'linear': 'linear', 'finetune': 'finetune', 'finetune_linear': 'finetune'}


def part_config(config, part: str) -> ConfigDict:
    """The config of a part: the common fields and its own."""
    common = {name: value for name, value in config.items() if name != 'parts'}
    own = ConfigDict({**common, **config.parts[part]}).copy_and_resolve_references()
    own.task, own.eval.name = TASKS[part], f'{config.eval.name}_{part}'
    return own.lock()


def in_full(message: str, part: str, fields: list[str]) -> str:
    """A message with the names of a part's fields as the command line has them.

    >>> in_full('batch_size is 7: lower config.batch_size.', 'finetune', ['batch_size'])
    'parts.finetune.batch_size is 7: lower config.parts.finetune.batch_size.'
    """
    names = '|'.join(re.escape(name) for name in sorted(fields, key=len, reverse=True))
    return re.sub(rf'(?<![\w./-])(config\.)?({names})(?!\w)', rf'\1parts.{part}.\2', message)


@contextmanager
def told_in_full(config, part: str) -> Iterator[None]:
    """Within the `with`, the messages of errors are `in_full`."""
    try:
        yield
    except UserError as error:
        raise UserError(in_full(str(error), part, list(flatten(to_dict(config.parts[part]))))) from error


def module_of(part: str):
    return importlib.import_module(f'vididi_jax.evaluate.{TASKS[part]}')


def prepare(config, workdir: str) -> dict[str, Evaluation]:
    """Check all parts, and load their encoder: {part: what its `evaluate` takes}."""
    check_fields(config)
    check_name(workdir, config)
    unknown = [part for part in config.parts if part not in TASKS]
    if unknown or not config.parts:
        raise UserError(f'config.parts has {unknown[0] if unknown else "nothing"}: give some of {", ".join(TASKS)}.')
    checked = {}
    for part in (part for part in TASKS if part in config.parts):
        with told_in_full(config, part):
            checked[part] = module_of(part).prepare(part_config(config, part), workdir)
    return checked


def run(config, workdir: str) -> dict:
    """Run each evaluation of `config.parts`, which writes its own result, and collect them in `eval/NAME/results.json`.

    The results of the parts stand in `eval/NAME_PART`. All parts are checked before the first one runs.
    """
    checked = prepare(config, workdir)
    with locked_together(Path(workdir) / 'eval' / config.eval.name, 'set another --config.eval.name'):
        for part, evaluation in checked.items():
            with told_in_full(config, part):
                module_of(part).evaluate(evaluation)
        return collect(config, workdir, {part: evaluation.folder for part, evaluation in checked.items()})


@on_process_zero
def collect(config, workdir: str, folders: dict[str, Path]) -> dict:
    """Write and print the table of the results in `folders`; returns {part: its figures}."""
    results = {part: json.loads((folder / 'results.json').read_bytes()) for part, folder in folders.items()}
    first = next(iter(results.values()))
    same = ('protocol', 'split', 'data', 'fingerprint', 'clips_x_crops', 'short_video', 'counts',
            'test_videos_without_their_class_in_train', 'transductive', 'test_videos_seen_in_pretraining', 'encoder',
            'statistics', 'checkpoint_step', 'training_commits', 'seed', 'evaluation_seed', 'training_config')
    metrics, std, folds, chance = ({part: result[key] for part, result in results.items()}
                                   for key in ('metrics', 'std', 'folds', 'chance'))
    path = write_results(Path(workdir), config.eval.name, task='eval_all', metrics=metrics, config=config, std=std,
                         folds=folds, chance=chance, **{name: first[name] for name in same})
    print(f'\nall on {first["protocol"]}, {first["encoder"]} encoder, step {first["checkpoint_step"]}')
    print_table(metrics, std, len(first['folds']))
    print(chance_text(chance, len(first['folds'])))
    print(f'written to {path}')
    return metrics
