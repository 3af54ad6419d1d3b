"""What main.py and the command `vididi` run: flags, and how a task starts and ends on a command line."""

import logging
import sys

from absl import app, flags
from absl import logging as absl_logging
from tqdm.contrib.logging import logging_redirect_tqdm

from vididi_jax.errors import one_sentence
from vididi_jax.flags import define_config_flag, parse_flags
from vididi_jax.tasks import run_task

CONFIG = define_config_flag()
WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run: checkpoints, metrics, results, report.')
MIRROR = flags.DEFINE_string('mirror', None, 'URL at which the folder of the run is kept as well, such as '
                             'gs://BUCKET/runs/NAME; one that does not exist here is copied from there first.')
REPORT = flags.DEFINE_bool('report', True, 'Write the report anew after training and after an evaluation.')
MULTIHOST = flags.DEFINE_bool('multihost', False, 'Join the other processes of a TPU pod, SLURM job or other cluster.')
COORDINATOR = flags.DEFINE_string('coordinator', None, 'HOST:PORT of process 0, to join processes on plain machines.')
NUM_PROCESSES = flags.DEFINE_integer('num_processes', None, 'How many processes --coordinator joins.')
PROCESS_ID = flags.DEFINE_integer('process_id', None, 'Which of them this is, from 0.')


def join() -> None:
    """The other processes, if asked."""
    from vididi_jax.train import processes

    processes.join(MULTIHOST.value, COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value)


def main(_) -> None:
    logging.basicConfig(level=logging.WARNING, format='%(levelname)s: %(message)s', force=True)  # absl has set its own
    logging.getLogger('asyncio').setLevel(logging.CRITICAL)
    absl_logging.set_verbosity(absl_logging.FATAL)  # what the checkpointing library logs, errors say in a sentence
    with logging_redirect_tqdm():  # warnings stand on lines of their own
        run_task(CONFIG.value, WORKDIR.value, report=REPORT.value, mirror=MIRROR.value, join=join)


def run(words: list[str]) -> None:
    """Carry out a command line; `words[0]` is the name of the command."""
    with one_sentence():
        app.run(main, argv=words, flags_parser=parse_flags)


if __name__ == '__main__':
    run(sys.argv)
