"""Checkpoints of a workdir. The one file that knows orbax.

A checkpoint holds the train state and a JSON `meta`: config, position in the data, and a checksum of every array.
Orbax restores a file with a flipped bit without a word, so the checksums are taken from the arrays in memory before
saving and compared with the arrays in memory after restoring.
"""

import json
import logging
from pathlib import Path
from typing import Any

import google_crc32c
import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from vididi_jax.errors import UserError

logger = logging.getLogger(__name__)


def _path_name(path) -> str:
    return '/'.join(str(getattr(key, 'key', getattr(key, 'name', getattr(key, 'idx', key)))) for key in path)


def checksums(tree: Any) -> dict[str, int]:
    """crc32c of the bytes of each array, by its path in the tree."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {_path_name(path): google_crc32c.value(np.ascontiguousarray(leaf).tobytes()) for path, leaf in leaves}


class Checkpoints:
    """The checkpoints below `WORKDIR/checkpoints`, one folder a step."""

    def __init__(self, workdir: str | Path, *, keep: int = 4):
        """`keep`: how many of the latest checkpoints stay; the one with the lowest `loss` metric stays too."""
        self.directory = Path(workdir).resolve() / 'checkpoints'
        policy = preservation_policy.AnyPreservationPolicy([
            preservation_policy.LatestN(keep),
            preservation_policy.BestN(get_metric_fn=lambda metrics: metrics['loss'], reverse=True, n=1),
        ])
        self._manager = ocp.CheckpointManager(
            self.directory, options=ocp.CheckpointManagerOptions(preservation_policy=policy))

    def __enter__(self) -> 'Checkpoints':
        return self

    def __exit__(self, *_) -> None:
        self._manager.close()  # waits for a save under way

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, ascending."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: Any, meta: dict, loss: float) -> None:
        """Start saving; returns once the arrays are copied. `loss` decides which checkpoint is the best."""
        meta = {**meta, 'step': step, 'checksums': checksums(state)}
        arguments = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
        self._manager.save(step, args=arguments, metrics={'loss': loss}, force=True)

    def restore_latest(self, target: Any) -> tuple[Any, dict] | None:
        """The latest checkpoint that is whole, as `(state, meta)`; None if there is no checkpoint at all.

        Args:
          target: a state of the same structure, with the shapes, dtypes and shardings to restore to.

        Raises:
          UserError: there are checkpoints, and none can be restored.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                return self._restore(step, target)
            except Exception as error:  # whatever a broken file makes a reader raise
                logger.warning('CHECKPOINT %s IS DAMAGED (%s): falling back to the one before.',
                               self.directory / str(step), str(error).split('\n')[0])
        if steps:
            raise UserError(f'none of the {len(steps)} checkpoints in {self.directory} can be restored: '
                            'start again in a new workdir.')
        return None

    def discard_after(self, step: int) -> None:
        """Delete the checkpoints later than `step`: the damaged ones that a fallback went past."""
        for later in self.steps():
            if later > step:
                self._manager.delete(later)

    def _restore(self, step: int, target: Any) -> tuple[Any, dict]:
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, target)
        arguments = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), meta=ocp.args.JsonRestore())
        restored = self._manager.restore(step, args=arguments)
        expected = restored.meta['checksums']
        wrong = [name for name, value in checksums(restored.state).items() if expected.get(name) != value]
        if wrong:
            raise ValueError(f'the checksum of {wrong[0]} and {len(wrong) - 1} other arrays is wrong')
        return restored.state, restored.meta


def load_encoder_variables(workdir: str | Path) -> tuple[Any, dict]:
    """Only the encoder of a workdir's latest checkpoint: `({'params', 'batch_stats'} of numpy arrays, meta)`.

    Raises:
      UserError: no workdir, no checkpoint, or a damaged one.
    """
    directory = Path(workdir).resolve() / 'checkpoints'
    steps = sorted(int(p.name) for p in directory.glob('*') if p.name.isdigit()) if directory.is_dir() else []
    if not steps:
        raise UserError(f'{workdir} has no checkpoint: give the workdir of a training run that ended a phase.')
    try:
        folder = directory / str(steps[-1])
        meta = json.loads(json.dumps(ocp.JsonCheckpointHandler().restore(folder / 'meta')))
        handler = ocp.PyTreeCheckpointHandler()
        tree = handler.metadata(folder / 'state').tree
        item = {part: {'encoder': jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), tree[part]['encoder'])}
                for part in ('params', 'batch_stats')}
        restored = handler.restore(folder / 'state', args=ocp.args.PyTreeRestore(
            item=item, restore_args=ocp.checkpoint_utils.construct_restore_args(item), partial_restore=True))
    except Exception as error:
        raise UserError(f'the checkpoint {folder} cannot be read ({str(error).splitlines()[0]}): '
                        'delete that folder to use the one before.') from error
    wrong = [name for name, value in checksums(restored).items() if meta['checksums'].get(name) != value]
    if wrong:
        raise UserError(f'the checkpoint {folder} is damaged (checksum of {wrong[0]}): '
                        'delete that folder to use the one before.')
    return {part: restored[part]['encoder'] for part in restored}, meta
