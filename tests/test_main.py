"""main.py as a process, forked where all is imported: one sentence and exit code 1, and warnings that can be read."""

import json
import os
import subprocess
import sys

from tests.train.test_loop import command

EACH = '''
import json, os, sys, jax
from vididi_jax import main
for words in json.loads(sys.argv[1]):
    print('CASE', file=sys.stderr, flush=True)
    if not (child := os.fork()):
        sys.argv = words
        main.run(words)
        raise SystemExit
    print('CODE', os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=sys.stderr, flush=True)
'''


def test_main_refuses_with_one_sentence_and_code_1(tiny_config, tmp_path, root):
    wrong_key = [*command(tiny_config, tmp_path), '--config.optimizer.base_rat=1']
    no_file = [sys.executable, 'main.py', '--config=configs/ucf.py', f'--workdir={tmp_path}']
    indivisible = [*command(tiny_config, tmp_path / 'w'), '--config.batch_size=12']
    eight = {**os.environ, 'XLA_FLAGS': f'{os.environ["XLA_FLAGS"]} --xla_force_host_platform_device_count=8'}
    no_workdir = [word for word in command(tiny_config, tmp_path) if not word.startswith('--workdir')]
    other_task = [*command(tiny_config, tmp_path), '--config.task=retrieval']
    cases = ((wrong_key, "'optimizer.base_rate'"), (no_file, 'configs/ucf.py'), (no_workdir, '--workdir'),
             (other_task, 'for another task'), (indivisible, 'multiple of 8'),
             ([*command(tiny_config, tmp_path), '--multihost'], '--coordinator=HOST:PORT'),
             ([*command(tiny_config, tmp_path), '--mirror=runs/a'], "--mirror is 'runs/a': give a URL"),
             ([*command(tiny_config, tmp_path), '--coordinator=localhost:1'], '--num_processes and --process_id'))
    words = json.dumps([arguments[1:] for arguments, _ in cases])
    done = subprocess.run([sys.executable, '-c', EACH, words], cwd=root, capture_output=True, text=True, env=eight)
    for told, (_, message) in zip(done.stderr.split('CASE\n')[1:], cases, strict=True):
        errors = [line for line in told.splitlines() if line.startswith('error: ')]
        assert len(errors) == 1 and message in errors[0] and 'CODE 1' in told and 'Traceback' not in told, told


def test_no_device_is_one_sentence(tmp_path, root):
    """As where somebody asks for a GPU, so as not to train on the CPU unnoticed."""
    done = subprocess.run(
        [sys.executable, 'main.py', '--config=configs/motion_vicreg.py:smoke', f'--workdir={tmp_path}'], cwd=root,
        capture_output=True, text=True, env={**os.environ, 'JAX_PLATFORMS': 'cuda'})
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    assert 'error: JAX finds no device of JAX_PLATFORMS=cuda' in done.stderr


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
