"""Signals to a run that is alone; those to several processes are in tests/multiprocess."""

import signal
import subprocess
import sys

SCRIPT = '''
import os, signal, time
from vididi_jax.train.signals import after_step

with after_step() as signalled:
    os.kill(os.getpid(), signal.SIGINT)
    print(signalled(), flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)
'''


def test_a_second_interrupt_ends_a_process_at_once(root):
    done = subprocess.run([sys.executable, '-c', SCRIPT], cwd=root, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (-signal.SIGINT, '2\n')
    assert done.stderr == '\nSIGINT: saving after the steps under way; once more ends at once\n'
