"""The command line of main.py: the flag `--config`, and one sentence for whatever is wrong with it."""

import difflib
import re
from collections import Counter

import ml_collections
from absl import flags
from ml_collections import config_flags

from vididi_jax.config import field_names, load_config, shipped_names
from vididi_jax.errors import UserError, one_sentence
from vididi_jax.fields import rule_of, short, values_of

flags.disclaim_key_flags()  # `--config` is a flag of whoever calls `define_config_flag`, so that their --help shows it


def define_config_flag(values: flags.FlagValues = flags.FLAGS, argv: list[str] | None = None):
    """The flag `--config`, locked: a field that the file does not have is an error.

    It looks for the fields to set in `argv`, the command line that `parse_flags` is to read; None for `sys.argv`.
    """
    return config_flags.DEFINE_config_file(
        'config', None, 'FILE or FILE:VARIANT, such as configs/motion_vicreg.py:smoke; its docstring says more. '
        '--config.FIELD=VALUE sets a field of it.', values, sys_argv=argv, lock_config=True)


@one_sentence()
def parse_flags(argv: list[str], values: flags.FlagValues = flags.FLAGS) -> list[str]:
    """`flags_parser` for `app.run`: whatever is wrong with a command line is one sentence, and exit code 1."""
    file = config_file(argv)
    config = None if file is None else load_config(file)
    check_once(argv, config)
    try:
        rest = values(argv)
    except Exception as error:  # the flag lets through what a field raises that is set, of many kinds
        raise UserError(explain(argv, file, config, error)) from error
    if file is None:
        raise UserError(no_config())
    if rest[1:]:
        known = '--workdir=DIR' if argv[0].startswith('vididi ') else '--config=FILE'  # which that has chosen already
        raise UserError(f'{short(rest[1])} is no flag: give {known}, --config.FIELD=VALUE and others as --help has '
                        'them, with = between flag and value.')
    return rest


def check_once(argv: list[str], config: ml_collections.ConfigDict | None) -> None:
    """Raises `UserError` if `--workdir`, `--mirror` or a field is given twice; of a tuple, each may give an entry."""
    entries = {f'--config.{name}' for name, value in values_of(config or {}) if isinstance(value, tuple)}
    names = [f'--{word.lstrip("-").partition("=")[0]}' for word in argv[1:]
             if re.match('--?(workdir|mirror|config[.])', word)]
    repeated = [(name, times) for name, times in Counter(names).items() if times > 1 and name not in entries]
    if repeated:
        raise UserError(f'{repeated[0][0]} is given {repeated[0][1]} times: give it once.')


def config_file(argv: list[str]) -> str | None:
    """What `--config` is given, as one word of a command line or as two; None if it is not there."""
    found = []
    for number, word in enumerate(argv):
        name, equals, value = word.partition('=')
        if name in ('--config', '-config'):
            found.append(value if equals else ''.join(argv[number + 1 : number + 2]))
    if len(found) > 1:
        raise UserError(f'--config is given {len(found)} times ({", ".join(map(short, found))}): give one.')
    return found[0] if found else None


def no_config() -> str:
    names = (f'{name}.py' for name in shipped_names())
    return f'there is no --config: give --config=configs/NAME.py, where NAME.py is one of {", ".join(names)}.'


def explain(argv: list[str], file: str | None, config: ml_collections.ConfigDict | None, error: Exception) -> str:
    """What is wrong with a command line that could not be parsed."""
    given = [word.lstrip('-').partition('=')[0] for word in argv[1:] if re.match('--?config[.]', word)]
    if file is None and given:
        return no_config()
    known = field_names(config) if file else []
    for name in given:
        field = name.removeprefix('config.').partition('[')[0]
        if field not in known:
            nearest = difflib.get_close_matches(field, known, n=1, cutoff=0) or known[:1]
            return f'{file} has no field {field!r}: the nearest one is {nearest[0]!r}.'
    refused = re.match(r'flag --config\.([\w.]+)=(.*?): ', str(error), re.DOTALL)
    if refused and (rule := rule_of(refused[1])):
        return f'config.{refused[1]} is {short(refused[2])}: it must be {rule(None)}.'
    told = ' '.join(str(error).split()).rstrip('.')
    return f'the command line cannot be read ({told:.200}): --help has all flags.'
