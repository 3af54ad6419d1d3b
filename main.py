"""Train, evaluate and report: `python main.py --config=configs/NAME.py --workdir=DIR [--config.FIELD=VALUE ...]`.

The config's `task` says what runs. `python -m data_prep --help` prepares the data; README.md has the whole way.
"""

import importlib
import logging
import os
import sys

from absl import app, flags
from absl import logging as absl_logging
from tqdm.contrib.logging import logging_redirect_tqdm

from vididi_jax.config import check_task, define_config_flag, parse_flags
from vididi_jax.errors import UserError

TASKS = {  # task -> module with `run(config, workdir)`; only the one that runs is imported
    'pretrain': 'vididi_jax.train.pretrain',
    'inspect': 'vididi_jax.train.inspect',
    'features': 'vididi_jax.evaluate.extract',
    'retrieval': 'vididi_jax.evaluate.retrieval',
    'linear': 'vididi_jax.evaluate.linear',
    'finetune': 'vididi_jax.evaluate.finetune',
    'detection': 'vididi_jax.evaluate.detect',
    'eval_all': 'vididi_jax.evaluate.eval_all',
    'report': 'vididi_jax.report.page',
}

CONFIG = define_config_flag()
WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run: checkpoints, metrics, results, report.')
MULTIHOST = flags.DEFINE_bool('multihost', False, 'Join the other processes of a pod or cluster (jax.distributed).')
flags.mark_flags_as_required(['config'])


def set_up_devices() -> None:
    """Join the other hosts if asked, and keep compiled programs from run to run."""
    import jax

    if MULTIHOST.value:
        jax.distributed.initialize()
    cache = os.environ.get('JAX_COMPILATION_CACHE_DIR', os.path.expanduser('~/.cache/vididi_jax/compiled'))
    jax.config.update('jax_compilation_cache_dir', cache)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
    jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)
    if CONFIG.value.get('model', {}).get('dtype') == 'float64':
        jax.config.update('jax_enable_x64', True)


def main(_) -> None:
    logging.basicConfig(level=logging.WARNING, format='%(levelname)s: %(message)s', force=True)  # absl has set its own
    absl_logging.set_verbosity(absl_logging.WARNING)  # the checkpointing library is chatty
    task = CONFIG.value.get('task')
    try:
        if task not in TASKS:
            raise UserError(f'config.task is {task!r}: choose one of {", ".join(TASKS)}.')
        check_task(CONFIG.value)
        if not WORKDIR.value and task != 'inspect':
            raise UserError(f'there is no --workdir: {task} needs one, the folder of the run.')
        set_up_devices()
        with logging_redirect_tqdm():  # warnings stand on lines of their own
            importlib.import_module(TASKS[task]).run(CONFIG.value, WORKDIR.value)
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        sys.exit(1)


if __name__ == '__main__':
    app.run(main, flags_parser=parse_flags)
