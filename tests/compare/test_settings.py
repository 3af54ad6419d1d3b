"""What a comparison's settings do: its seed, its interval, and what may differ between evaluations of one name."""

import json
import re
import shutil

import numpy as np
import pytest

from tests.compare.test_compare import compare, two_runs, write
from vididi_jax import config as configs
from vididi_jax.compare.statistics import paired_bootstrap
from vididi_jax.errors import UserError


def change(folder, **changes):
    """Other fields of a run's results."""
    path = folder / 'eval' / 'retrieval' / 'results.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_the_interval_of_skewed_differences_is_that_of_percentiles():
    difference = np.append(np.zeros(14), 100.0)
    found = paired_bootstrap(difference, range(15), 10_000, 0)
    means = difference[np.random.default_rng(1).integers(0, 15, (10_000, 15))].mean(1)
    np.testing.assert_allclose((found.low, found.high), np.percentile(means, (2.5, 97.5)))  # whole fifteenths of 100
    assert found.low == 0


def test_the_seed_decides_what_is_drawn(root, tmp_path):
    two_runs(root, tmp_path)
    drawn = {seed: [(row['low'], row['high']) for row in compare(root, tmp_path, samples=100, seed=seed)]
             for seed in (0, 1)}
    assert drawn[0] != drawn[1]


def test_the_first_metric_alone_is_tested_and_what_some_runs_lack_is_told(root, tmp_path, capsys):
    """Of no other metric are there scores of videos."""
    two_runs(root, tmp_path)
    shutil.copytree(tmp_path / 'runs' / 'a' / 'eval' / 'retrieval', tmp_path / 'runs' / 'a' / 'eval' / 'other')
    assert [(row['metric'], bool(row['p'])) for row in compare(root, tmp_path)[2:]] == [('R@1', True), ('R@5', False)]
    assert '2 runs in 2 group(s); not all runs have: other\n' in capsys.readouterr().out


def test_what_decides_nothing_of_an_evaluation_may_differ_and_all_else_may_not(root, tmp_path):
    two_runs(root, tmp_path)
    for number, name in enumerate('ab'):
        change(tmp_path / 'runs' / name, config={
            'allow_missing': bool(number), 'checkpoint': {'keep': number}, 'data': {'dir': name}, 'log': number,
            'seed': number, 'eval': {'name': name, 'frames': 8}})
        shutil.copytree(tmp_path / 'runs' / name / 'eval' / 'retrieval', tmp_path / 'runs' / name / 'eval' / 'other')
    assert len(compare(root, tmp_path, evaluations='retrieval, other')) == 8
    change(tmp_path / 'runs' / 'b', config={'eval': {'name': 'b', 'frames': 16}})
    with pytest.raises(UserError, match=re.escape('do not compare: their config.eval.frames differ (8 and 16)')):
        compare(root, tmp_path)


def test_an_evaluation_from_before_a_run_went_on_is_refused_also_where_its_metrics_are_gone(root, tmp_path):
    config = configs.load_config(f'{root}/configs/motion_vicreg.py')
    config.epochs = 3
    write(tmp_path / 'runs' / 'a', config, np.ones(9), config={'eval': {'checkpoint': 'latest'}}, checkpoint_step=12,
          training_config={'epochs': 2})
    with pytest.raises(UserError, match='is of a run of 2 epochs, which goes to 3 by now'):
        compare(root, tmp_path)


@pytest.mark.parametrize('task', ['finetune', 'detection'])
def test_runs_from_scratch_want_a_seed_each_and_those_of_encoders_do_not(root, tmp_path, task):
    config = configs.load_config(f'{root}/configs/motion_vicreg.py')
    for config.seed in (0, 1):
        write(tmp_path / 'runs' / str(config.seed), config, np.ones(9), config={'seed': 7, task: {'epochs': 1}})
    assert [row['runs'] for row in compare(root, tmp_path)] == ['2', '2']
    for run in '01':
        change(tmp_path / 'runs' / run, encoder='untrained')
    with pytest.raises(UserError, match='trained from scratch with one seed, 7, so it is one run'):
        compare(root, tmp_path)
