"""The figures of a comparison: mean and deviation over seeds, and a paired bootstrap over test videos."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from vididi_jax.compare.runs import Group, mean_scores, read_sources
from vididi_jax.errors import UserError

CONFIDENCE = 0.95


class Bootstrap(NamedTuple):
    """A difference of two groups, in the units of the metric.

    Attributes:
      difference: mean over the videos of (this group - the other one).
      low, high: percentile interval that holds `CONFIDENCE` of the resampled means.
      p: two-sided.
      videos: how many there were.
      groups: of how many groups, see `paired_bootstrap`.
    """

    difference: float
    low: float
    high: float
    p: float
    videos: int
    groups: int


class Figure(NamedTuple):
    """One metric of one group.

    Attributes:
      group: whose it is.
      evaluation: folder below WORKDIR/eval.
      features: kind of feature.
      metric: such as 'R@1'.
      values: one a run.
      mean: over the runs.
      std: with ddof = 1; None of one run.
      chance: in the metric's units; None where it is not known.
      against: name of the group that this one is compared with, or ''.
      test: of the comparison; None where there is none.
    """

    group: Group
    evaluation: str
    features: str
    metric: str
    values: tuple[float, ...]
    mean: float
    std: float | None
    chance: float | None
    against: str
    test: Bootstrap | None


def paired_bootstrap(differences: np.ndarray, groups: Sequence[str], samples: int, seed: int) -> Bootstrap:
    """Whether a mean of paired differences (N,) is other than 0, by resampling the groups that the pairs are of.

    Videos of one source (a person, a scene) are not independent, so a group is drawn as a whole. The mean of a sample
    is the sum of its differences by their number; of groups of one video each that is the usual one.

    p = min(1, 2 (1 + min(#{m <= 0}, #{m >= 0})) / (1 + samples)) of the resampled means m (Davison and Hinkley, 1997,
    section 4.2: the observed sample counts as one, so p is never 0; section 3.8 on groups).
    """
    _, group = np.unique(np.asarray(groups), return_inverse=True)
    sums, counts = np.bincount(group, differences), np.bincount(group)
    if len(counts) < 2:  # nothing to resample
        return Bootstrap(float(differences.mean()), float('nan'), float('nan'), 1.0, len(differences), len(counts))
    found = stats.bootstrap((sums, counts), lambda sums, counts, axis: sums.sum(axis) / counts.sum(axis), paired=True,
                            n_resamples=samples, batch=1000, confidence_level=CONFIDENCE, method='percentile',
                            random_state=np.random.default_rng(seed))
    means = found.bootstrap_distribution.round(9)  # thirds, of three seeds, do not add up to 0 exactly
    tail = min(np.count_nonzero(means <= 0), np.count_nonzero(means >= 0))
    low, high = found.confidence_interval
    return Bootstrap(float(differences.mean()), float(low), float(high), min(1.0, 2 * (1 + tail) / (1 + samples)),
                     len(differences), len(counts))


def find_baselines(groups: list[Group], against: str) -> dict[str, Group]:
    """{name of a group: the one that it is compared with}.

    Args:
      groups: all.
      against: 'FIELD=VALUE': the group that has this value and is the same in all else; '': the first of the groups.

    Raises:
      UserError: no group has this value.
    """
    if not against:
        return {group.name: groups[0] for group in groups[1:]}
    field, _, value = against.partition('=')
    have = sorted({f'{name}={value}' for group in groups for name, value in group.values.items()})
    if against not in have:
        advice = f'choose one of {", ".join(have)}' if have else 'there is one group only, so leave it out'
        raise UserError(f'config.against is {against!r}, and no group of runs is that: {advice}.')
    known = {tuple(group.values.items()): group for group in groups}
    pairs = {group.name: known.get(tuple({**group.values, field: value}.items())) for group in groups}
    return {name: other for name, other in pairs.items() if other is not None and other.name != name}


def compare(groups: list[Group], evaluations: list[str], *, against: str, samples: int, seed: int) -> list[Figure]:
    """Every metric of every group; the first metric of each kind of feature is compared with the baseline's.

    The runs are taken as given: what is resampled are the test videos, each with its mean over the runs of a group.
    """
    baselines = find_baselines(groups, against)
    return [figure for evaluation in evaluations for group in groups
            for figure in figures_of(group, evaluation, baselines.get(group.name), samples, seed)]


def figures_of(group: Group, evaluation: str, other: Group | None, samples: int, seed: int) -> Iterator[Figure]:
    results = [run.results[evaluation] for run in group.runs]
    for kind, metrics in results[0]['metrics'].items():
        for number, metric in enumerate(metrics):
            scale = 100 if metric == 'frame_mAP' else 1  # which results have from 0 to 1, all else in percent
            values = tuple(scale * result['metrics'][kind][metric] for result in results)
            test = test_of(group, other, evaluation, kind, samples, seed) if other and number == 0 else None
            yield Figure(group, evaluation, kind, metric, values, float(np.mean(values)),
                         float(np.std(values, ddof=1)) if len(values) > 1 else None,
                         results[0].get('chance') if number == 0 else None, other.name if test else '', test)


def test_of(group: Group, other: Group, evaluation: str, kind: str, samples: int, seed: int) -> Bootstrap | None:
    mine, theirs = (mean_scores(which, evaluation, kind) for which in (group, other))
    if mine is None or theirs is None or len(mine) < 2:
        return None
    if mine.keys() != theirs.keys():
        raise UserError(f'{group.runs[0].workdir} and {other.runs[0].workdir} were not evaluated on the same videos '
                        f'(eval/{evaluation}/videos.csv): evaluate both on the same data.')
    sources = read_sources(group.runs[0], evaluation)
    return paired_bootstrap(np.array([mine[video] - theirs[video] for video in mine]),
                            [sources[video] for video in mine], samples, seed)
