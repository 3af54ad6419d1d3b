"""What main.py and the command `vididi` run: the table of tasks, their flags, and how one starts and ends."""

import importlib
import logging

from absl import app, flags
from absl import logging as absl_logging
from tqdm.contrib.logging import logging_redirect_tqdm

from vididi_jax.errors import one_sentence
from vididi_jax.fields import check_fields
from vididi_jax.flags import check_workdir, choose_task, define_config_flag, parse_flags

TASKS = {  # task -> the module with its `run(config, workdir)`, and a shipped config, whose fields all others have
    'pretrain': ('vididi_jax.train.pretrain', 'default'),
    'inspect': ('vididi_jax.train.inspection', 'default'),
    'features': ('vididi_jax.evaluate.features', 'features'),
    'retrieval': ('vididi_jax.evaluate.retrieval', 'retrieval'),
    'tug': ('vididi_jax.evaluate.tug', 'tug'),
    'linear': ('vididi_jax.evaluate.linear', 'linear'),
    'finetune': ('vididi_jax.evaluate.finetune', 'finetune'),
    'detection': ('vididi_jax.detection.task', 'ava_detection'),
    'eval_all': ('vididi_jax.evaluate.eval_all', 'eval_all:grouped'),
    'compare': ('vididi_jax.compare.task', 'compare'),
    'browse': ('vididi_jax.data_prep.browse', 'browse'),
    'report': ('vididi_jax.report.page', 'report'),
}

REPORTED = ('pretrain', 'retrieval', 'tug', 'linear', 'finetune', 'detection', 'eval_all')  # each writes the report

CONFIG = define_config_flag()
WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run: checkpoints, metrics, results, report.')
REPORT = flags.DEFINE_bool('report', True, 'Write the report anew after training and after an evaluation.')
MULTIHOST = flags.DEFINE_bool('multihost', False, 'Join the other processes of a TPU pod, SLURM job or other cluster.')
COORDINATOR = flags.DEFINE_string('coordinator', None, 'HOST:PORT of process 0, to join processes on plain machines.')
NUM_PROCESSES = flags.DEFINE_integer('num_processes', None, 'How many processes --coordinator joins.')
PROCESS_ID = flags.DEFINE_integer('process_id', None, 'Which of them this is, from 0.')


def set_up_devices() -> None:
    """Join the other processes if asked, and keep compiled programs from run to run."""
    import jax

    from vididi_jax.compilation import keep_programs
    from vididi_jax.train import processes

    processes.join(MULTIHOST.value, COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value)
    keep_programs()
    if CONFIG.value.get('model', {}).get('dtype') == 'float64':
        jax.config.update('jax_enable_x64', True)


def main(_) -> None:
    logging.basicConfig(level=logging.WARNING, format='%(levelname)s: %(message)s', force=True)  # absl has set its own
    logging.getLogger('asyncio').setLevel(logging.CRITICAL)
    absl_logging.set_verbosity(absl_logging.FATAL)  # what the checkpointing library logs, errors say in a sentence
    module = choose_task(CONFIG.value, TASKS)
    check_fields(CONFIG.value)
    check_workdir(WORKDIR.value, CONFIG.value.task)
    set_up_devices()
    from vididi_jax.train.processes import bereaved

    with logging_redirect_tqdm(), bereaved():  # warnings stand on lines of their own
        importlib.import_module(module).run(CONFIG.value, WORKDIR.value)
        if REPORT.value and CONFIG.value.task in REPORTED:
            importlib.import_module('vididi_jax.report.page').renew(WORKDIR.value)


def run(words: list[str]) -> None:
    """Carry out a command line; `words[0]` is the name of the command."""
    with one_sentence():
        app.run(main, argv=words, flags_parser=parse_flags)
