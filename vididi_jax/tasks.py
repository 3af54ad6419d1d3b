"""What can be done with a config: the table of tasks, what is checked before one starts, and how it runs."""

import importlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_collections

from vididi_jax.config import field_names, load_config, own_config
from vididi_jax.data import records
from vididi_jax.data.storage import is_url
from vididi_jax.errors import UserError, check_home
from vididi_jax.fields import check_fields, short
from vididi_jax.provenance import commit

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

TRAINING = ('pretrain',)
EVALUATIONS = ('retrieval', 'tug', 'linear', 'finetune', 'detection', 'eval_all', 'features')
REPORTED = {*TRAINING, *EVALUATIONS} - {'features'}  # each writes the report


def run_task(
    config: ml_collections.ConfigDict, workdir: str | None, *, report: bool = True,
    mirror: str | None = None, join: Callable[[], None] = lambda: None,
) -> Any:
    """Check a config, do what its `task` says, and write the report of the run anew.

    Args:
      config: see `configs/`.
      workdir: folder of the run.
      report: whether to write one, where the task changes what it shows.
      mirror: URL at which the folder is kept as well, see `train.mirror`; None for nowhere.
      join: called when all is checked, before anything asks for the devices.

    Returns:
      What `run` of the task's module returns.

    Raises:
      UserError: the first thing that does not fit.
    """
    module = choose_task(config, TASKS)
    check_fields(config)
    check_workdir(workdir, config.task)
    check_mirror(mirror, config.task)
    commit()  # what runs is what is there now
    join()
    import jax

    from vididi_jax.compilation import keep_programs
    from vididi_jax.train.mirror import mirrored
    from vididi_jax.train.processes import check_devices, exit_if_peer_lost

    check_devices()
    keep_programs()
    before = jax.config.jax_enable_x64
    try:
        with exit_if_peer_lost(), mirrored(workdir, mirror):
            # For all threads: `jax.enable_x64` holds for its own, and the training loop puts batches on the devices in
            # another.
            jax.config.update('jax_enable_x64', before or in_float64(config, workdir))
            result = importlib.import_module(module).run(config, workdir)
            if report and config.task in REPORTED:
                importlib.import_module('vididi_jax.report.page').renew(workdir)
    finally:
        jax.config.update('jax_enable_x64', before)
    return result


def in_float64(config: ml_collections.ConfigDict, workdir: str | None) -> bool:
    """Whether the encoder computes in float64: that of the config, or of the run that is evaluated."""
    from vididi_jax.train.run import workdir_config

    if config.task == 'compare':  # it runs no encoder, and its workdir need not be a run's
        return False
    workdir = config.checkpoint if config.task == 'browse' else workdir
    if 'model' not in config and workdir and Path(workdir, 'config.json').is_file():
        config = workdir_config(workdir)
    return config.get('model', {}).get('dtype') == 'float64'


def choose_task(config: ml_collections.ConfigDict, tasks: Mapping[str, tuple[str, str]]) -> str:
    """The module that runs `config.task`; raises `UserError` if there is none, or the config is not one for it.

    `tasks` is task -> (module, NAME or NAME:VARIANT of a shipped config for it, whose fields and groups of fields all
    others have too, and no other groups).
    """
    task = config.get('task')
    if task not in tasks:
        raise UserError(f'config.task is {task!r}: choose one of {", ".join(tasks)}.')
    module, example = tasks[task]
    own, needed = field_names(config), field_names(load_config(own_config(example)))
    # Of several evaluations there need not be all.
    absent = [name for name in needed if name.count('.') < 2 and name not in own and not name.startswith('parts.')]
    if absent:
        raise UserError(f'config.task is {task!r}, and this config is for another task, or not whole (it has no '
                        f'{absent[0]!r}): take one of the files in configs/ for {task!r}, or derive from '
                        f'configs/{example.partition(":")[0]}.py.')
    unread = [name for name in own if '.' not in name and name not in needed]
    if unread:
        raise UserError(f'config.{unread[0]} is nothing that the task {task!r} reads: leave it out.')
    return module


def check_workdir(workdir: str | None, task: str) -> None:
    """Raises `UserError` if a task that needs a `--workdir` has none, or one that cannot be written to."""
    if not workdir:
        if task == 'inspect':
            return
        raise UserError(f'there is no --workdir: {task} needs one, the folder of the run.')
    check_home('--workdir', workdir)
    if is_url(workdir):
        raise UserError(f'--workdir is {short(workdir)}, and a run writes to a file system: give a folder, and copy it '
                        'to the URL, which --mirror=URL does, or mount that.')
    if '\0' in workdir:
        raise UserError(f'--workdir is {short(workdir)}, which cannot be a folder.')
    try:
        path = Path(workdir).absolute()
        found = next(folder for folder in (path, *path.parents) if folder.exists())
    except (OSError, ValueError) as error:
        raise UserError(f'--workdir is {short(workdir)}, which cannot be a folder ({error}).') from error
    if not found.is_dir() or not os.access(found, os.W_OK):
        raise UserError(f'--workdir is {workdir}, and {found} is {"not writable" if found.is_dir() else "a file"}: '
                        'give another folder.')
    if (path / records.PLAN).exists():
        raise UserError(f'--workdir is {workdir}, and that is a data set: give another folder.')


def check_mirror(mirror: str | None, task: str) -> None:
    """Raises `UserError` if what is to be kept at a URL is not the folder of a run, or the place is no URL."""
    if mirror is None:
        return
    if not is_url(mirror):
        raise UserError(f'--mirror is {short(mirror)}: give a URL, such as gs://BUCKET/runs/NAME, at which the folder '
                        'of the run is kept as well.')
    if task not in (*TRAINING, *EVALUATIONS, 'report'):
        raise UserError(f'--mirror keeps the folder of a run, and {task} writes another one: leave --mirror out.')
