"""What each field of a config may hold, as one table, and the one check that a config keeps to it.

A rule is a function of a value: None if it may be, else what it must be, as the end of a sentence. None is no value.
What a field means stands where it has its default: in the files of `configs/`, first of all `configs/default.py`, and
in `pixels.augment.Augmentation`. What must fit another field, the data or the devices is checked where both are known.
"""

import difflib
import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from vididi_jax.errors import UserError

Rule = Callable[[Any], str | None]


def rule(text: str, holds: Callable[[Any], bool]) -> Rule:
    return lambda value: None if holds(value) else text


def is_number(value: Any, kinds: type = int | float) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)


def whole(low: int, high: int) -> Rule:
    """An int in [low, high]."""
    return rule(f'a whole number from {low:,} to {high:,}',
                lambda value: is_number(value, int) and low <= value <= high)


def number(low: float, high: float) -> Rule:
    """A float or int in [low, high]; NaN is in no interval."""
    return rule(f'a number from {low:,} to {high:,}', lambda value: is_number(value) and low <= value <= high)


def below(low: float, high: float) -> Rule:
    """A float or int in [low, high)."""
    return rule(f'a number from {low:,} to below {high:,}', lambda value: is_number(value) and low <= value < high)


def one_of(*names: str) -> Rule:
    return rule(f'one of {", ".join(names)}', lambda value: isinstance(value, str) and value in names)


def known(registry: str) -> Rule:
    """One of the names of a registry, 'MODULE:NAME' below vididi_jax, which is imported when a value is checked."""
    module, name = registry.split(':')
    return lambda value: one_of(*getattr(importlib.import_module(f'vididi_jax.{module}'), name))(value)


def text(pattern: str, what: str) -> Rule:
    """A string that a regular expression matches as a whole."""
    return rule(what, lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None)


ORDERS = {  # of the entries of a tuple, as messages have them
    '': lambda values: True,
    ' (each once)': lambda values: len(set(values)) == len(values),
    ' (ascending)': lambda values: list(values) == sorted(set(values)),
    ' (ascending from 1)': lambda values: list(values) == sorted(set(values)) and values[0] == 1,
    ' (low, high)': lambda values: values[0] <= values[1],
}


def several(entry: Rule, least: int, most: int, order: str = '') -> Rule:
    """A tuple or list of `least` to `most` values that keep to a rule, in one of `ORDERS`."""
    count = f'{least} to {most}' if least < most else f'{most}'

    def check(value: Any) -> str | None:
        if (isinstance(value, tuple | list) and least <= len(value) <= most
                and all(entry(one) is None for one in value) and ORDERS[order](value)):
            return None
        return f'a tuple of {count} entries{order}, each {entry(None)}'

    return check


SWITCH = rule('True or False', lambda value: isinstance(value, bool))
ODD = rule('an odd whole number from 1 to 99', lambda value: is_number(value, int) and value in range(1, 100, 2))
ANYTHING = rule('something', lambda value: value is not None)
PATH = text(r'(?!~)[^\0\n]{0,4096}', 'one line of text, which does not begin with ~ (only shells expand that)')
SPLIT = text(r'[^\0\n/]{1,100}', 'the name of a split, of at most 100 letters')
PROTOCOL = text(r'split|grouped|[^/\n]+/split\d+', 'split, grouped, or an official split such as ucf101/split1')
FOLDER = r'\w[\w.+=, -]{0,99}'  # a name, never a path
FOLDER_TEXT = 'the name of a folder, of at most 100 letters, digits, spaces and . _ - + = , (no path)'
SHARE = number(0, 1)
RANGE = several(number(0.01, 100), 2, 2, ' (low, high)')
LAYERS = whole(1, 65_536)
STEPS = whole(0, 1_000_000_000)
DERIVATIVES = several(whole(0, 2), 1, 3, ' (each once)')
WEIGHT = number(0, 1_000_000)

CHECKPOINT = text(r'latest|best|\d+', "latest, best, or a step such as '1200'")

RULES: dict[str, Rule] = {  # by the field's full name, without the `parts.NAME.` of configs/eval_all.py
    'task': PATH,  # one of TASKS in tasks.py, which knows them
    'seed': whole(0, 2**32 - 1),
    'epochs': whole(1, 1_000_000),
    'batch_size': whole(2, 65_536),
    'schedule': ANYTHING,  # see `schedule.resolve`
    'statistics': one_of('by_order', 'plain'),
    'init_from': PATH,
    'init_checkpoint': CHECKPOINT,
    'allow_missing': SWITCH,

    'data.dir': PATH,
    'data.split': SPLIT,
    'data.workers': whole(-1, 1_024),

    'clip.frames': whole(1, 1_000),
    'clip.stride': whole(1, 1_000),
    'clip.placement': known('data.clips:PLACEMENTS'),
    'clip.length': one_of('shrink', 'constant'),
    'clip.short_video': known('data.clips:SHORT_VIDEO_POLICIES'),

    'augment.size': whole(1, 4_096),
    'augment.crop': one_of('random_resized', 'none'),
    'augment.area': several(number(0.0001, 1), 2, 2, ' (low, high)'),
    'augment.aspect': RANGE,
    'augment.flip': SHARE,
    'augment.shift': whole(0, 4_096),
    'augment.blur': SHARE,
    'augment.blur_kernel': ODD,
    'augment.blur_sigma': RANGE,
    'augment.jitter': SHARE,
    'augment.brightness': SHARE,
    'augment.contrast': SHARE,
    'augment.saturation': SHARE,
    'augment.hue': number(0, 0.5),
    'augment.gray': SHARE,
    'augment.gray_mode': one_of('channel', 'luminance'),
    'augment.gain': RANGE,
    'augment.tint': RANGE,
    'augment.mean': several(SHARE, 3, 3),
    'augment.std': several(number(0.001, 10), 3, 3),
    'augment.frame_consistent': SWITCH,
    'augment.per_frame': several(known('pixels.augment:PER_FRAME'), 0, 5, ' (each once)'),
    'augment.centre_fraction': number(0.1, 1),

    'model.name': known('models:ENCODERS'),
    'model.width': whole(1, 1_024),
    'model.dtype': known('models.build:DTYPES'),
    'model.conv_impl': known('models.conv3d:IMPLEMENTATIONS'),
    'model.remat': SWITCH,

    'framework.projector': several(LAYERS, 1, 10),
    'framework.predictor': several(LAYERS, 0, 10),
    'framework.loss': known('train.step:LOSSES'),
    'framework.loss_options.invariance': WEIGHT,
    'framework.loss_options.variance': WEIGHT,
    'framework.loss_options.covariance': WEIGHT,
    'framework.loss_options.temperature': number(0.001, 100),
    'framework.scope': one_of('global', 'per_device'),
    'framework.ema_base': SHARE,

    'optimizer.name': known('train.optimizer:OPTIMIZERS'),
    'optimizer.base_rate': number(1e-9, 1_000_000),
    'optimizer.momentum': below(0, 1),
    'optimizer.weight_decay': SHARE,
    'optimizer.trust_coefficient': number(1e-9, 10),
    'optimizer.predictor_rate': number(1e-9, 1_000),
    'optimizer.warmup_fraction': below(0, 1),
    'optimizer.final_fraction': SHARE,
    'optimizer.clip_norm': number(0, 1_000_000),
    'optimizer.accumulate': whole(1, 1_000_000),
    'optimizer.milestones': several(whole(1, 1_000_000), 0, 100, ' (ascending)'),
    'optimizer.decay': number(1e-9, 1),

    'checkpoint.keep': whole(1, 1_000_000),
    'checkpoint.every_steps': STEPS,
    'log.to': several(known('train.metric_writer:LOGS'), 1, 3, ' (each once)'),
    'log.every_steps': STEPS,
    'health.every_cycles': whole(0, 1_000_000),
    'health.videos': whole(2, 1_000_000),

    'eval.checkpoint': CHECKPOINT,
    'eval.name': text(rf'(?!cache$){FOLDER}', f"{FOLDER_TEXT}, and not 'cache', which is that of the features"),
    'eval.run': text(rf'({FOLDER})?', f'empty, or {FOLDER_TEXT}'),
    'eval.untrained': SWITCH,
    'eval.protocol': PROTOCOL,
    'eval.train': SPLIT,
    'eval.test': SPLIT,
    'eval.split': SPLIT,
    'eval.folds': whole(0, 10_000),
    'eval.clips': whole(1, 1_000),
    'eval.frames': whole(1, 1_000),
    'eval.stride': whole(1, 1_000),
    'eval.size': whole(16, 4_096),
    'eval.short_video': known('data.clips:SHORT_VIDEO_POLICIES'),
    'eval.crops': known('pixels.crops:CROPS'),

    'checkpoint': PATH,
    'videos': PATH,
    'query': PATH,
    'kind': one_of('V', 'dV', 'd2V', 'joined'),
    'clusters': whole(0, 10_000),
    'beside': PATH,
    'runs': PATH,
    'evaluations': text(r'(\w[\w.+=, -]{0,899})?', 'empty, or names of folders below WORKDIR/eval, as A,B'),
    'against': text(r'([\w.]+=[^\0\n]{0,200})?', 'empty, or FIELD=VALUE'),
    'samples': whole(100, 1_000_000),

    'retrieval.ks': several(whole(1, 1_000_000), 1, 100, ' (ascending from 1)'),  # chance and tests are of R@1
    'linear.strengths': several(number(1e-9, 1_000_000_000), 1, 100, ' (each once)'),
    'finetune.orders': DERIVATIVES,
    'finetune.dropout': below(0, 1),
    'finetune.encoder_rate': number(0, 1_000),
    'finetune.layer_decay': number(1e-9, 10),
    'detection.orders': DERIVATIVES,
    'detection.dropout': below(0, 1),
    'detection.encoder_rate': number(0, 1_000),
    'detection.layer_decay': number(1e-9, 10),
    'detection.boxes': known('detection.ava:JUDGED'),
    'detection.roi_size': whole(1, 64),
    'detection.sampling_ratio': whole(1, 64),
}


def own_name(name: str) -> str:
    """The name of a field without that of the part that it is of."""
    return re.sub(r'^parts\.\w+\.', '', name)


def rule_of(name: str) -> Rule | None:
    """The rule of a field, which may be that of a part."""
    return RULES.get(own_name(name))


GROUPS = ('checkpoint',)  # a field of one task, and a group of fields of another


def values_of(config: Mapping[str, Any], prefix: str = '') -> Iterator[tuple[str, Any]]:
    """(full name, value) of every field that holds no other fields; a field with a rule may itself be a mapping."""
    for name, value in config.items():
        name = prefix + name
        if hasattr(value, 'items') and (rule_of(name) is None or own_name(name) in GROUPS):
            yield from values_of(value, f'{name}.')
        else:
            yield name, value


def check_fields(config: Mapping[str, Any]) -> None:
    """Raises `UserError` for the first field of a config, or of a part of one, that does not keep to its rule.

    A field without a rule is one that nothing reads, such as a misspelt one of a config file.
    """
    for name, value in values_of(config):
        if (keeps := rule_of(name)) is None:
            near = difflib.get_close_matches(name, RULES, n=1)
            raise UserError(f'config.{name} is a field that nothing reads: '
                            f'{f"is it config.{near[0]}?" if near else "leave it out."}')
        if must_be := keeps(value):
            raise UserError(f'config.{name} is {short(value)}: it must be {must_be}.')
    asked = config.get('eval', {})
    if asked.get('untrained') and asked.get('checkpoint', 'latest') != 'latest':
        raise UserError(f'eval.untrained is True, and eval.checkpoint, which is {asked["checkpoint"]!r}, has no use: '
                        'leave one of them out.')


def short(value: Any) -> str:
    """A value for a message, on one line.

    Example:
      >>> short('a' * 1000)[-5:]
      'aa...'
    """
    told = ' '.join(repr(value).split())
    return told if len(told) <= 80 else f'{told[:77]}...'
