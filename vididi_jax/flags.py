"""The command line of main.py: the flag `--config`, and one sentence for whatever is wrong with it."""

import difflib
import sys
from pathlib import Path

import ml_collections
from absl import app, flags
from ml_collections import config_flags

from vididi_jax.config import field_names, load_config
from vididi_jax.errors import UserError


def define_config_flag():
    """The flag `--config`, locked: a field that the file does not have is an error."""
    return config_flags.DEFINE_config_file('config', None, 'A file of configs/, or FILE:VARIANT.', lock_config=True)


def parse_flags(argv: list[str]) -> list[str]:
    """`flags_parser` for `app.run` that turns a wrong `--config...` into one sentence and exit code 1."""
    try:
        arguments = app.parse_flags_with_usage(argv)
        getattr(flags.FLAGS.config, 'task', None)  # the flag reports a file that cannot be loaded only when it is used
        return arguments
    except (AttributeError, KeyError, TypeError, ValueError, IndexError, OSError, ImportError) as error:
        print(f'error: {explain(argv, error)}', file=sys.stderr)
        sys.exit(1)


def explain(argv: list[str], error: Exception) -> str:
    """What is wrong with the `--config` flags of a command line."""
    arguments = dict(a.lstrip('-').partition('=')[::2] for a in argv[1:] if a.startswith('-'))
    file = arguments.get('config', '')
    path = Path(file.partition(':')[0])
    if not path.is_file():
        return f'there is no config file {str(path)!r}: the ones that come with the project are in configs/.'
    try:
        known = field_names(load_config(file))
    except Exception as broken:
        return f'{file} cannot be read as a config ({type(broken).__name__}: {broken}).'
    for name in arguments:
        field = name.removeprefix('config.').partition('[')[0]
        if name.startswith('config.') and field not in known:
            nearest = difflib.get_close_matches(field, known, n=1, cutoff=0) or known[:1]
            return f'{file} has no field {field!r}: the nearest one is {nearest[0]!r}.'
    return f'a value given for {file} does not fit its field ({error}).'


def choose_task(config: ml_collections.ConfigDict, tasks: dict[str, tuple[str, str]]) -> str:
    """The module that runs `config.task`; raises `UserError` if there is none, or the config is for another task.

    `tasks` is task -> (module, a field that the task's configs have and no other's; '' if it takes any config).
    """
    task = config.get('task')
    if task not in tasks:
        raise UserError(f'config.task is {task!r}: choose one of {", ".join(tasks)}.')
    module, needed = tasks[task]
    if needed and needed not in field_names(config):
        raise UserError(f'config.task is {task!r}, and this config is for another task (it has no {needed!r}): '
                        f'take one of the files in configs/ that are for {task!r}.')
    return module
