"""What a run is, and the figures that sum it up if it was evaluated before and after training."""

from pathlib import Path
from typing import NamedTuple

import ml_collections

from vididi_jax.config import text_of, to_dict
from vididi_jax.errors import UserError
from vididi_jax.train.run import workdir_config


def pretraining_config(workdir: str | Path) -> ml_collections.ConfigDict:
    """Of a run of pretraining; raises `UserError` for any other folder."""
    config = workdir_config(workdir)
    if 'loss' not in config.get('framework', {}):
        raise UserError(f'{workdir} is a run of fine-tuning or detection, and reports are of pretraining: its results '
                        'are on the page of the run that it started from.')
    return config


def schedule_of(training: ml_collections.ConfigDict) -> str:
    """The name of a run's schedule, or what it is."""
    return text_of(to_dict(training)['schedule'])


def start_of(training: ml_collections.ConfigDict) -> str:
    """What the encoder was before the first step of a run."""
    return f'before this run, from {training.init_from}' if training.init_from else 'untrained'


class Headline(NamedTuple):
    """One figure before and after training, in percent.

    Attributes:
      name: of the metric.
      untrained, trained, chance: its values.
      step: the steps of that training.
      about: of which features, how many videos, and which protocol.
    """

    name: str
    untrained: float
    trained: float
    chance: float
    step: int
    about: str

    def __str__(self) -> str:
        return (f'{self.name} untrained={self.untrained:.1f} trained={self.trained:.1f} '
                f'chance={self.chance:.1f}')


FIGURES = (('tug', 'V', 'motion over background', 'motion over background'), ('retrieval', 'joined', 'R@1', 'R@1'))


ALIKE = ('task', 'protocol', 'clips_x_crops', 'counts', 'fingerprint')  # of results that may stand side by side
OWN = ('name', 'untrained', 'checkpoint')  # fields of `config.eval` that say which encoder was asked, not what


def alike(one: dict, other: dict) -> bool:
    """Whether two results are of the same question, asked of the same clips."""
    def question(result: dict) -> list:
        settings = result.get('config', {}).get('eval', {})
        return [*(result.get(name) for name in ALIKE),
                {name: value for name, value in settings.items() if name not in OWN}]

    return question(one) == question(other)


def tested(result: dict) -> int:
    """How many videos were on the test side: of groups that are left out in turn, all."""
    counts = result['counts']
    return (counts['test'] if 'test' in counts else counts['all'])['videos']


def newest_first(results: dict[str, dict], task: str) -> list[dict]:
    found = [result for result in results.values() if result['task'] == task]
    return sorted(found, key=lambda result: result['date'], reverse=True)


def headlines(results: dict[str, dict]) -> list[Headline]:
    """One for each of `FIGURES` (task, kind of feature, metric, name) that has results of both encoders, and alike.

    Args:
      results: every results.json of a workdir, by the name of its folder. Of several pairs the newest counts.
    """
    found = []
    for task, kind, metric, name in FIGURES:
        of_task = newest_first(results, task)
        pairs = [(before, after) for after in of_task if after['encoder'] == 'trained'
                 for before in of_task if before['encoder'] == 'untrained' and alike(before, after)]
        if pairs:
            before, after = pairs[0]
            asked = after['queries']['asked'] if 'queries' in after else tested(after)
            found.append(Headline(name, *(result['metrics'][kind][metric] for result in pairs[0]), after['chance'],
                                  after['checkpoint_step'],
                                  f'features of {kind}, {asked:,} videos of {after["protocol"]}'))
    return found
