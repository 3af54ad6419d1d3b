"""Where the rows of a run go."""

import sys
from types import SimpleNamespace

import pytest
from ml_collections import ConfigDict
from tensorboardX.proto import event_pb2

from vididi_jax.data import records
from vididi_jax.errors import UserError
from vididi_jax.train import pretrain
from vididi_jax.train.metric_writer import MetricsWriter, check_logs, read_metrics

ROWS = [{'step': step, 'orders': [0, 1], 'loss': 1 / step} for step in (1, 2, 3)]


@pytest.fixture
def wandb(monkeypatch):
    """Weights & Biases as far as it is used, which keeps what it is given; the real one is tried by hand."""
    given = SimpleNamespace(inits=[], rows=[], finished=0)

    def init(**options):
        given.inits.append(options)
        finish = lambda: setattr(given, 'finished', given.finished + 1)  # noqa: E731
        return SimpleNamespace(log=lambda row, step: given.rows.append((step, row)), finish=finish)

    monkeypatch.setitem(sys.modules, 'wandb', SimpleNamespace(init=init, Error=RuntimeError))
    return given


def config(*to):
    return ConfigDict({'seed': 3, 'log': {'to': to}})


def scalars(folder):
    """(step, name, value) of all events in a folder, and (step, 'start') of a start; TensorBoard keeps float32."""
    path, = folder.glob('events*')
    data, place = path.read_bytes(), 0
    while place < len(data):
        event = event_pb2.Event.FromString(records.read_record(data, place))
        place += records.record_size(len(records.read_record(data, place)))
        if event.HasField('session_log'):
            yield event.step, 'start'
        for value in event.summary.value:
            yield event.step, value.tag, pytest.approx(value.simple_value, rel=1e-7)


def test_rows_go_where_the_config_says(tmp_path, wandb):
    with MetricsWriter(tmp_path, 0, config('jsonl')) as writer:
        for row in ROWS:
            writer.write(row)
    assert read_metrics(tmp_path) == ROWS and not (tmp_path / 'tensorboard').exists() and not wandb.inits
    with MetricsWriter(tmp_path, 2, config('jsonl', 'tensorboard', 'wandb')) as writer:
        assert read_metrics(tmp_path) == ROWS[:2]
        writer.write(ROWS[2])
    assert read_metrics(tmp_path) == ROWS and list(scalars(tmp_path / 'tensorboard')) == [
        (3, 'start'), (3, 'loss', 1 / 3)]  # TensorBoard leaves out what an earlier start gave from there on
    assert wandb.rows == [(3, {'loss': 1 / 3})] and wandb.finished == 1


def test_a_run_that_resumes_is_the_same_run_of_wandb(tmp_path, wandb, monkeypatch):
    monkeypatch.setenv('WANDB_PROJECT', 'mine')
    for first in (0, 2, 0):
        MetricsWriter(tmp_path, first, config('jsonl', 'wandb')).__exit__()
    first, second, anew = wandb.inits
    assert first == second and len(first['id']) == 32 and first['resume'] == 'allow'
    assert anew['id'] != first['id']  # it begins again, perhaps with another config
    assert (first['project'], first['name'], first['config']['seed']) == ('mine', tmp_path.name, 3)


def test_whoever_is_not_logged_in_is_told_so(tmp_path, wandb, monkeypatch):
    def refuse(**_):
        raise RuntimeError('No API key\nconfigured.')

    monkeypatch.setattr(sys.modules['wandb'], 'init', refuse)
    with pytest.raises(UserError, match=r'does not start \(No API key configured.\): log in with `wandb login`'):
        MetricsWriter(tmp_path, 0, config('jsonl', 'wandb'))


def test_a_log_that_is_not_installed_is_refused_first(tmp_path, tiny_config, monkeypatch):
    monkeypatch.setitem(sys.modules, 'wandb', None)
    tiny_config.log.to = ('jsonl', 'wandb')
    with pytest.raises(UserError, match="config.log.to has 'wandb', which is not installed: pip install wandb"):
        pretrain.run(tiny_config, str(tmp_path / 'work'))
    assert not (tmp_path / 'work').exists()
    check_logs(('jsonl', 'tensorboard'))
    tiny_config.log.to = ('tensorboard',)
    with pytest.raises(UserError, match="config.log.to is .'tensorboard',.: add 'jsonl'"):
        pretrain.run(tiny_config, str(tmp_path / 'work'))


def test_a_row_that_is_damaged_is_named(tmp_path):
    (tmp_path / 'metrics.jsonl').write_text('{"step": 1}\n{"step": \n{"step": 3')
    with pytest.raises(UserError, match='metrics.jsonl, line 2 is damaged'):
        read_metrics(tmp_path)
    (tmp_path / 'metrics.jsonl').write_text('{"step": 1}\n{"step": 3')  # as a kill leaves it
    assert read_metrics(tmp_path) == [{'step': 1}]


@pytest.mark.parametrize('line', [b'[]', b'5', b'{"a": 1}', b'{"step": "x"}', b'{"step": 2, "epoch": []}',
                                  '{"step": 2, "é": 0}'.encode('latin-1')])
def test_a_line_that_is_no_row_is_named(tmp_path, line):
    (tmp_path / 'metrics.jsonl').write_bytes(b'{"step": 1}\n' + line + b'\n')
    with pytest.raises(UserError, match='metrics.jsonl, line 2 is damaged .*: mend or delete that line'):
        read_metrics(tmp_path)
