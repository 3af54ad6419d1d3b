"""Whether a run has begun in a workdir, which config it has there, and what of it may differ when it goes on."""

import json
from functools import reduce
from pathlib import Path

import ml_collections

from vididi_jax.config import flatten, from_dict, load_config, own_config, to_dict
from vididi_jax.errors import UserError
from vididi_jax.fields import RULES, rule_of, short, values_of
from vididi_jax.files import write_whole
from vididi_jax.train import metric_writer

MAY_RISE = ('epochs',)  # fields that may be greater than they were
MOVED = 'init_from', 'init_checkpoint'  # of a run that has begun: what it began from may lie elsewhere by now
# Fields, or sub-configs, that decide nothing of what is trained: where the data lie (their fingerprint is compared),
# how they are read, what is written and how often; by which formulas that are equal, as devices may be others.
MAY_DIFFER = ('allow_missing', 'checkpoint', 'data.dir', 'data.workers', 'health', 'log', 'model.conv_impl')
# Fields in which processes that train together may differ: where each has the data, and how it reads and logs.
EACH_ITS_OWN = 'data.dir', 'data.workers', 'log'
# What runs did before a field came: an older config.json does not have it.
BEFORE = {'init_checkpoint': 'latest', 'statistics': 'plain', 'framework.ema_base': 0.99, 'framework.predictor': [],
          'data.split': 'train', 'model.conv_impl': 'auto', 'model.remat': False, 'optimizer.predictor_rate': 1.0}
# What is read of a config whose encoder is loaded, whatever the task was.
ENCODER = ('model.name', 'model.width', 'model.dtype', 'augment.size', 'augment.centre_fraction', 'augment.mean',
           'augment.std', 'clip.frames', 'clip.stride')
# What docs/extend.md lets others add names to, of which this program need not know all to read their configs.
EXTENDED = 'framework.loss', 'optimizer.name', 'clip.placement', 'schedule'
RESTORE = 'put the config back that the run was started with; the meta of each of its checkpoints has it.'


def write_config(config: ml_collections.ConfigDict, workdir: str | Path) -> None:
    """Write `WORKDIR/config.json`."""
    path = Path(workdir)
    path.mkdir(parents=True, exist_ok=True)
    write_whole(path / 'config.json', json.dumps(to_dict(config), indent=2) + '\n')


def workdir_config(workdir: str | Path) -> ml_collections.ConfigDict:
    """The config that a workdir was trained with; raises `UserError` where there is none, or it is damaged."""
    path = Path(workdir) / 'config.json'
    if not path.is_file():
        raise UserError(f'{workdir} is not the workdir of a training run (it has no config.json): '
                        'give the folder that training wrote to.')
    values = _read(path)
    pretrains = values.get('task') == 'pretrain'
    for name, value in BEFORE.items():
        if pretrains or name.startswith('model.'):
            *parents, last = name.split('.')
            reduce(lambda part, parent: part.setdefault(parent, {}), parents, values).setdefault(last, value)
    needed = [*ENCODER, *(['seed'] if 'task' in values else [])]
    if pretrains:
        other = *MAY_DIFFER, 'framework', 'schedule'  # which fields these have differs from run to run
        needed = [name for name in flatten(to_dict(load_config(own_config('default')))) if not _is_of(name, other)]
    known = flatten(values)
    absent = [name for name in needed if name not in known]
    if absent:
        raise UserError(f'{path} has no field {absent[0]!r}: {RESTORE}')
    return from_dict(values)


def _read(path: Path) -> dict:
    try:
        values = json.loads(path.read_bytes())
        if not isinstance(values, dict):
            raise ValueError('it has no fields')
        from_dict(values)
    except Exception as error:  # whatever the parser makes of it, and what cannot be names of fields
        raise UserError(f'{path} cannot be read ({error}): {RESTORE}') from error
    if odd := _odd(values):
        raise UserError(f'{path} is not a config that this program wrote ({odd}), unless another version of it did: '
                        f'{RESTORE}')
    return values


def _odd(values: dict) -> str:
    """What no config can be that a run was started with; '' if there is nothing. Older ones may have other fields."""
    for name, value in values_of(values):
        if (keeps := rule_of(name)) is not None:
            if (must_be := keeps(value)) and not (name in EXTENDED and isinstance(value, str)):
                return f'{name} is {short(value)}, and must be {must_be}'
        elif name.startswith('augment.'):
            return f'there is no field {name}'
        elif any(field.startswith(f'{name}.') for field in RULES):
            return f'{name} is {short(value)}, and must have fields'
    return ''


def steps_of(directory: Path) -> list[int]:
    """Steps of the complete checkpoints in a folder `checkpoints`, ascending."""
    return sorted(int(path.name) for path in directory.glob('*')
                  if path.name.isascii() and path.name.isdecimal())


def has_begun(workdir: str | Path) -> bool:
    """Whether a run has left something to go on from: one that ended before its first checkpoint has not."""
    return (Path(workdir) / 'config.json').exists() and bool(steps_of(Path(workdir) / 'checkpoints'))


def settled(config: ml_collections.ConfigDict, workdir: str | Path) -> ml_collections.ConfigDict:
    """`config`, where the run in `workdir` has begun with the checkpoint of `init_from` that it began with.

    'latest' and 'best' of a run that went on are others by now.
    """
    if config.get('init_checkpoint') not in ('latest', 'best') or not config.init_from or not has_begun(workdir):
        return config
    return begun_from(config, (BEFORE | flatten(_read(Path(workdir) / 'config.json')))['init_checkpoint'])


def begun_from(config: ml_collections.ConfigDict, checkpoint: str) -> ml_collections.ConfigDict:
    """`config` with another `init_checkpoint`."""
    return ml_collections.ConfigDict({**config, 'init_checkpoint': checkpoint}).lock()


def check_unused(workdir: Path) -> None:
    """Raises `UserError` if there is something in `workdir` that a run which begins there would pass off as its own."""
    if steps_of(workdir / 'checkpoints'):
        raise UserError(f'{workdir} has checkpoints and no config.json: put the config back that the run was started '
                        'with, which the meta of each checkpoint has, or use another --workdir.')
    results = sorted(workdir.glob('eval/*/results.json'))
    if results:
        raise UserError(f'{workdir} has no checkpoint, and results of a run that had one ({results[0]}): use another '
                        f'--workdir, or delete {workdir / "eval"}.')
    for name, is_own in (('config.json', _is_own), ('metrics.jsonl', metric_writer.is_own)):
        path = workdir / name
        if path.exists() and not (path.is_file() and is_own(path)):
            raise UserError(f'{path} is not of a run of this program, which would write its own in its place: use '
                            'another --workdir.')


def _is_own(path: Path) -> bool:
    """Whether a config.json is of a run, of whatever version, or holds nothing that could be lost."""
    try:
        values = json.loads(path.read_bytes().strip(b'\0 \r\n\t') or '{}')  # a power cut may leave zeros
    except (ValueError, RecursionError):
        return False
    return values == {} or isinstance(values, dict) and {'task', 'seed', 'model', 'augment'} <= values.keys()


def _before_and_now(config: ml_collections.ConfigDict, workdir: str | Path) -> tuple[dict, dict]:
    return BEFORE | flatten(_read(Path(workdir) / 'config.json')), BEFORE | flatten(to_dict(config))


def changed_fields(config: ml_collections.ConfigDict, workdir: str | Path) -> list[str]:
    """The fields, but for `MAY_DIFFER`, in which `config` is other than the one that the run in `workdir` has."""
    before, now = _before_and_now(config, workdir)
    changed = deciding(before, now)
    if 'encoder' in now and before.get('encoder') == now['encoder']:  # its fingerprint: wherever it was read from
        changed = [name for name in changed if name not in MOVED]
    return changed


def deciding(before: dict, now: dict) -> list[str]:
    """The fields, but for `MAY_DIFFER`, in which two flat configs differ."""
    return sorted(name for name in before.keys() | now.keys()
                  if before.get(name) != now.get(name) and not _is_of(name, MAY_DIFFER))


def _is_of(name: str, fields: tuple[str, ...]) -> bool:
    """Whether a field is one of these, or lies in one."""
    return any(f'{name}.'.startswith(f'{field}.') for field in fields)


def changed_by_hand(before: dict, now: dict) -> list[str]:
    """The fields in which two flat configs of one run differ, where none may: but for `MAY_RISE` and `MOVED`."""
    return [name for name in deciding(before, now) if name not in (*MAY_RISE, *MOVED)]


def check_trained_with(workdir: str | Path, saved: dict) -> None:
    """Raises `UserError` if config.json was changed by hand: it is not `saved`, which a checkpoint was trained with."""
    path = Path(workdir) / 'config.json'
    before, now = BEFORE | flatten(saved), BEFORE | flatten(_read(path))
    changed = changed_by_hand(before, now)
    if changed:
        name = changed[0]
        raise UserError(f'{path} says {name}={now.get(name)!r}, and its checkpoint was trained with '
                        f'{before.get(name)!r}: {RESTORE}')


def check_same_run(config: ml_collections.ConfigDict, workdir: str | Path) -> None:
    """Raises `UserError` if a run has begun there with another config, but for `MAY_DIFFER` and a raised `MAY_RISE`."""
    if not has_begun(workdir):
        check_unused(Path(workdir))
        return
    before, now = _before_and_now(config, workdir)
    changed = changed_fields(config, workdir)
    refused = [name for name in changed if name not in MAY_RISE or name not in before or now[name] < before[name]]
    if refused:
        name = min(refused, key=MAY_RISE.count)  # first one that may not change at all
        # A run of an evaluation, which has an encoder, lies below the workdir that is evaluated.
        raised = '(or raised to) ' if name in MAY_RISE else ''
        advice = f'set another --config.eval.name, or delete {workdir}' if 'encoder' in now else 'use another --workdir'
        raise UserError(
            f'{workdir} was started with {raised}{name}={before.get(name)!r} and this command says {now.get(name)!r} '
            f'({len(refused)} field(s) that decide the run differ): {advice}, or the same config; '
            f'{", ".join(MAY_RISE)} may be raised, and {", ".join(MAY_DIFFER)} may differ.'
        )
