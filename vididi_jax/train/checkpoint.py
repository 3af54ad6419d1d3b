"""Checkpoints of a workdir: the one file that knows orbax, and `python -m vididi_jax.train.checkpoint`.

A checkpoint holds the train state, a JSON `meta` (config, position in the data, the commits of the code that trained
it, a checksum of every array) and the
checksums of its files. Damaged is what a checksum says is damaged, and it is set aside, never deleted; whatever else
keeps a checkpoint from being read, as a disk that fails, ends the command and changes nothing.
"""

import errno
import json
import logging
import math
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from operator import itemgetter
from pathlib import Path
from typing import Any

import google_crc32c
import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from vididi_jax.errors import Parser, UserError, one_sentence
from vididi_jax.train import integrity
from vididi_jax.train.processes import on_process_zero
from vididi_jax.train.run import steps_of

logger = logging.getLogger(__name__)


def checksums(tree: Any) -> dict[str, int]:
    """crc32c of the bytes of each array, by its path in the tree."""
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(tree))  # all of which are copied at once
    return {jax.tree_util.keystr(path, simple=True, separator='/'): google_crc32c.value(
        np.ascontiguousarray(leaf).tobytes()) for path, leaf in leaves}


def _wrong_arrays(tree: Any, meta: dict) -> str:
    wrong = [name for name, value in checksums(tree).items() if meta['checksums'].get(name) != value]
    return f'the checksums of {wrong[0]} and {len(wrong) - 1} other arrays are wrong' if wrong else ''


class _Manager(ocp.CheckpointManager):
    """Orbax's, which asks nobody for signals: `train.signals` does, by numbers of its own."""

    def reached_preemption(self, step: int) -> bool:
        return False


class Checkpoints:
    """The checkpoints below `WORKDIR/checkpoints`, one folder a step."""

    def __init__(self, workdir: str | Path, *, keep: int = 4):
        """`keep`: how many of the latest checkpoints stay; the one with the lowest `loss` metric stays too.

        A checkpoint whose loss is damaged is moved to `WORKDIR/damaged`: with it there no other could be kept.

        Raises:
          UserError: all checkpoints are damaged, or one cannot be read.
        """
        self.directory = Path(workdir).resolve() / 'checkpoints'
        on_process_zero(_set_aside_without_loss)(self.directory)
        policy = preservation_policy.AnyPreservationPolicy([
            preservation_policy.LatestN(keep),
            preservation_policy.BestN(get_metric_fn=itemgetter('loss'), reverse=True, n=1),
        ])
        self._manager = _Manager(self.directory, options=ocp.CheckpointManagerOptions(
            preservation_policy=policy, best_fn=itemgetter('loss'), best_mode='min',  # without these no loss is written
            cleanup_tmp_directories=True,  # what a killed save left
            async_options=ocp.AsyncOptions(post_finalization_callback=self._seal)))

    def _seal(self) -> None:
        """Add the checksums to a checkpoint that is written and has not its final name yet; of all processes, once."""
        folders = list(self.directory.glob(f'*{ocp.utils.TMP_DIR_SUFFIX}*'))
        if not folders:
            raise RuntimeError('orbax calls the folder of an unfinished checkpoint by another name')
        for folder in folders:
            integrity.write_checksums(folder)

    def __enter__(self) -> 'Checkpoints':
        return self

    def __exit__(self, *_) -> None:
        with self._saving():
            self._manager.close()  # waits for a save under way

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, ascending."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: Any, meta: dict, loss: float) -> None:
        """Start saving; returns once the arrays are copied. `loss` decides which checkpoint is the best.

        Raises:
          UserError: this one or the one before, which was still being written, cannot be saved.
        """
        meta = deepcopy({**meta, 'step': step, 'checksums': checksums(state)})  # written while the run goes on
        arguments = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
        with self._saving():
            self._manager.wait_until_finished()
            on_process_zero(_check_room)(self.directory, sum(leaf.nbytes for leaf in jax.tree.leaves(state)))
            self._manager.save(step, args=arguments, metrics={'loss': loss}, force=True)

    @contextmanager
    def _saving(self) -> Iterator[None]:
        try:
            yield
        except jax.errors.JaxRuntimeError:  # a device, or another process
            raise
        except Exception as error:  # what a disk makes the library raise
            steps = steps_of(self.directory)
            last = f'the same command goes on from that of step {steps[-1]}' if steps else 'there is none yet'
            raise UserError(f'no checkpoint can be saved in {self.directory} ({reason_of(error)}): {last}.') from error

    def restore_latest(self, target: Any) -> tuple[Any, dict] | None:
        """The latest checkpoint that is whole, as `(state, meta)`; None if there is no checkpoint at all.

        Damaged ones that are newer are moved to `WORKDIR/damaged`.

        Args:
          target: a state of the same structure, with the shapes, dtypes and shardings to restore to.

        Raises:
          UserError: there are checkpoints and all are damaged, or one cannot be read; nothing is changed then.
        """
        damaged = {}
        for step in reversed(self.steps()):
            folder = self.directory / str(step)
            damaged[step] = on_process_zero(judged)(folder)
            if not damaged[step]:
                state, meta = self._restore(folder, step, target)
                damaged[step] = _wrong_arrays(state, meta)
            if not damaged[step]:
                del damaged[step]
                if damaged:
                    on_process_zero(_set_aside)(self.directory, damaged)
                    self._manager.reload()
                return state, meta
        if damaged:
            raise _all_damaged(self.directory, damaged)
        return None

    def _restore(self, folder: Path, step: int, target: Any) -> tuple[Any, dict]:
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, target)
        arguments = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), meta=ocp.args.JsonRestore())
        with _reading(folder):
            restored = self._manager.restore(step, args=arguments)
            return restored.state, _whole(restored.meta)


def _check_room(directory: Path, size: int) -> None:
    """Raises `OSError` before a disk is full: the library that writes tells it in hundreds of lines."""
    free = shutil.disk_usage(directory).free
    if free < size:
        reason = f'{os.strerror(errno.ENOSPC)}: {size / 1e6:,.1f} MB are needed, {free / 1e6:,.1f} MB are free'
        raise OSError(errno.ENOSPC, reason)


def reason_of(error: Exception) -> str:
    """In few words, what a library says went wrong.

    >>> reason_of(ValueError('RESOURCE_EXHAUSTED: Error writing "a": No space left on device [source locations=...'))
    'No space left on device'
    """
    text = ' '.join(str(error).split()) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    known = [os.strerror(number) for number in errno.errorcode]
    return next((words for words in known if words in text), text[:200])


@contextmanager
def _reading(folder: Path) -> Iterator[None]:
    """What cannot be read is told, and left as it is."""
    try:
        yield
    except jax.errors.JaxRuntimeError:  # a device, or another process
        raise
    except Exception as error:  # whatever a disk makes the library raise
        raise UserError(f'the checkpoint {folder} cannot be read ({reason_of(error)}), though no checksum says that it '
                        'is damaged: it is left as it is; try again, or move that folder away to use the one '
                        'before.') from error


def judged(folder: Path) -> str:
    """`integrity.damage` of a checkpoint; `UserError` where the disk does not give its files."""
    try:
        return integrity.damage(folder)
    except OSError as error:
        raise UserError(f'the checkpoint {folder} cannot be read ({error.strerror}: {error.filename}): it is left as '
                        'it is; try again when the disk is well.') from error


def _set_aside(directory: Path, damaged: dict[int, str]) -> None:
    for step, why in damaged.items():
        there = directory.parent / 'damaged'
        there.mkdir(exist_ok=True)
        target = there / str(step)
        while target.exists():
            target = target.with_name(f'{target.name}_')
        (directory / str(step)).rename(target)
        logger.warning('CHECKPOINT %s IS DAMAGED (%s): it was moved to %s.', directory / str(step), why, target)


def _set_aside_without_loss(directory: Path) -> None:
    folders = {step: directory / str(step) for step in steps_of(directory)}
    damaged = {step: _damage_of_loss(folder) for step, folder in folders.items()}
    damaged = {step: why for step, why in damaged.items() if why}
    if not damaged:
        return
    others = {step: judged(folder) for step, folder in folders.items() if step not in damaged}
    if all(others.values()):
        raise _all_damaged(directory, damaged | others)
    _set_aside(directory, damaged)


def _damage_of_loss(folder: Path) -> str:
    """What is wrong with the loss of a checkpoint; '' if nothing is, or it has none."""
    path = folder / 'metrics' / 'metrics'
    try:
        if path.exists():
            float(json.loads(path.read_bytes())['loss'])
    except OSError as error:
        raise UserError(f'the checkpoint {folder} cannot be read ({error.strerror}: {path}): it is left as it is; try '
                        'again when the disk is well.') from error
    except (ValueError, KeyError, TypeError):
        return judged(folder) or f'{path.relative_to(folder)} has no loss'
    return ''


def _all_damaged(directory: Path, damaged: dict[int, str]) -> UserError:
    newest = max(damaged)
    return UserError(f'all {len(damaged)} checkpoints in {directory} are damaged (the newest, {newest}: '
                     f'{damaged[newest]}): start again in a new workdir.')


def loss_of(folder: Path) -> float:
    """Mean loss of the cycle that ends with a checkpoint; inf where none does, or where it is not known."""
    try:
        return float(json.loads((folder / 'metrics' / 'metrics').read_bytes())['loss'])
    except (OSError, ValueError, KeyError, TypeError):
        return math.inf


def _candidates(workdir: str | Path, which: str | int) -> list[Path]:
    """The folders of the checkpoints that `which` allows, the one to be taken first."""
    directory = Path(workdir).resolve() / 'checkpoints'
    steps = steps_of(directory)
    if not steps:
        if not Path(workdir).is_dir():
            raise UserError(f'there is no folder {workdir}, and so no checkpoint: give the workdir of a training run.')
        raise UserError(f'{workdir} has no checkpoint: give the workdir of a training run that ended a phase.')
    folders = {step: directory / str(step) for step in steps}
    if which == 'latest':
        return [folders[step] for step in reversed(steps)]
    if which == 'best':
        for folder in folders.values():
            if why := _damage_of_loss(folder):
                raise UserError(f'the checkpoint {folder} is damaged ({why}), so it cannot be told which one is the '
                                'best: take the latest, or a step.')
        best = min(steps, key=lambda step: loss_of(folders[step]))
        if loss_of(folders[best]) == math.inf:
            raise UserError(f'{workdir} has no best checkpoint: no cycle of its schedule is complete; take the latest.')
        return [folders[best]]
    if which not in folders and str(which) not in map(str, steps):
        raise UserError(f'{workdir} has no checkpoint {which!r}: give latest, best, or one of the steps '
                        f'{", ".join(map(str, steps))}.')
    return [folders[int(which)]]


def load_encoder_variables(workdir: str | Path, which: str | int = 'latest') -> tuple[Any, dict]:
    """Only the encoder of one of a workdir's checkpoints: `({'params', 'batch_stats'} of numpy arrays, meta)`.

    Args:
      workdir: of a training run.
      which: 'latest', the latest one that is not damaged; 'best', the one with the lowest loss of a cycle; or a step.

    Raises:
      UserError: no workdir, no such checkpoint, a damaged one (with 'latest': all are), or one that cannot be read.
    """
    folders, damaged = _candidates(workdir, which), {}
    for folder in folders:
        unread = None
        try:
            why = judged(folder)
            if not why:
                restored, meta = _read_encoder(folder)
                why = _wrong_arrays(restored, meta)
        except UserError as error:
            why = unread = error
        if why and folders != _candidates(workdir, which):  # a run that goes on has a newer one, and deletes this one
            return load_encoder_variables(workdir, which)
        if unread:
            raise unread
        if not why:
            return {part: restored[part]['encoder'] for part in restored}, meta
        damaged[int(folder.name)] = why
        if which == 'latest':
            logger.warning('CHECKPOINT %s IS DAMAGED (%s): the one before is taken.', folder, why)
    if which == 'latest':
        raise _all_damaged(folder.parent, damaged)
    raise UserError(f'the checkpoint {folder} is damaged ({why}): take the latest, or another one.')


def trained_data(workdir: str | Path) -> str | None:
    """The fingerprint of the data that a run was trained on, as its latest checkpoint has it; None without one.

    Raises:
      UserError: the checkpoint cannot be read.
    """
    directory = Path(workdir).resolve() / 'checkpoints'
    steps = steps_of(directory)
    if not steps:
        return None
    with _reading(directory / str(steps[-1])):
        return _read_meta(directory / str(steps[-1])).get('data')


def _read_meta(folder: Path) -> dict:
    # Orbax gives dictionaries of its own kind.
    return _whole(json.loads(json.dumps(ocp.JsonCheckpointHandler().restore(folder / 'meta'))))


def _whole(meta: Any) -> dict:
    """`meta`, where it is what `save` wrote, and `ValueError` else: without checksums nobody has looked at it."""
    known = {'step': int, 'checksums': dict, 'config': str, 'commits': list}
    if not isinstance(meta, dict) or not {'step', 'checksums'} <= meta.keys():
        raise ValueError('its meta has no step or no checksums')
    for name, kind in known.items():
        if not isinstance(meta.get(name, kind()), kind):
            raise ValueError(f'{name} of its meta is {meta[name]!r:.80}')
    if not isinstance(json.loads(meta.get('config', '{}')), dict):
        raise ValueError('config of its meta is none')
    return meta


def _read_encoder(folder: Path) -> tuple[Any, dict]:
    with _reading(folder):
        meta = _read_meta(folder)
        handler = ocp.PyTreeCheckpointHandler()
        tree = handler.metadata(folder / 'state').tree
        item = {part: {'encoder': jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), tree[part]['encoder'])}
                for part in ('params', 'batch_stats')}
        restored = handler.restore(folder / 'state', args=ocp.args.PyTreeRestore(
            item=item, restore_args=ocp.checkpoint_utils.construct_restore_args(item), partial_restore=True))
    return restored, meta


def inspect(workdir: str, verify: bool = False) -> bool:
    """Print a line for each checkpoint of a workdir: step, loss of the cycle that it ends, size.

    Args:
      workdir: of a training run.
      verify: read all files and say what their checksums say.

    Returns:
      Whether no checkpoint was found damaged.

    Raises:
      UserError: no checkpoint, or one that cannot be read.
    """
    folders = _candidates(workdir, 'latest')[::-1]
    losses = {folder: loss_of(folder) for folder in folders}
    best = min(folders, key=losses.get)
    whole = True
    print(f'{"step":>10} {"loss":>10} {"MB":>9}')
    for folder in folders:
        size = sum(path.stat().st_size for path in folder.rglob('*') if path.is_file()) / 1e6
        known = losses[folder] < math.inf
        notes = ['the best'] if known and folder == best else []
        if verify:
            why = judged(folder)
            sealed = (folder / integrity.NAME).exists()
            notes.append(f'DAMAGED: {why}' if why else 'whole' if sealed else 'it has no checksums')
            whole = whole and not why
        loss = f'{losses[folder]:.4f}' if known else '-'
        print(f'{folder.name:>10} {loss:>10} {size:>9.1f}  {", ".join(notes)}'.rstrip())
    return whole


@one_sentence()
def main() -> None:
    parser = Parser(
        prog='python -m vididi_jax.train.checkpoint', description='Look at the checkpoints of a training run.')
    parser.add_argument('command', choices=('inspect', 'verify'),
                        help='list them; or read all of their files, too, and exit with code 1 if one is damaged')
    parser.add_argument('workdir', metavar='DIR', help='the workdir of the run')
    arguments = parser.parse_args()
    sys.exit(not inspect(arguments.workdir, verify=arguments.command == 'verify'))


if __name__ == '__main__':
    main()
