"""The runs that are compared: found, read, and put into groups of runs that differ in nothing but the seed."""

import csv
import glob
import itertools
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vididi_jax.config import flatten, text_of, to_dict
from vididi_jax.errors import UserError
from vididi_jax.evaluate.results import check_whole, read_result
from vididi_jax.train.metric_writer import read_metrics
from vididi_jax.train.run import MAY_DIFFER, changed_by_hand, workdir_config

FIRST = ('framework.loss', 'schedule', 'model.name')  # what a table of runs is about, if these differ
# What one evaluation of all runs has in common.
SAME = ('task', 'protocol', 'clips_x_crops', 'encoder', 'counts', 'fingerprint')
# What its tables are made of.
NEEDED = 'metrics', 'protocol', 'counts', 'clips_x_crops', 'encoder', 'commit'
# Fields of an evaluation's config that may differ: they decide nothing of what is measured, or are drawn.
FREE = ('allow_missing', 'checkpoint', 'data', 'eval.name', 'log', 'seed')


class Run(NamedTuple):
    """A training run.

    Attributes:
      workdir: its folder.
      config: {dotted field: value}; the schedule is one of them, however it is spelled.
      results: {folder below WORKDIR/eval: its results.json}, without those of several evaluations in one.
    """

    workdir: Path
    config: dict
    results: dict[str, dict]


class Group(NamedTuple):
    """Runs that differ in nothing but the seed.

    Attributes:
      name: 'FIELD=VALUE, ...' of what tells it from the other groups; 'all' if there is one group only.
      values: {field: value} of the same.
      runs: a run a seed.
    """

    name: str
    values: dict[str, str]
    runs: list[Run]


def find_workdirs(runs: str) -> tuple[list[Path], int]:
    """The workdirs that 'A,B,...' names, where each may be a pattern such as 'runs/*', each once.

    Returns:
      The workdirs, in the order of the text; and the number of what a pattern matched that is no workdir.

    Raises:
      UserError: nothing is asked for, or a pattern matches no workdir.
    """
    found, other = [], 0
    for part in filter(None, (part.strip() for part in runs.split(','))):
        if not glob.has_magic(part):
            found.append(Path(part))
            continue
        matched = [Path(path) for path in sorted(glob.glob(part))]
        workdirs = [path for path in matched if (path / 'config.json').is_file()]
        if not workdirs:
            raise UserError(f'no folder that {part} matches is the workdir of a training run (has a config.json): '
                            'correct config.runs.')
        found += workdirs
        other += len(matched) - len(workdirs)
    if not found:
        raise UserError('config.runs is empty: give workdirs of training runs, as --config.runs=A,B or '
                        "--config.runs='runs/*'.")
    return list({path.resolve(): path for path in found}.values()), other


def path_of(run: Run, evaluation: str, file: str = 'results.json') -> Path:
    """A file of an evaluation."""
    return run.workdir / 'eval' / evaluation / file


def read_run(workdir: Path) -> Run:
    """A workdir's config and results; raises `UserError` if it is none, or has no result."""
    values = to_dict(workdir_config(workdir))
    own = flatten(values)
    if 'schedule' in values:
        values['schedule'] = text_of(values['schedule'])
    config = flatten(values)
    results = {}
    for path in sorted(workdir.glob('eval/*/results.json')):
        result = read_result(path)
        trained = flatten(result.get('training_config', {}))
        other = [name for name in changed_by_hand(trained, own) if name in trained and name in own]
        if other:
            raise UserError(f'{path} is of a run with {other[0]}={trained.get(other[0])!r}, and {workdir} is one with '
                            f'{own.get(other[0])!r}: evaluate it again.')
        if result['task'] != 'eval_all':  # whose parts have results of their own
            results[path.parent.name] = result
    if not results:
        raise UserError(f'{workdir} has no result to compare: evaluate it first (configs/retrieval.py, or '
                        '`vididi evaluate retrieval`).')
    return Run(workdir, config, results)


def decisive_fields(configs: list[dict]) -> list[str]:
    """Fields that decide what is trained, see `train.run.MAY_DIFFER`, and the data; without the seed."""
    free = tuple(f'{name}.' for name in (*MAY_DIFFER, 'seed') if name != 'data.dir')
    return sorted({name for config in configs for name in config if not f'{name}.'.startswith(free)})


def telling_fields(configs: list[dict]) -> tuple[str, ...]:
    """The fewest decisive fields, in the order of `FIRST` and then of the alphabet, that tell apart what differs."""
    names = decisive_fields(configs)
    names.sort(key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))

    def parts(fields: tuple[str, ...]) -> int:
        return len({json.dumps([config.get(field) for field in fields]) for config in configs})

    chosen = ()
    for name in names:
        if parts((*chosen, name)) > parts(chosen):
            chosen = (*chosen, name)
    return chosen


def group_runs(runs: list[Run]) -> list[Group]:
    """Groups in the order of their first run; raises `UserError` if two runs of a group have the same seed."""
    fields = telling_fields([run.config for run in runs])
    groups: dict[tuple, Group] = {}
    for run in runs:
        values = {field: text_of(run.config.get(field)) for field in fields}
        name = ', '.join(f'{field}={value}' for field, value in values.items()) or 'all'
        group = groups.setdefault(name, Group(name, values, []))
        twin = next((other for other in group.runs if other.config['seed'] == run.config['seed']), None)
        if twin:
            raise UserError(f'{twin.workdir} and {run.workdir} have the same config and the same seed '
                            f'{run.config["seed"]}: leave one of them out of config.runs.')
        group.runs.append(run)
    return list(groups.values())


def untold_differences(group: Group, other: Group) -> list[str]:
    """'FIELD VALUE for VALUE' of each decisive field in which two groups differ, without those that name them."""
    here, there = (which.runs[0].config for which in (group, other))
    return [f'{field} {text_of(here.get(field))} for {text_of(there.get(field))}'
            for field in decisive_fields([here, there])
            if field not in group.values and here.get(field) != there.get(field)]


def common_evaluations(runs: list[Run], asked: str) -> tuple[list[str], list[str]]:
    """Names of the evaluations to compare: those asked for as 'A,B', or all that every run has.

    Returns:
      Them, and the names of those that are left out because some runs have none of that name.

    Raises:
      UserError: a run lacks what is asked for, no evaluation is common to all, or one was not made alike in all.
    """
    every = list(dict.fromkeys(name for run in runs for name in run.results))
    names = [name.strip() for name in asked.split(',')] if asked else [
        name for name in every if all(name in run.results for run in runs)]
    if not names:
        raise UserError('the runs have no evaluation in common: evaluate all with the same configs and the same '
                        'eval.name.')
    for name in names:
        for run in runs:
            if name not in run.results:
                raise UserError(f'{run.workdir} has no evaluation {name!r} (it has {", ".join(run.results)}): make it, '
                                'or leave it out of config.evaluations.')
            check_whole(path_of(run, name), run.results[name], *NEEDED)
            for key in SAME:
                here, there = runs[0].results[name].get(key), run.results[name].get(key)
                if here != there:
                    raise UserError(f'evaluation {name!r} of {runs[0].workdir} and of {run.workdir} do not compare: '
                                    f'their {key} differ ({here!r:.100} and {there!r:.100}).')
            check_settings(name, runs[0], run)
    return names, [] if asked else [name for name in every if name not in names]


def check_settings(name: str, first: Run, run: Run) -> None:
    """Raises `UserError` if an evaluation of two runs had other settings, such as another number of epochs."""
    here, there = (flatten(other.results[name].get('config', {})) for other in (first, run))
    for field in sorted(here.keys() | there.keys()):
        free = any(f'{field}.'.startswith(f'{other}.') for other in FREE)
        if not free and here.get(field) != there.get(field):
            raise UserError(f'evaluation {name!r} of {first.workdir} and of {run.workdir} do not compare: their '
                            f'config.{field} differ ({here.get(field)!r:.100} and {there.get(field)!r:.100}).')


def check_trained(groups: list[Group], evaluations: list[str]) -> None:
    """Raises `UserError` if the latest checkpoint that was evaluated of a run is not that of its end.

    The config says how many epochs a run goes to, and metrics.jsonl how far it went; runs of a group, which differ in
    their seed, end at one step.
    """
    for group, name in itertools.product(groups, evaluations):
        check_drawn(group, name)
        latest = [run for run in group.runs if run.results[name]['encoder'] == 'trained'
                  and flatten(run.results[name].get('config', {})).get('eval.checkpoint') == 'latest']
        for run in latest:
            check_whole(path_of(run, name), run.results[name], 'training_config', 'checkpoint_step')
            result, first = run.results[name], latest[0].results[name]
            then, now = result['training_config']['epochs'], run.config['epochs']
            if then != now:
                raise UserError(f'evaluation {name!r} of {run.workdir} is of a run of {then} epochs, which goes to '
                                f'{now} by now: evaluate it again, or leave it out of config.evaluations.')
            for row in read_metrics(run.workdir)[-1:]:
                epoch = row.get('epoch', now - 1)
                if row['step'] > result['checkpoint_step'] or epoch + 1 < now:
                    raise UserError(
                        f'evaluation {name!r} of {run.workdir} is of step {result["checkpoint_step"]:,}, and the run, '
                        f'which goes to {now} epochs, is at step {row["step"]:,}, in epoch {epoch + 1}: train '
                        'it to the end, and evaluate it again, or leave it out of config.evaluations.')
            if result['checkpoint_step'] != first['checkpoint_step']:
                raise UserError(
                    f'evaluation {name!r} of {latest[0].workdir} is of step {first["checkpoint_step"]:,} and that of '
                    f'{run.workdir} of step {result["checkpoint_step"]:,}: train both to the end, and evaluate again.')


def check_drawn(group: Group, name: str) -> None:
    """Raises `UserError` where runs of a group are one and the same: trained from scratch, with one seed."""
    seeds = [run.results[name]['config']['seed'] for run in group.runs if run.results[name]['encoder'] == 'untrained'
             and {'finetune', 'detection'} & run.results[name].get('config', {}).keys()]
    if len(set(seeds)) < len(seeds):
        raise UserError(f'evaluation {name!r} of the {len(seeds)} runs of {group.name} was trained from scratch with '
                        f'one seed, {seeds[0]}, so it is one run: evaluate each with a --config.seed of its own.')


def read_videos(run: Run, evaluation: str) -> list[dict[str, str]]:
    """The rows of videos.csv; none where an evaluation has no such file.

    Raises `UserError` for one that is damaged, or without groups.
    """
    path = path_of(run, evaluation, 'videos.csv')
    if not path.exists():
        return []
    try:
        with path.open(newline='', encoding='utf-8') as file:
            rows = list(csv.DictReader(file, strict=True))
        wrong = damage(rows, list(run.results[evaluation]['metrics']))
    except (csv.Error, UnicodeDecodeError) as error:
        rows, wrong = [], str(error)
    if rows and 'id' in rows[0] and 'group' not in rows[0]:
        raise UserError(f'{path} was written by an older version, without groups: evaluate {run.workdir} again.')
    if wrong:
        raise UserError(f'{path} is damaged ({wrong}): evaluate {run.workdir} again.')
    return rows


def damage(rows: list[dict], kinds: list[str]) -> str:
    """What is wrong with the rows of a videos.csv, of these kinds of features; '' if nothing is."""
    absent = [name for name in ('fold', 'id', 'group', *kinds) if not rows or name not in rows[0]]
    if absent:
        return f'it has no {absent[0]}'
    for number, row in enumerate(rows, 1):
        if None in row or None in row.values():  # more columns, or fewer
            return f'video {number} has other columns than the first line says'
        if wrong := [row[kind] for kind in kinds if not is_share(row[kind])]:
            return f'video {number} has the score {wrong[0]!r:.80}'
    return ''


def is_share(text: str) -> bool:
    """Whether a text is a number from 0 to 1."""
    try:
        return 0 <= float(text) <= 1
    except ValueError:
        return False


def read_sources(run: Run, evaluation: str) -> dict[tuple[str, str], str]:
    """{(fold, id): what a video depends on: its group, or itself where it has none}."""
    return {(row['fold'], row['id']): row['group'] or f'/{row["id"]}' for row in read_videos(run, evaluation)}


def read_scores(run: Run, evaluation: str) -> dict[str, dict[tuple[str, str], float]]:
    """{kind of feature: {(fold, id): percent}} of videos.csv; nothing where an evaluation has none."""
    rows = read_videos(run, evaluation)
    if not rows:
        return {}
    return {kind: {(row['fold'], row['id']): 100 * float(row[kind]) for row in rows}
            for kind in run.results[evaluation]['metrics']}


def mean_scores(group: Group, evaluation: str, kind: str) -> dict[tuple[str, str], float] | None:
    """{(fold, id): percent, the mean over the runs}; None where a run has no scores of videos.

    Raises `UserError` if the runs were not evaluated on the same videos.
    """
    found = [read_scores(run, evaluation).get(kind) for run in group.runs]
    if None in found:
        return None
    for run, scores in zip(group.runs, found, strict=True):
        if scores.keys() != found[0].keys():
            raise UserError(f'{group.runs[0].workdir} and {run.workdir} were not evaluated on the same videos '
                            f'(eval/{evaluation}/videos.csv): evaluate both on the same data.')
    return {video: float(np.mean([scores[video] for scores in found])) for video in found[0]}
