"""All evaluations in one go: what is checked before the first one, and the one table."""

import shutil
from types import SimpleNamespace

import pytest

from configs import eval_all as eval_all_config
from vididi_jax.errors import UserError
from vididi_jax.evaluate import eval_all
from vididi_jax.evaluate.recognition import print_table
from vididi_jax.lock import locked


@pytest.mark.parametrize(('field', 'value', 'message'), [
    ('finetune_linear.batch_size', 64, r'parts.finetune_linear.batch_size is 64 and .* 48 usable videos: '
                                       r'lower config.parts.finetune_linear.batch_size'),
    ('finetune.finetune.dropout', 1.0, r'config.parts.finetune.finetune.dropout is 1.0'),
    ('retrieval.retrieval.ks', (0,), r'config.parts.retrieval.retrieval.ks is')])
def test_every_part_is_checked_before_the_first_one_runs(finished, tmp_path, field, value, message):
    workdir = shutil.copytree(finished[0], tmp_path / 'work')
    config = eval_all_config.get_config('smoke')
    config.update_from_flattened_dict({f'parts.{field}': value})
    with pytest.raises(UserError, match=f'^{message}'):
        eval_all.run(config, str(workdir))
    assert not (workdir / 'eval').exists()


def test_an_error_in_a_part_names_its_fields_in_full(monkeypatch, tmp_path):
    def evaluate(evaluation):
        raise UserError('lower config.optimizer.base_rate, under another --config.eval.name.')

    monkeypatch.setattr(eval_all, 'prepare', lambda config, workdir: {'finetune': None})
    monkeypatch.setattr(eval_all, 'module_of', lambda part: SimpleNamespace(evaluate=evaluate))
    with pytest.raises(UserError, match='^lower config.parts.finetune.optimizer.base_rate, under another --c'):
        eval_all.run(eval_all_config.get_config('smoke'), str(tmp_path))


def test_parts_that_there_are_not_are_refused(finished):
    config = eval_all_config.get_config('smoke')
    for parts, message in (({'probe': config.parts.linear}, 'probe'), ({}, 'nothing')):
        config.parts = parts
        with pytest.raises(UserError, match=f'config.parts has {message}: give some of retrieval, linear'):
            eval_all.run(config, str(finished[0]))


def test_a_result_of_one_evaluation_is_not_overwritten_by_that_of_all(finished, tmp_path):
    workdir = shutil.copytree(finished[0], tmp_path / 'work')
    config, path = eval_all_config.get_config('smoke'), workdir / 'eval' / 'all' / 'results.json'
    path.parent.mkdir(parents=True)
    path.write_text('{"task": "retrieval"}')
    with pytest.raises(UserError, match='is a result of retrieval, which one of eval_all would overwrite'):
        eval_all.run(config, str(workdir))


def test_one_command_at_a_time_collects_a_result(tmp_path, monkeypatch):
    monkeypatch.setattr(eval_all, 'prepare', lambda config, workdir: {})
    with locked(tmp_path / 'eval' / 'all', ''), pytest.raises(UserError, match='eval/all is in use by process'):
        eval_all.run(eval_all_config.get_config('smoke'), str(tmp_path))


def test_all_figures_are_one_table(capsys):
    metrics = {'retrieval': {'V': {'R@1': 9.96, 'R@5': 50.0}}, 'linear': {'V': {'top-1': 60.0}, 'dV': {'top-1': 100.0}}}
    std = {'retrieval': {'V': {'R@1': 1.0, 'R@5': 2.0}}, 'linear': {'V': {'top-1': 3.0}, 'dV': {'top-1': 0.0}}}
    print_table(metrics, std, 3)
    assert capsys.readouterr().out.splitlines() == [
        'evaluation  features         R@1         R@5        top-1',
        'retrieval   V         10.0 ± 1.0  50.0 ± 2.0             ',
        'linear      V                                  60.0 ± 3.0',
        'linear      dV                                100.0 ± 0.0',
        'mean ± standard deviation over 3 folds']
    print_table({'linear': metrics['linear']}, std, 1)
    assert capsys.readouterr().out.splitlines()[1:] == ['linear      V          60.0', 'linear      dV        100.0']


def test_the_parts_of_a_run():
    assert set(eval_all_config.get_config().parts) == set(eval_all.TASKS)
    assert set(eval_all_config.get_config('grouped').parts) == {'retrieval', 'linear'}
