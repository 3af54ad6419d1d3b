"""Configs and command lines that were bent, by a seed: `mutations(seed, count)`.

`python -m tests.faults.mutations --seed=0 --count=400` prints what each of them gives, and how many of which kind.
"""

import argparse
import math
import random
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import redirect_stderr, suppress
from io import StringIO
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from absl import flags

from vididi_jax.config import flatten, load_config
from vididi_jax.errors import UserError
from vididi_jax.fields import RULES, check_fields
from vididi_jax.flags import define_config_flag, parse_flags
from vididi_jax.tasks import TASKS, check_workdir, choose_task

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ('motion_vicreg', 'motion_byol', 'ucf101_simclr', 'retrieval', 'linear', 'finetune', 'features', 'eval_all',
           'motion_detection')
NONSENSE = (math.nan, math.inf, -math.inf, -1e30, 1e30, -10**9, 10**12, None, [], {}, (math.nan,), ('a', 'b'), 'a\0b',
            'x' * 5000, (0,) * 200, object(), b'bytes', {'a': 1}, 1j, '\n', ((),), (None, 1))
PATHS = ('../../x', '/absolute/x', '.', '..', 'cache', 'a/b', '', ' ', '-x', 'a\nb')
FILES = {  # broken config files, derived from configs/motion_vicreg.py
    'syntax': 'def get_config(:', 'indentation': 'def get_config():\n  x = 1\n    y', 'nothing': '', 'text': 'nonsense',
    'undefined': 'def get_config():\n    return nope', 'none': 'def get_config():\n    pass',
    'dict': 'def get_config():\n    return {"task": "pretrain"}', 'import': 'import no_such_module',
    'raises': 'def get_config():\n    raise KeyError("x")', 'divides': 'def get_config():\n    return 1 / 0',
    'recursive': 'def get_config():\n    return get_config()', 'bytes': '\x00\x01',
    'arguments': 'def get_config(a, b): pass', 'string': 'get_config = "motion"'}
EDITS = ('del config.optimizer', 'del config.optimizer.momentum', 'config.optimizer = None', 'config.clip = 5',
         'config.health = {}', 'config.optimizer.base_rat = 1', 'config.epochs = "many"', 'config.epochs = 3.5',
         'config.task = "trian"', 'config.task = None', 'del config.task', 'config.model = config.clip',
         'config.x = 1', 'config.augment.size = 0', 'config.schedule = 3', 'config.schedule = ((0, 1), 2)',
         'config.schedule = "x" * 9999', 'config.schedule = {"phase": ()}', 'config.data.dir = 5',
         'config.framework.loss_options.nope = 1', 'config.framework.loss_options = {"temperature": 0.1}',
         'config.optimizer.milestones = (1,)', 'config.eval = {"name": "x"}', 'config.parts = {}',
         'config = config.clip', 'config = 7')
WORDS = ('stray', '--config.epochz=3', '--config.epochs', '--config.epochs=', '--config.epochs=3.5',
         '--config.epochs=nan', '--config.epochs=9999999999999999999999', '--config.epochs=' + '9' * 5000,
         '--config.batch_size=1e3', '--config.clip=5', '--config.clip={}', '--config.clip.frames.x=1',
         '--config.clip.frames[0]=1', '--config.', '--config..epochs=1', '--config.augment.area=(0.5',
         '--config.augment.area=0.5', '--config.augment.area[2]=1', '--config.augment.area=("a","b")',
         '--config.framework.projector=(0,)', '--config.framework.projector=(-1,)',
         '--config.framework.projector=(32.5,)', '--config.framework.projector=("a",)',
         '--config.framework.projector=', '--config.framework.projector=__import__("os")', '--workdirr=x',
         '--workdir', '--process_id=x', '--nope', '-', '--config=', '--config=nowhere.py', '--config=.',
         '--config=README.md', '--config=configs/report.py', '--config=configs/motion_vicreg.py:nope', '--noconfig',
         '--config.allow_missing=maybe', '--config.model.remat=2', '--config.schedule=vidid',
         '--config.schedule=((0,1),(2))', '--config.schedule=[', '--config.optimizer=None', '--config.seed=-1',
         '--config.seed=4294967296', '--config.clip.stride=0', '--config.clip.stride=1000000',
         '--config.checkpoint.keep=-1', '--config.optimizer.momentum=2', '--config.optimizer.base_rate=0x10')


class Mutation(NamedTuple):
    """A bent config or command line.

    Attributes:
      kind: 'field' (values that no field can hold), 'edge' (those at its ends), 'several' (some of the latter at once),
        'file' or 'words'.
      config: name of the config that is bent.
      change: {field: value}, the text of a file, or words of a command line.
    """

    kind: str
    config: str
    change: dict | str | list


def edges(name: str, value) -> list:
    """Values at the ends of what a field may be: the least and greatest that its rule takes, and other choices."""
    rule = RULES[re.sub(r'^parts\.\w+\.', '', name)]
    told = rule(None)
    if isinstance(value, bool):
        return [not value]
    if told.startswith('one of'):
        return told.removeprefix('one of ').split(', ')
    ends = re.search(r'from (\S+) to (?:below )?(\S+)$', told)
    if not ends:
        return [value]
    low, high = (float(end.replace(',', '')) for end in ends.groups())
    found = [low, high, (low + high) / 2, min(high, low + 1), low + (high - low) * 1e-3]
    found = [round(end) if 'whole' in told else end for end in found]
    if isinstance(value, tuple):
        return [(end,) * max(len(value), 1) for end in found]
    return found


def mutations(seed: int, count: int) -> Iterator[Mutation]:
    """The first `count` of an endless sequence that the seed decides."""
    rng = random.Random(seed)
    for _ in range(count):
        kind, name = rng.choice(('field', 'field', 'edge', 'several', 'file', 'words')), rng.choice(CONFIGS)
        config = flatten(load_config(f'{ROOT}/configs/{name}.py:smoke').to_dict())
        fields = {field: value for field, value in config.items() if field not in ('task', 'data.dir')}
        field = rng.choice(sorted(fields))
        if kind == 'field':
            wrong = PATHS if field in ('eval.name', 'eval.run') and rng.random() < 0.7 else NONSENSE
            change = {field: rng.choice(wrong)}
        elif kind == 'edge':
            change = {field: rng.choice(edges(field, fields[field]))}
        elif kind == 'several':
            change = {field: rng.choice(edges(field, fields[field])) for field in rng.sample(sorted(fields), 3)}
        elif kind == 'file':
            edit = rng.choice((*EDITS, *FILES.values()))
            change = edit if edit in FILES.values() else (
                f'from configs import {name}\ndef get_config():\n    config = {name}.get_config("smoke")\n    {edit}\n'
                '    return config\n')
        else:
            change = rng.sample(WORDS, rng.choice((1, 1, 2)))
        yield Mutation(kind, name, change)


def command(mutation: Mutation, data: Path, folder: Path) -> list[str]:
    """The command line of a mutation; fields are changed in a config file that is written to `folder`."""
    file = f'{ROOT}/configs/{mutation.config}.py:smoke'
    if mutation.kind == 'file':
        file = folder / 'bent.py'
        file.write_text(mutation.change)
    words = mutation.change if mutation.kind == 'words' else []
    given = any(word.partition('=')[0] == '--config' for word in words)
    data = data / ('motion_boxes' if mutation.config == 'motion_detection' else 'motion')
    return ['main.py', *([] if given else [f'--config={file}']), f'--workdir={folder}/work',
            *([] if mutation.kind == 'file' else [f'--config.data.dir={data}']), *words]


def parse(argv: list[str]):
    """The config and workdir of a command line, parsed as main.py does; `SystemExit` with what it printed."""
    values, printed = flags.FlagValues(), StringIO()
    config = define_config_flag(values, argv)
    workdir = flags.DEFINE_string('workdir', None, '', flag_values=values)
    flags.DEFINE_integer('process_id', None, '', flag_values=values)
    with redirect_stderr(printed):
        try:
            parse_flags(argv, values)
        except SystemExit as end:
            raise SystemExit(printed.getvalue()) from end
    return config.value, workdir.value


def bend(config, change: dict):
    """Fields of a config replaced, whatever their type."""
    with config.unlocked(), config.ignore_type():
        for name, value in change.items():
            *groups, last = name.split('.')
            owner = config
            for group in groups:
                owner = owner[group]
            owner[last] = value
    return config


def attempt(mutation: Mutation, prepare: dict, data: Path, folder: Path) -> str:
    """The sentence that a mutation is refused with, '' if it would run: all is checked, nothing compiled.

    Args:
      mutation: what to try.
      prepare: task -> function of (config, workdir) that does what the task does before anything expensive.
      data: prepared data.
      folder: for the config file and the workdir.
    """
    try:
        config, workdir = parse(command(mutation, data, folder))
    except SystemExit as end:
        text = str(end).removesuffix('\n')
        assert text.startswith('error: '), text
        return text.removeprefix('error: ')
    try:
        if isinstance(mutation.change, dict):
            bend(config, mutation.change)
        choose_task(config, TASKS)
        check_fields(config)
        check_workdir(workdir, config.task)
        if config.task in prepare:
            prepare[config.task](config, workdir)
        return ''
    except UserError as error:
        return str(error)


class Ready(Exception):
    """All was checked."""


def ready(workdir: Path) -> dict:
    """task -> what it does before anything expensive, with an encoder without weights in place of that of a run."""
    from vididi_jax.detection import task as detection
    from vididi_jax.evaluate import eval_all, features, finetune, linear, recognition, retrieval
    from vididi_jax.models.build import build_encoder
    from vididi_jax.pixels.augment import Augmentation
    from vididi_jax.train import mesh, pretrain
    from vididi_jax.train.encoder import Encoder

    def empty(training, *_, **__) -> Encoder:
        module = build_encoder(training.model, mesh.first_device(mesh.make_mesh()))
        return Encoder(module, {}, Augmentation(**training.augment), 0)

    def train(config, _, make_task):
        make_task(config, mesh.make_mesh())
        raise Ready

    def detect(config, folder: str) -> None:
        with mock.patch.object(detection.loop, 'run', train), suppress(Ready):
            detection.run(config, folder)

    def with_encoder(function, module):
        def run(config, _):
            with mock.patch.object(module, 'asked_encoder', empty):
                return function(config, str(workdir))
        return run

    def pretraining(config, _) -> None:
        pretrain.make_task(config, mesh.make_mesh())

    evaluations = {'retrieval': retrieval.prepare, 'linear': linear.prepare, 'finetune': finetune.prepare,
                   'eval_all': eval_all.prepare}
    return {'pretrain': pretraining, 'inspect': pretraining, 'features': with_encoder(features._open, features),
            'detection': with_encoder(detect, detection),
            **{name: with_encoder(function, recognition) for name, function in evaluations.items()}}


def make_data(folder: Path) -> tuple[Path, Path]:
    """A folder with the smallest data sets, without and with boxes, and a workdir whose config is of a run on them."""
    from data_prep import motion, motion_boxes
    from data_prep.writer import write_dataset
    from vididi_jax.train.run import write_config

    arguments = argparse.Namespace(train=24, test=8, frames=24, size=32, seed=0)
    for module in (motion, motion_boxes):
        write_dataset(*module.plan(arguments), folder / module.__name__.removeprefix('data_prep.'), workers=1)
    config = load_config(f'{ROOT}/configs/motion_vicreg.py:smoke')
    config.data.dir = str(folder / 'motion')
    write_config(config, folder / 'run')
    return folder, folder / 'run'


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--count', type=int, default=400)
    arguments = parser.parse_args()
    counts = Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data, run = make_data(folder)
        prepare = ready(run)
        for number, mutation in enumerate(mutations(arguments.seed, arguments.count)):
            (folder / str(number)).mkdir()
            try:
                told = attempt(mutation, prepare, data, folder / str(number))
                outcome = 'refused' if told else 'accepted'
            except Exception as error:
                told, outcome = f'{type(error).__name__}: {error}', 'RAW'
            counts[mutation.kind, outcome] += 1
            shutil.rmtree(folder / str(number))
            change = ' '.join(repr(mutation.change).split())
            print(f'{number:3} {mutation.kind:8} {outcome:8} {mutation.config:16} {change:.100} -> {told:.300}')
    print(dict(counts))


if __name__ == '__main__':
    main()
