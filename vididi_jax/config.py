"""Configs as values: read from a file of configs/, with names of fields, to and from plain JSON."""

import json
import traceback
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import ml_collections

from vididi_jax import configs
from vididi_jax.errors import UserError

CONFIGS = Path(next(iter(configs.__path__)))  # the folder of those that come with the project


def own_config(name: str) -> str:
    """The file, and the variant, of the shipped config NAME or NAME:VARIANT."""
    stem, colon, variant = name.partition(':')
    return f'{CONFIGS / stem}.py{colon}{variant}'


def shipped_names() -> list[str]:
    """Of the configs that come with the project, without `default`, which others derive from."""
    return sorted(file.stem for file in CONFIGS.glob('*.py') if file.stem not in ('__init__', 'default'))


def shipped(name: str) -> str:
    """What `--config` takes, of NAME or NAME:VARIANT: a file that is there, else the shipped config of that name.

    Raises:
      UserError: neither of them.
    """
    path = name.partition(':')[0]
    if Path(path).is_file():
        return name
    if path in shipped_names():
        return own_config(name)
    raise UserError(f'{path!r} is no file and no config that comes with the project: those are '
                    f'{", ".join(shipped_names())}.')


def load_config(file: str) -> ml_collections.ConfigDict:
    """The config that `--config=FILE` or `--config=FILE:VARIANT` names.

    Raises:
      UserError: there is no such file or variant, or the file has an error, which is named with its line.
    """
    path, _, variant = file.partition(':')
    if not Path(path).is_file():
        raise UserError(f'there is no config file {path!r} in {Path.cwd()}: the ones that come with the project are in '
                        f'{CONFIGS}.')
    loader = SourceFileLoader('config_file', path)
    module = module_from_spec(spec_from_loader('config_file', loader))
    try:
        loader.exec_module(module)
        config = module.get_config(variant) if variant else module.get_config()
    except Exception as error:  # whatever a file can do
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
        syntax = isinstance(error, SyntaxError)
        line = error.lineno if syntax else max(lines[-1:], default=None)
        what = error.msg if syntax else ' '.join(str(error).split())
        raise UserError(f'{file} cannot be read as a config ({f"line {line}, " if line else ""}{type(error).__name__}: '
                        f'{what:.300}).') from error
    if not isinstance(config, ml_collections.ConfigDict):
        raise UserError(f'{file} is no config: its get_config() must return a ConfigDict, not {config!r:.80}.')
    return config


def field_names(config: ml_collections.ConfigDict, prefix: str = '') -> list[str]:
    """Every field of a config, dotted, sub-configs included."""
    names = []
    for name, value in config.items():
        names.append(prefix + name)
        if isinstance(value, ml_collections.ConfigDict):
            names += field_names(value, f'{prefix}{name}.')
    return names


def to_dict(config: ml_collections.ConfigDict) -> dict:
    """Plain JSON types, tuples as lists."""
    return json.loads(config.to_json_best_effort())


def from_dict(values: dict) -> ml_collections.ConfigDict:
    """Inverse of `to_dict`, locked; lists come back as tuples."""

    def convert(value):
        if isinstance(value, dict):
            return {name: convert(v) for name, v in value.items()}
        return tuple(convert(v) for v in value) if isinstance(value, list) else value

    return ml_collections.ConfigDict(convert(values)).lock()


def text_of(value) -> str:
    """A field's value as a word, a string as it is.

    Example:
      >>> text_of('base'), text_of([[1, 1], [0, 2]])
      ('base', '[[1, 1], [0, 2]]')
    """
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def flatten(values: dict, prefix: str = '') -> dict:
    """{'a': {'b': 1}} -> {'a.b': 1}."""
    flat = {}
    for name, value in values.items():
        flat |= flatten(value, f'{prefix}{name}.') if isinstance(value, dict) else {prefix + name: value}
    return flat
