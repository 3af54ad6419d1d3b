"""What may stand in a workdir where a run begins."""

import json
import resource
import shutil
import signal
from functools import reduce

import pytest

from vididi_jax.config import to_dict
from vididi_jax.errors import UserError
from vididi_jax.train import pretrain
from vididi_jax.train.run import check_same_run, workdir_config, write_config


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


@pytest.mark.parametrize(('name', 'text'), [
    ('config.json', '{"db": "prod"}'), ('config.json', 'db: prod'), ('config.json', '[]'),
    ('metrics.jsonl', '{"step": 5, "mine": 1}\n'), ('metrics.jsonl', '{"mine": 1}'), ('metrics.jsonl', 'mine\n')])
def test_files_of_other_programs_are_not_replaced(name, text, tiny_config, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=f'{name} is not of a run of this program, .*: use another --workdir'):
        pretrain.run(tiny_config, str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == text


def test_a_config_of_before_a_field_that_decides_nothing_is_whole(tiny_config, tmp_path):
    with tiny_config.unlocked():
        del tiny_config.log.to, tiny_config.model.remat
    write_config(tiny_config, tmp_path)
    assert workdir_config(tmp_path).model.remat is False


def test_a_config_that_lacks_a_field_is_named(tiny_config, tmp_path):
    with tiny_config.unlocked():
        del tiny_config.model.width
    write_config(tiny_config, tmp_path)
    with pytest.raises(UserError, match="config.json has no field 'model.width': put the config back"):
        workdir_config(tmp_path)


@pytest.mark.parametrize(('change', 'message'), [
    ('[]', 'it has no fields'), ('[' * 100_000, 'recursion'), ({'a.b': 1}, 'a.b'), ({'data': 5}, 'data is 5, and must'),
    ({'model': []}, r'model is \[\], and must'), ({'clip': {'frames': '8'}}, "clip.frames is '8', and must be a whole"),
    ({'augment': {'zzz': 1}}, 'no field augment.zzz'), ({'task': 'finetune', 'model': {}}, "no field 'model.name'"),
    ({'epochs': 'x'}, "epochs is 'x'")])
def test_a_config_that_no_run_wrote_is_one_sentence(change, message, workdir, tiny_config):
    path = workdir / 'config.json'
    path.write_text(change if isinstance(change, str) else json.dumps(to_dict(tiny_config) | change))
    with pytest.raises(UserError, match=f'^{path} .*{message}.*: put the config back'):
        workdir_config(workdir)
    if 'no field ' not in message:
        with pytest.raises(UserError, match=message):
            check_same_run(tiny_config, workdir)
    path.write_text('{}')
    with pytest.raises(UserError, match='was started with .*=None'):
        check_same_run(tiny_config, workdir)


def test_an_older_config_is_of_what_runs_did_then(tiny_config, tmp_path):
    older = {'statistics': 'plain', 'init_checkpoint': 'latest', 'framework.ema_base': 0.99, 'model.remat': False,
             'data.split': 'train', 'optimizer.predictor_rate': 1.0, 'framework.predictor': ()}
    with tiny_config.unlocked():
        for name in older:
            *groups, last = name.split('.')
            del (tiny_config[groups[0]] if groups else tiny_config)[last]
    write_config(tiny_config, tmp_path)
    found = workdir_config(tmp_path)
    assert {name: reduce(getattr, name.split('.'), found) for name in older} == older


def test_a_full_disk_leaves_the_config_that_was_there(tiny_config, tmp_path):
    write_config(tiny_config, tmp_path)
    before, (soft, hard) = (tmp_path / 'config.json').read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
        with pytest.raises(OSError, match='too large'):
            write_config(tiny_config, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert (tmp_path / 'config.json').read_bytes() == before and [file.name for file in tmp_path.iterdir()] == [
        'config.json']
