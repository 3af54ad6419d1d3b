"""Configs as values: read from a file of configs/, with names of fields, to and from plain JSON."""

import importlib.util
import json

import ml_collections


def load_config(file: str) -> ml_collections.ConfigDict:
    """The config that `--config=FILE` or `--config=FILE:VARIANT` names."""
    path, _, variant = file.partition(':')
    spec = importlib.util.spec_from_file_location('config_file', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(variant) if variant else module.get_config()


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


def flatten(values: dict, prefix: str = '') -> dict:
    """{'a': {'b': 1}} -> {'a.b': 1}."""
    flat = {}
    for name, value in values.items():
        flat |= flatten(value, f'{prefix}{name}.') if isinstance(value, dict) else {prefix + name: value}
    return flat
