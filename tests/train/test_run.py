"""What may stand in a workdir where a run begins."""

import shutil

import pytest

from vididi_jax.errors import UserError
from vididi_jax.train.run import check_same_run


@pytest.fixture
def workdir(tmp_path):
    """Of a run that was trained and evaluated."""
    for path in ('config.json', 'checkpoints/24/meta', 'eval/retrieval/results.json'):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text('{}')
    return tmp_path


def test_checkpoints_without_their_config_are_not_taken_for_those_of_another(workdir, tiny_config):
    (workdir / 'config.json').unlink()
    with pytest.raises(UserError, match='checkpoints and no config.json: put the config back'):
        check_same_run(tiny_config, workdir)


def test_results_of_a_run_that_is_gone_are_not_taken_for_those_of_a_new_one(workdir, tiny_config):
    shutil.rmtree(workdir / 'checkpoints')
    with pytest.raises(UserError, match='no checkpoint, and results of a run that had one .*retrieval/results.json'):
        check_same_run(tiny_config, workdir)
    shutil.rmtree(workdir / 'eval')
    check_same_run(tiny_config, workdir)
