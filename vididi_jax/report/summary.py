"""The lines that sum up a run which was evaluated before and after training."""

LINES = (('tug', 'V', 'motion over background', 'motion over background'), ('retrieval', 'joined', 'R@1', 'R@1'))


def summary(results: dict[str, dict]) -> list[str]:
    """A line for each task of `LINES` (task, kind of feature, metric, name) that has a result of both encoders.

    Args:
      results: every results.json of a workdir, by the name of its folder.
    """
    lines = []
    for task, kind, metric, name in LINES:
        found = {result['encoder']: result for result in results.values() if result['task'] == task}
        if found.keys() == {'untrained', 'trained'}:
            figure = {encoder: result['metrics'][kind][metric] for encoder, result in found.items()}
            lines.append(f'{name} untrained={figure["untrained"]:.1f} trained={figure["trained"]:.1f} '
                         f'chance={found["trained"]["chance"]:.1f}')
    return lines
