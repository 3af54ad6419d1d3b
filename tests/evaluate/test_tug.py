"""Motion over background against plain loops over triples, and through the command."""

import csv
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from data_prep.__main__ import build_parser
from data_prep.__main__ import run as prepare
from tests.data_sets import edit_rows
from tests.evaluate.test_protocol import edit
from tests.evaluate.test_retrieval import MadeUp
from vididi_jax import config as configs
from vididi_jax.data.manifest import ROW
from vididi_jax.errors import UserError
from vididi_jax.evaluate import tug
from vididi_jax.evaluate.protocol import Fold, Protocol, Side
from vididi_jax.report.summary import headlines


def brute_force(x, labels, groups):
    """{query: share of its pairs that the positive wins}, with three loops."""
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    similarity = np.round(unit @ unit.T, 9)
    found = {}
    for q in range(len(x)):
        wins = []
        for p in range(len(x)):
            for n in range(len(x)):
                if labels[p] == labels[q] and groups[p] != groups[q] and labels[n] != labels[q] and (
                        groups[n] == groups[q]):
                    a, b = similarity[q, p], similarity[q, n]
                    wins.append(1.0 if a > b else 0.5 if a == b else 0.0)
        if wins:
            found[q] = np.mean(wins)
    return found


@pytest.mark.parametrize('ties', [False, True])
def test_shares_equal_three_loops(ties):
    rng = np.random.default_rng(0)
    x, labels, groups = rng.normal(size=(40, 6)), rng.integers(0, 4, 40), rng.integers(0, 12, 40)
    if ties:
        x = rng.integers(0, 2, (40, 3)) + np.eye(3)[rng.integers(0, 3, 40)]
    expected = brute_force(x, labels, groups)
    asked = np.flatnonzero(tug.can_ask(labels, groups))
    assert list(asked) == list(expected) and len(asked) < 40
    found, nearest = tug.shares(x, labels, groups, asked)
    np.testing.assert_allclose(found, list(expected.values()), rtol=1e-12)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    for query, label in zip(asked, nearest, strict=True):
        rivals = np.flatnonzero((labels != labels[query]) & (groups == groups[query]))
        assert label == labels[rivals[np.round(unit[rivals] @ unit[query], 9).argmax()]]


def test_an_encoder_of_the_class_has_100_and_one_of_the_group_0():
    labels, groups = np.arange(12) % 3, np.arange(12) // 3
    asked = np.arange(12)
    assert tug.shares(np.eye(3)[labels], labels, groups, asked)[0].mean() == 1
    assert tug.shares(np.eye(4)[groups], labels, groups, asked)[0].mean() == 0


def test_the_command_on_triples(root, finished, tiny_motion, tmp_path, capsys):
    """Of a run: both evaluations and the line that sums up; data without groups are refused."""
    prepare(build_parser().parse_args(['motion', '--triples', '--test=16', '--size=16', '--workers=1',
                                       f'--out={tmp_path / "triples"}']))
    work = shutil.copytree(finished[0], tmp_path / 'work')
    results = {}
    for untrained in (True, False):
        config = configs.load_config(f'{root}/configs/tug.py:smoke')
        config.data.dir, config.eval.untrained = str(tmp_path / 'triples'), untrained
        config.eval.name = f'tug_{untrained}'
        metrics = tug.run(config, str(work))
        assert list(metrics) == ['V', 'dV', 'd2V', 'joined']
        results[config.eval.name] = json.loads((work / 'eval' / config.eval.name / 'results.json').read_text())
    result = results['tug_False']
    assert result['counts']['all']['videos'] == 48 and result['folds'][0]['test_videos'] == 32
    assert result['chance'] == 50 and np.sum(result['confusion']['counts']) == 32
    rows = list(csv.DictReader((work / 'eval' / 'tug_False' / 'videos.csv').open()))
    assert len(rows) == 32 and not any(row['id'].endswith('positive') for row in rows)
    for kind in result['metrics']:  # six digits in the file
        mean = 100 * np.mean([float(row[kind]) for row in rows])
        assert mean == pytest.approx(result['metrics'][kind]['motion over background'], abs=1e-3)
    line, = map(str, headlines(results))
    untrained, trained = (results[name]['metrics']['V']['motion over background'] for name in ('tug_True', 'tug_False'))
    assert line == f'motion over background untrained={untrained:.1f} trained={trained:.1f} chance=50.0'
    config.data.dir = ''
    with pytest.raises(UserError, match="has no video with one of its class in another group and one of another"):
        tug.run(config, str(work))


def test_confusion_of_tug_is_the_class_or_what_pulls_most():
    labels, groups = np.arange(12) % 3, np.arange(12) // 3
    source = MadeUp(labels)
    source.groups = groups.astype(str)
    side = Side(source, np.arange(12))
    stub = SimpleNamespace(protocol=Protocol('', (Fold('', side, side),), {'all': (side,)}))
    of_class, of_group = np.eye(3)[labels], np.eye(4)[groups]
    for x, right in ((of_class, 12), (of_group, 0)):
        outcome, = tug.pull(stub, lambda side, x=x: {0: x, 1: of_class, 2: of_group})
        assert np.trace(outcome.confusion) == right and outcome.confusion.sum() == 12
        assert [outcome.metrics[kind][tug.METRIC] for kind in ('V', 'dV', 'd2V')] == [100 * right / 12, 100, 0]
    outcome, = tug.pull(stub, lambda side: dict.fromkeys((0, 1, 2), np.ones((12, 2))))  # half of all pairs
    assert np.trace(outcome.confusion) == 12 and outcome.metrics['V'][tug.METRIC] == 50


def test_queries_are_of_the_videos_that_are_used(root, tiny_motion, tmp_path):
    """Of groups with one video of each class, and one video that is too short; none may be missing."""
    data = edit(tiny_motion, tmp_path / 'data', lambda i, row: row | {'group': f'{row["split"]}{i // 8}'} | (
        {'frames': 7} if i == 1 else {}))
    config = configs.load_config(f'{root}/configs/tug.py:smoke')
    config.eval.split, config.eval.short_video = 'train', 'drop'
    fold, = tug.open_queries(config, data).folds
    assert fold.test.videos.tolist() == fold.train.videos.tolist() == [0, *range(2, 48)]
    with (tmp_path / 'data' / 'manifest.jsonl').open('a') as file:
        file.write(json.dumps(dict.fromkeys(ROW) | {'label': 'left', 'split': 'train', 'status': 'missing'}) + '\n')
    edit_rows(tmp_path / 'data', lambda i, row: row)
    with pytest.raises(UserError, match='48 of its 49 listed videos .1 missing'):
        tug.open_queries(config, data)
    config.eval.split = 'val'
    with pytest.raises(UserError, match="has no split 'val': .* or prepare the data with that one[.]$"):
        tug.open_queries(config, data)
