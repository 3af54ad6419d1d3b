"""Comparisons of damaged files, and on a full disk."""

import json

import pytest

from tests.compare.test_compare import compare, two_runs
from vididi_jax.errors import UserError


def test_a_full_disk_leaves_the_tables_that_were_there(root, tmp_path, full_disk):
    two_runs(root, tmp_path)
    compare(root, tmp_path)
    before = {path.name: path.read_bytes() for path in (tmp_path / 'out').iterdir()}
    with full_disk(), pytest.raises(OSError, match='File too large'):
        compare(root, tmp_path, against='schedule=base')
    assert {path.name: path.read_bytes() for path in (tmp_path / 'out').iterdir()} == before and len(before) == 4


@pytest.mark.parametrize('change', [
    {'metrics': []}, {'metrics': {'V': 5}}, {'counts': {'test': 5}}, {'counts': {'test': {'listed': 9}}}, {'folds': 5},
    {'chance': 'x'}, {'config': []}, {'training_config': []}, {'task': []}, 'metrics', 'encoder', 'commit', 'protocol'])
def test_a_damaged_result_is_one_sentence(root, tmp_path, change):
    """Of fields that are not what they should be, or not there; in all runs alike."""
    two_runs(root, tmp_path)
    for path in (tmp_path / 'runs').rglob('results.json'):
        result = json.loads(path.read_text())
        path.write_text(json.dumps(result | change if isinstance(change, dict) else {
            name: value for name, value in result.items() if name != change}))
    with pytest.raises(UserError, match='runs/a/eval/retrieval/results.json is (damaged|not whole) .*runs/a again'):
        compare(root, tmp_path)


@pytest.mark.parametrize(('text', 'wrong'), [
    ('fold,id,group,V\ntest,a,,yes\n', "video 1 has the score 'yes'"), ('fold,id,group,V\ntest,a,,nan\n', 'score .nan'),
    ('fold,group,V\ntest,,1\n', 'it has no id'), ('fold,id,group\ntest,a,\n', 'it has no V'), ('', 'it has no fold'),
    ('fold,id,group,V\ntest,a,,1\ntest,b', 'video 2 has other columns'), ('fold,id,group,V\ntest,é,,1\n', 'utf-8'),
    ('fold,id,group,V\n"test,a,,1\n', 'unexpected')])
def test_damaged_scores_are_one_sentence(root, tmp_path, text, wrong):
    two_runs(root, tmp_path)
    (tmp_path / 'runs' / 'b' / 'eval' / 'retrieval' / 'videos.csv').write_bytes(text.encode('latin-1'))
    with pytest.raises(UserError, match=f'videos.csv is damaged .*{wrong}.*: evaluate .*runs/b again'):
        compare(root, tmp_path)
