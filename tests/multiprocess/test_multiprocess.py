"""One program, several processes: the same batches, the same losses, the same results, written once."""

import json
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest

from tests.multiprocess.launch import launch
from vididi_jax.errors import UserError
from vididi_jax.train import processes
from vididi_jax.train.metric_writer import read_metrics
from vididi_jax.train.processes import join, local_devices

HERE = Path(__file__).parent
TRAINED = ({'processes': 1, 'devices': 1}, {'processes': 2, 'devices': 4})
EVALUATED = ({'processes': 1, 'devices': 1}, {'processes': 2, 'devices': 1})
TINY = ['--config.model.width=2', '--config.model.dtype=float64', '--config.framework.projector=(16,16,16)',
        '--config.augment.size=16', '--config.batch_size=16', '--config.clip.length=constant',
        '--config.optimizer.base_rate=4.8', '--config.log.every_steps=1']


def run(layout: dict, *arguments: str) -> list[str]:
    """What each process of a script printed in that layout; all must end well."""
    done = launch([*arguments], **layout)
    assert not any(process.returncode for process in done), done[0].stderr[-3000:] + done[-1].stderr[-3000:]
    return [process.stdout for process in done]


@pytest.fixture(scope='module')
def workdirs(tiny_motion, tmp_path_factory):
    """A workdir for each of `TRAINED`, trained there for a cycle."""
    found = []
    for layout in TRAINED:
        workdir = tmp_path_factory.mktemp('layout') / 'work'
        run(layout, 'main.py', '--noreport', '--config=configs/motion_vicreg.py:smoke', f'--workdir={workdir}',
            f'--config.data.dir={tiny_motion}', *TINY)
        found.append(workdir)
    return found


@pytest.fixture(scope='module')
def evaluated(tiny_motion, tmp_path_factory):
    """For each of `EVALUATED`, a workdir that one process trained, evaluated there, and what each process printed."""
    workdirs = [tmp_path_factory.mktemp('evaluated') / 'work' for _ in EVALUATED]
    train = ['--config=configs/motion_vicreg.py:smoke', f'--workdir={workdirs[0]}', f'--config.data.dir={tiny_motion}',
             *TINY]
    found = []
    for number, (layout, workdir) in enumerate(zip(EVALUATED, workdirs, strict=True)):
        asked = [f'--workdir={workdir}', '--config.eval.clips=2']
        each = [['--config=configs/eval_all.py:smoke', *asked, '--config.parts.finetune.epochs=2',
                 '--config.parts.finetune.optimizer.base_rate=0.01'],  # at which rounding does not grow
                ['--config=configs/features.py:smoke', *asked, '--config.eval.split=test']]
        if number:
            shutil.copytree(workdirs[0], workdir, ignore=shutil.ignore_patterns('eval'))
        else:
            each = [train, *each]
        found.append((workdir, run(layout, str(HERE / 'small.py'), json.dumps(each))))
    return found


@pytest.fixture(scope='module')
def ran(tiny_motion, tmp_path_factory):
    """Layout -> the lines that each process of batches.py wrote, and what each printed."""
    found = {}
    for number, devices in ((1, 1), (2, 4), (4, 1)):
        out = tmp_path_factory.mktemp('told')
        layout = {'processes': number, 'devices': devices}
        printed = run(layout, str(HERE / 'batches.py'), f'--data={tiny_motion}', f'--out={out}')
        found[number, devices] = [(out / str(i)).read_text().splitlines() for i in range(number)], printed
    return found


@pytest.fixture
def told(ran):
    return {layout: lines for layout, (lines, _) in ran.items()}


def test_all_devices_are_connected_before_anything_is_compiled(ran):
    """As Gloo prints it, which waits half a minute for that: programs may take one process longer than another."""
    for printed in ran[2, 4][1]:
        assert 'is connected to 7 peer ranks' in printed.split('joined')[0]


def test_the_global_batch_is_the_same_array_in_every_layout(told):
    batches = [lines[:8] for layout in told.values() for lines in layout]
    assert len(batches) == 7 and len(set(batches[0])) == 8 and all(found == batches[0] for found in batches)


def test_what_one_process_does_for_all_and_its_errors_come_back_in_each(told):
    assert told[1, 1][0][8:10] == ['on_process_zero: The last one fails.', 'raise_together: The last one fails.']
    first, second = (lines[8:10] for lines in told[2, 4])
    assert first[0] == second[0] == 'made by 0'  # the second one would have failed, and was not asked
    assert first[1].startswith('raise_together: process 1 of 2 stopped with an error')
    assert second[1] == 'raise_together: The last one fails.'


def test_processes_that_were_given_different_configs_all_end(told):
    """But for where the data lie, which may differ."""
    assert told[1, 1][0][10:] == ['alike', 'alike']
    for number, lines in enumerate(told[4, 1]):
        same, other = lines[10:]
        assert same == 'alike'
        assert other.startswith(f'check_alike: process {number} has seed={number} and process 0 0: give' if number else
                                'check_alike: process 1 has another config or other data than process 0')


def test_losses_of_a_cycle_do_not_depend_on_the_layout(workdirs):
    """One device of one process, and eight of two. float64, to 1e-9: sums over the batch are made in another order."""
    one, two = map(read_metrics, workdirs)
    assert [row['step'] for row in one] == [row['step'] for row in two] == list(range(1, 13))
    for name in ('loss', 'gradient_norm'):
        np.testing.assert_allclose(*([row[name] for row in rows] for rows in (one, two)), rtol=1e-9)
    measured = [name for name in one[-1] if name.startswith('health/')]
    np.testing.assert_allclose(*([row[name] for name in measured] for row in (one[-1], two[-1])), atol=1e-4)  # float32


def test_metrics_are_written_by_one_process(workdirs):
    for workdir in workdirs:
        assert len(list((workdir / 'tensorboard').iterdir())) == 1
        assert len((workdir / 'metrics.jsonl').read_text().splitlines()) == 12


def test_evaluation_gives_the_same_figures(evaluated):
    """Retrieval, linear probe, fine-tuning and its linear probe; 16 test videos over batches of 32 views."""
    one, two = (json.loads((workdir / 'eval' / 'all' / 'results.json').read_text())
                for workdir, _ in evaluated)
    assert set(one['metrics']) == {'retrieval', 'linear', 'finetune', 'finetune_linear'}
    assert one['metrics'] == two['metrics'] and one['counts'] == two['counts']
    assert (one['device'], two['device']) == ('1 x cpu (cpu)', '2 x cpu (cpu)')


def test_features_are_the_same(evaluated):
    """In float32."""
    one, two = (np.load(workdir / 'eval' / 'features' / 'features.npz') for workdir, _ in evaluated)
    np.testing.assert_array_equal(one['ids'], two['ids'])
    for kind in ('V', 'dV', 'd2V'):
        np.testing.assert_allclose(one[kind], two[kind], atol=1e-5)


def test_one_process_prints(evaluated):
    (_, (alone,)), (_, (first, second)) = evaluated
    assert 'written to' in alone and 'written to' in first
    assert 'written to' not in second and 'top-1' not in second


def test_a_port_that_is_taken_is_an_error_and_not_a_crash():
    with socket.create_server(('127.0.0.1', 0)) as taken:
        address = f'127.0.0.1:{taken.getsockname()[1]}'
        with pytest.raises(UserError, match='cannot listen on port .*in use.*--coordinator another'):
            join(False, address, 2, 0)


def test_a_coordinator_that_does_not_answer_is_an_error_and_not_an_abort(monkeypatch):
    monkeypatch.setattr(processes, 'PATIENCE', 0)
    with socket.create_server(('127.0.0.1', 0)) as free:
        address = f'127.0.0.1:{free.getsockname()[1]}'
    with pytest.raises(UserError, match=f'process 0 does not answer at {address} .*--coordinator'):
        join(False, address, 2, 1)


@pytest.mark.parametrize(('words', 'message'), [
    (('localhost:1', 2, 2), '--process_id is 2 and --num_processes 2'), (('localhost:1', 2, -1), '--process_id is -1'),
    (('localhost', 2, 1), 'give HOST:PORT'), (('localhost:65536', 2, 1), 'give HOST:PORT'),
    ((':1', 2, 1), 'give HOST:PORT')])
def test_numbers_and_addresses_that_cannot_be_are_refused_at_once(words, message, monkeypatch):
    monkeypatch.setattr(processes, 'PATIENCE', -1)
    with pytest.raises(UserError, match=message):
        join(False, *words)


@pytest.mark.parametrize(('environment', 'expected'), [
    ({}, None),
    ({'SLURM_STEP_TASKS_PER_NODE': '1(x4)'}, []),  # one task a node has all its GPUs
    ({'SLURM_STEP_TASKS_PER_NODE': '4(x2)', 'CUDA_VISIBLE_DEVICES': '0,1,2,3'}, None),  # the GPU of the task's number
    ({'SLURM_STEP_TASKS_PER_NODE': '4(x2)', 'CUDA_VISIBLE_DEVICES': '0'}, []),  # SLURM bound one to each task
    ({'SLURM_STEP_TASKS_PER_NODE': '2(x3),1', 'CUDA_VISIBLE_DEVICES': '0,1'}, None),
    ({'SLURM_TASKS_PER_NODE': '2', 'SLURM_GPUS_PER_TASK': '4', 'CUDA_VISIBLE_DEVICES': '0,1,2,3'}, []),  # or several
])
def test_gpus_of_a_slurm_task(environment, expected):
    assert local_devices(environment) == expected


@pytest.mark.parametrize(('name', 'codes'), [('SIGTERM', [143, 143]), ('SIGINT', [143, 130])])
def test_a_signal_to_one_process_stops_all_after_the_same_step(name, codes, tmp_path):
    done = launch([str(HERE / 'endings.py'), f'--out={tmp_path}', f'--signal={name}'], processes=2, devices=1)
    assert [process.returncode for process in done] == codes, done[0].stderr[-2000:] + done[1].stderr[-2000:]
    first, second = ((tmp_path / str(i)).read_text() for i in range(2))
    assert first == second and int(first) >= 5
    assert f'stopped by SIGTERM after step {first}' in done[0].stderr
    assert f'stopped by {name} after step {first}' in done[1].stderr


def test_who_loses_another_process_says_so_and_ends(tmp_path):
    done = launch([str(HERE / 'endings.py'), f'--out={tmp_path}', '--signal=SIGKILL'], processes=2, devices=1)
    assert [process.returncode for process in done] == [1, -9], done[0].stderr[-2000:]
    assert 'error: process 0 of 2 lost another one' in done[0].stderr
    assert 'Traceback' not in done[0].stderr
