"""Which programs the runs and evaluations of a config compile, by their static arguments, at a small size."""

import json
from functools import cache
from importlib import import_module
from pathlib import Path
from re import findall, search
from typing import NamedTuple

from ml_collections import ConfigDict

from vididi_jax import schedule as schedules
from vididi_jax.config import load_config, to_dict
from vididi_jax.tasks import TASKS
from vididi_jax.train.health import max_order
from vididi_jax.train.step import frames_to_read, view_frames

ROOT = Path(__file__).resolve().parents[2]
SIDE = 16  # of frames and of what networks see
FRAMES = 4  # of clips
FILES_ONLY = ('report', 'compare')  # tasks that read files, and compile nothing


class Program(NamedTuple):
    """A kind of `tests.compiled.kinds`, and what is static in it, as JSON text."""

    kind: str
    static: str

    @property
    def arguments(self) -> dict:
        return json.loads(self.static)


def program(kind: str, **arguments) -> Program:
    return Program(kind, json.dumps(arguments, sort_keys=True))


@cache
def every_config() -> dict[str, ConfigDict]:
    """{'configs/NAME.py:VARIANT': config} of every file and variant."""
    found = {}
    for path in sorted((ROOT / 'configs').glob('*.py')):
        if path.stem in ('__init__', 'default'):
            continue
        listed = search(r'Variants: (.*)', path.read_text())
        for variant in ['', *findall(r':(\w+)', listed.group(1))]:
            file = f'{path}:{variant}' if variant else str(path)
            found[file.removeprefix(f'{ROOT}/')] = load_config(file)
    return found


def tiny(config: ConfigDict) -> ConfigDict:
    """The same structure, of tiny sizes; rates and probabilities that are neither 0 nor 1 do not shape a program."""
    config = ConfigDict(config.to_dict())
    if 'augment' in config:
        config.augment.size = SIDE
        config.augment.shift = min(config.augment.get('shift', 0), 5)
    if config.task == 'pretrain':
        config.batch_size, config.model.width, config.clip.frames = 16, 2, FRAMES
        config.framework.projector = (8,) * len(config.framework.projector)
        config.framework.predictor = (8,) * len(config.framework.predictor)
        config.optimizer.base_rate, config.optimizer.warmup_fraction = 4.8, 0.5
    elif 'eval' in config:
        config.eval.update({name: value for name, value in (('clips', 2), ('frames', FRAMES)) if name in config.eval})
    if 'optimizer' in config and 'milestones' in config.optimizer:
        config.batch_size, config.optimizer.base_rate = 8, 0.5
        config.optimizer.milestones = (1,)
    if 'detection' in config:
        config.eval.size, config.detection.boxes = 2 * SIDE, ''
    return config


def pretraining(config: ConfigDict) -> set[Program]:
    config, clip = tiny(config), tiny(config).clip
    values = to_dict(config)
    schedule = schedules.resolve(config.schedule)
    orders = {pair for phase in range(len(schedule.phases)) for pair in schedule.possible(phase)}
    read = frames_to_read(clip.frames, schedule.max_order, clip.length)
    networks = {name: values[name] for name in ('model', 'framework')}
    return {
        program('augment_views', augment=values['augment'], frames=read),
        program('embed', augment=_seen(values['augment']), model=values['model'],
                projector=values['framework']['projector'], max_order=max_order(config)),
        program('look', augment=_seen(values['augment']), model=values['model']),
        program('convolve', conv_impl=values['model']['conv_impl']),
        *(program('differentiate_views', orders=pair, read=read, frames=view_frames(clip.frames, pair, clip.length))
          for pair in orders),
        *(program('update', **networks, optimizer=values['optimizer'], statistics=values['statistics'],
                  frames=view_frames(clip.frames, pair, clip.length)) for pair in orders)}


def _seen(augment: dict) -> dict:
    """What evaluation reads of an augmentation."""
    return {name: augment[name] for name in ('size', 'centre_fraction', 'mean', 'std')}


def evaluation(config: ConfigDict, trained: ConfigDict) -> set[Program]:
    """Of an evaluation of the encoder of a pretraining."""
    config, trained = tiny(config), tiny(trained)
    values, model, augment = to_dict(config), to_dict(trained.model), to_dict(trained.augment)
    views = {name: values['eval'][name] for name in ('clips', 'frames', 'crops') if name in values['eval']}
    if config.task == 'eval_all':
        common = {name: value for name, value in values.items() if name != 'parts'}
        parts = (ConfigDict({**common, **part, 'task': name.partition('_')[0], 'eval': {**common['eval'], **part.get(
            'eval', {})}}) for name, part in values['parts'].items())
        return set().union(*(evaluation(part, trained) for part in parts))
    if config.task in ('retrieval', 'tug', 'linear', 'features', 'browse'):
        orders = import_module(TASKS[config.task][0]).ORDERS
        return {program('features', views=views, orders=orders, model=model, augment=_seen(augment))}
    recipe, seen = values[config.task], _seen(augment)
    update = program(f'{config.task}_update', model=model, recipe=recipe, optimizer=values['optimizer'], frames=FRAMES)
    if config.task == 'finetune':
        return {update, program('augment', augment=augment, frames=FRAMES),
                program('classify', model=model, orders=recipe['orders'], views=views, augment=seen)}
    asked = {name: recipe[name] for name in ('orders', 'roi_size', 'sampling_ratio')}
    return {update, program('augment_with_boxes', augment=augment | values['augment'], frames=FRAMES),
            program('detect', model=model, **asked, augment={**seen, 'size': config.eval.size}, frames=FRAMES)}


def programs_of(config: ConfigDict) -> set[Program]:
    """Everything that a config's run compiles; of an evaluation, on the encoder of every pretraining."""
    if config.task == 'pretrain':
        return pretraining(config)
    if config.task in FILES_ONLY:
        return set()
    trained = [other for other in every_config().values() if other.task == 'pretrain']
    return set().union(*(evaluation(config, other) for other in trained))


@cache
def every_program() -> set[Program]:
    """Of all configs, and of what a command line may ask of them beside."""
    plain = every_config()['configs/ucf101_vicreg.py']
    changed = []
    for fields in ({'framework.loss': 'nt_xent', 'framework.loss_options': {'temperature': 0.2}},
                   {'optimizer.accumulate': 2}, {'model.remat': True}, {'optimizer.clip_norm': 1.0},
                   {'clip.length': 'constant'}, {'schedule': 'random'}):
        config = ConfigDict(plain.to_dict())
        for name, value in fields.items():
            *path, last = name.split('.')
            part = config
            for step in path:
                part = part[step]
            with part.ignore_type():
                part[last] = value
        changed.append(config)
    found = set().union(*map(programs_of, [*every_config().values(), *changed]))
    for crops in ('three', 'random'):
        config = ConfigDict(every_config()['configs/retrieval.py'].to_dict())
        config.eval.crops = crops
        found |= evaluation(config, plain)
    return found


def structure(found: Program) -> tuple:
    """What shapes a program: all but its numbers of frames, and which number stands where there is neither 0 nor no."""

    def strip(value):
        if isinstance(value, dict):
            return tuple((name, strip(part)) for name, part in value.items() if name not in ('frames', 'read'))
        if isinstance(value, list):
            return tuple(map(strip, value))
        return 'some' if isinstance(value, float) and value else value

    return found.kind, strip(found.arguments)


def share(programs: set[Program]) -> list[tuple[Program, tuple[int, ...]]]:
    """What the test suite has time for: one program of each structure on 8 devices, one of each kind on one, too.

    Of several that have one structure, another one each time, so that all numbers of frames have their turn.
    """
    alike = {}
    for found in sorted(programs):
        alike.setdefault(structure(found), []).append(found)
    chosen = [options[i % len(options)] for i, options in enumerate(alike.values())]
    first = {found.kind: found for found in reversed(chosen)}.values()
    return [(found, (1, 8) if found in first else (8,)) for found in chosen]
