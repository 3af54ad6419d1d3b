"""The benchmark of the claim: its commands are ones that main.py takes, and it writes where it may."""

import itertools
import json
import time

import pytest

from benchmarks import claim, commands
from vididi_jax.compare.runs import Run
from vididi_jax.config import field_names, load_config, to_dict
from vididi_jax.errors import UserError
from vididi_jax.train.run import write_config


def test_every_command_is_of_a_config_and_of_fields_that_it_has(root, tmp_path):
    jobs = [claim.motion_job(tmp_path, framework, schedule, 1) for framework, schedule in itertools.product(
        claim.CONFIGS, ('base', 'vididi', *claim.ABLATION))] + [claim.weizmann_job(tmp_path, 'base', 0)]
    assert len({job.workdir for job in jobs}) == len({job.group for job in jobs}) == len(jobs)
    for job in jobs:
        assert set(job.evaluate) >= ({'retrieval'} if 'weizmann' in job.group else set(claim.EVALUATIONS))
        for words in (job.train, *job.evaluate.values()):
            file, place, *fields = words
            names = field_names(load_config(f'{root}/{file.removeprefix("--config=")}'))
            assert place == f'--workdir={job.workdir}'
            assert {field.removeprefix('--config.').partition('=')[0] for field in fields} <= set(names)


def test_the_evaluations_of_a_run_reach_their_tasks_in_one_process(root, tmp_path, monkeypatch):
    job = claim.motion_job(tmp_path, 'vicreg', 'vididi', 1)
    monkeypatch.chdir(root)
    monkeypatch.setattr(commands, 'run_task', lambda config, workdir, report: found.append(
        (config.eval.name, config.data.dir, workdir)))
    found = []
    for words in job.evaluate.values():
        commands.run(words)
    assert found == [(name, str(tmp_path / 'triples') if 'tug' in name else '', str(job.workdir))
                     for name in job.evaluate]


def test_what_is_running_ends_when_something_fails(tmp_path, monkeypatch):
    def run_job(job, log, cores):
        if job.group == 'fails':
            while not claim.RUNNING:
                time.sleep(0.01)
            raise UserError('as it must')
        claim.call(log, set(), '-c', 'import time; time.sleep(600)')

    monkeypatch.setattr(claim, 'run_job', run_job)
    jobs = [claim.Job(group, tmp_path / group, [], {}) for group in ('fails', 'sleeps')]
    with pytest.raises(UserError, match='as it must'):
        claim.run_all(jobs, tmp_path, processes=2)
    assert not claim.RUNNING


def test_nothing_is_started_after_a_failure(tmp_path, monkeypatch):
    """Also by the thread whose job failed, which takes the next one that waits."""
    def run_job(job, log, cores):
        if job.group == '0':
            raise UserError('as it must')
        claim.call(log, set(), '-c', 'import time; time.sleep(600)')

    monkeypatch.setattr(claim, 'run_job', run_job)
    start = time.monotonic()
    for _ in range(5):
        with pytest.raises(UserError, match='as it must'):
            claim.run_all([claim.Job(str(i), tmp_path / str(i), [], {}) for i in range(4)], tmp_path, processes=2)
    assert not claim.RUNNING and time.monotonic() - start < 60


def test_commits_say_what_was_changed(tmp_path, monkeypatch):
    found = [40 * 'a', 40 * 'a' + '+changes', 'unknown']
    monkeypatch.setattr(claim, 'read_run', lambda workdir: Run(workdir, {}, {'tug': {'commit': found.pop()}}))
    assert claim.commits_of(3 * [claim.Job('', tmp_path, [], {})]) == [8 * 'a', 8 * 'a' + '+changes', 'unknown']
    trained = [[40 * 'b', 40 * 'a'], [40 * 'b']]
    monkeypatch.setattr(claim, 'read_run', lambda workdir: Run(
        workdir, {}, {'tug': {'training_commits': trained.pop()}}))
    assert claim.training_commits(2 * [claim.Job('', tmp_path, [], {})]) == [8 * 'a', 8 * 'b']


def test_a_section_is_replaced_and_nothing_else(tmp_path):
    path = tmp_path / 'file.md'
    path.write_text('before\n<!-- claim -->\nold\n<!-- /claim -->\nafter\n')
    for text in ('new', 'newer\n\n| a |'):
        claim.replace_section(path, 'claim', text)
        assert path.read_text() == f'before\n<!-- claim -->\n{text}\n<!-- /claim -->\nafter\n'
    with pytest.raises(UserError, match='no place for the section other'):
        claim.replace_section(path, 'other', 'x')
    assert claim.plain_titles('### a\nb') == '**a**\nb'


def test_runs_of_another_recipe_are_not_taken(root, tmp_path, monkeypatch):
    monkeypatch.chdir(root)
    job = claim.motion_job(tmp_path, 'vicreg', 'vididi', 1)
    config, workdir = commands.parse(job.train)
    claim.check_asked([job])
    (job.workdir / 'checkpoints' / '32').mkdir(parents=True)
    write_config(config, workdir)
    results = job.workdir / 'eval' / 'tug' / 'results.json'
    results.parent.mkdir(parents=True)
    asked = {'task': 'tug', 'config': to_dict(commands.parse(job.evaluate['tug'])[0])}
    results.write_text(json.dumps(asked))
    claim.check_asked([job])  # which goes on
    results.write_text(json.dumps(asked | {'config': {}}))
    with pytest.raises(UserError, match='tug/results.json was made with another config .* give another --out'):
        claim.check_asked([job])
    results.unlink()
    config.epochs = 32
    write_config(config, workdir)
    with pytest.raises(UserError, match='vicreg_vididi_1 was made with another config'):
        claim.check_asked([job])
