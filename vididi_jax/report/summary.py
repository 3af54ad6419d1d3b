"""The figures that sum up a run which was evaluated before and after training."""

from typing import NamedTuple


class Headline(NamedTuple):
    """One figure before and after training, in percent."""

    name: str
    untrained: float
    trained: float
    chance: float

    def __str__(self) -> str:
        return (f'{self.name} untrained={self.untrained:.1f} trained={self.trained:.1f} '
                f'chance={self.chance:.1f}')


FIGURES = (('tug', 'V', 'motion over background', 'motion over background'), ('retrieval', 'joined', 'R@1', 'R@1'))


def headlines(results: dict[str, dict]) -> list[Headline]:
    """One for each of `FIGURES` (task, kind of feature, metric, name) that has a result of both encoders.

    Args:
      results: every results.json of a workdir, by the name of its folder.
    """
    found = []
    for task, kind, metric, name in FIGURES:
        of = {result['encoder']: result for result in results.values() if result['task'] == task}
        if of.keys() == {'untrained', 'trained'}:
            figure = {encoder: result['metrics'][kind][metric] for encoder, result in of.items()}
            found.append(Headline(name, figure['untrained'], figure['trained'], of['trained']['chance']))
    return found
