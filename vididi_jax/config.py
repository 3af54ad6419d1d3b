"""Reading, checking and comparing configs."""

import difflib
import json
import sys
from pathlib import Path

import ml_collections
from absl import app, flags
from ml_collections import config_flags

from vididi_jax.errors import UserError


def field_names(config: ml_collections.ConfigDict, prefix: str = '') -> list[str]:
    """Every field of a config, dotted, sub-configs included."""
    names = []
    for name, value in config.items():
        names.append(prefix + name)
        if isinstance(value, ml_collections.ConfigDict):
            names += field_names(value, f'{prefix}{name}.')
    return names


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


def load_config(file: str) -> ml_collections.ConfigDict:
    """The config that `--config=FILE` or `--config=FILE:VARIANT` names."""
    import importlib.util

    path, _, variant = file.partition(':')
    spec = importlib.util.spec_from_file_location('config_file', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(variant) if variant else module.get_config()


def define_config_flag():
    """The flag `--config`, locked: a field that the file does not have is an error."""
    return config_flags.DEFINE_config_file('config', None, 'A file of configs/, or FILE:VARIANT.', lock_config=True)


FIELDS = {  # task -> what its configs have and no other's; a report can be made of any
    'pretrain': 'framework', 'inspect': 'framework', 'features': 'eval.split', 'retrieval': 'retrieval',
    'linear': 'linear', 'finetune': 'finetune', 'detection': 'detection', 'eval_all': 'parts',
}


def check_task(config: ml_collections.ConfigDict) -> None:
    """Raises `UserError` if the config is for another task than its `task`."""
    needed = FIELDS.get(config.task)
    if needed and needed not in field_names(config):
        raise UserError(f'config.task is {config.task!r}, and this config is for another task (it has no {needed!r}): '
                        f'take one of the files in configs/ that are for {config.task!r}.')


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


def workdir_config(workdir: str | Path) -> ml_collections.ConfigDict:
    """The config that a workdir was trained with."""
    path = Path(workdir) / 'config.json'
    if not path.is_file():
        raise UserError(f'{workdir} is not the workdir of a training run (it has no config.json): '
                        'give the --workdir that training wrote to.')
    return from_dict(json.loads(path.read_text()))


def check_same_run(config: ml_collections.ConfigDict, workdir: str | Path) -> None:
    """Raises `UserError` if `workdir` was started with a config that differs in more than a raised `epochs`."""
    path = Path(workdir) / 'config.json'
    if not path.exists():
        return
    before, now = flatten(json.loads(path.read_text())), flatten(to_dict(config))
    changed = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    if changed == ['epochs'] and now['epochs'] > before['epochs']:
        return
    if changed:
        name = next((name for name in changed if name != 'epochs'), 'epochs')
        raise UserError(
            f'{workdir} was started with {name}={before.get(name)!r} and this command says {now.get(name)!r} '
            f'({len(changed)} field(s) differ): use another --workdir, or the same config; only epochs may be raised.'
        )


def write_config(config: ml_collections.ConfigDict, workdir: str | Path) -> None:
    """Write `WORKDIR/config.json`."""
    path = Path(workdir)
    path.mkdir(parents=True, exist_ok=True)
    (path / 'config.json').write_text(json.dumps(to_dict(config), indent=2) + '\n')
