"""main.py as a process: one sentence and exit code 1, and warnings that can be read."""

import os
import subprocess
import sys

from tests.train.test_loop import command


def test_main_refuses_with_one_sentence_and_code_1(tiny_config, tmp_path, root):
    wrong_key = [*command(tiny_config, tmp_path), '--config.optimizer.base_rat=1']
    no_file = [sys.executable, 'main.py', '--config=configs/ucf.py', f'--workdir={tmp_path}']
    indivisible = [*command(tiny_config, tmp_path / 'w'), '--config.batch_size=12']
    eight = {**os.environ, 'XLA_FLAGS': f'{os.environ["XLA_FLAGS"]} --xla_force_host_platform_device_count=8'}
    no_workdir = [word for word in command(tiny_config, tmp_path) if not word.startswith('--workdir')]
    other_task = [*command(tiny_config, tmp_path), '--config.task=retrieval']
    cases = ((wrong_key, "'optimizer.base_rate'", None), (no_file, 'configs/ucf.py', None),
             (no_workdir, '--workdir', None), (other_task, 'for another task', None),
             (indivisible, 'multiple of 8', eight),
             ([*command(tiny_config, tmp_path), '--multihost'], '--coordinator=HOST:PORT', None),
             ([*command(tiny_config, tmp_path), '--coordinator=localhost:1'], '--num_processes and --process_id', None))
    for arguments, message, environment in cases:
        done = subprocess.run(arguments, cwd=root, capture_output=True, text=True, env=environment)
        assert done.returncode == 1
        errors = [line for line in done.stderr.splitlines() if line.startswith('error: ')]
        assert len(errors) == 1 and message in errors[0]
        assert 'Traceback' not in done.stderr


def test_inspect_needs_no_workdir(tiny_config, root):
    words = [word for word in command(tiny_config, '') if not word.startswith('--workdir')]
    done = subprocess.run([*words, '--config.task=inspect'], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0 and 'TFLOP a step' in done.stdout, done.stderr


WARNING_TASK = '''
import logging
from tqdm import tqdm
def run(config, workdir):
    with tqdm(total=2) as bar:
        bar.update()
        logging.getLogger('somewhere').warning('LOOK OUT')
'''
WITH_THAT_TASK = '''
import sys
from vididi_jax import main, tasks
tasks.TASKS['report'] = ('warning_task', 'report')
main.run(sys.argv)
'''


def test_warnings_stand_on_lines_of_their_own(tmp_path, root):
    """Beside a progress bar, in plain form."""
    (tmp_path / 'warning_task.py').write_text(WARNING_TASK)
    done = subprocess.run(
        [sys.executable, '-c', WITH_THAT_TASK, '--config=configs/report.py', f'--workdir={tmp_path}'], cwd=root,
        capture_output=True, text=True, env={**os.environ, 'PYTHONPATH': f'{root}{os.pathsep}{tmp_path}'})
    assert done.returncode == 0 and 'WARNING: LOOK OUT' in done.stderr.splitlines(), done.stderr
