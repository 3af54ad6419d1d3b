"""What a step that went wrong leaves behind: WORKDIR/debug/STEP with all that repeats it."""

import json
from pathlib import Path

import flax.serialization
import jax
import numpy as np

from vididi_jax.keys import IMPLEMENTATION
from vididi_jax.train.state import TrainState


def save_bundle(
    workdir: str | Path, step: int, *, state: TrainState, batch: dict, key: jax.Array, orders: tuple[int, int],
    metrics: dict,
) -> Path:
    """Save the state before a step (after it if only its embeddings went wrong), and batch, key, orders and metrics.

    Args:
      workdir: of the run.
      step: number of the step, from 1.
      state: before the step, or after it; its `step` says which.
      batch: this process's part of it, numpy arrays.
      key: of its augmentation.
      orders: of its views.
      metrics: what it gave.

    Returns:
      The folder: `state.msgpack` (flax), `batch_PROCESS.npz`, `step.json`.
    """
    folder = Path(workdir) / 'debug' / str(step)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / f'batch_{jax.process_index()}.npz', **batch)
    if jax.process_index() == 0:
        (folder / 'state.msgpack').write_bytes(flax.serialization.to_bytes(jax.device_get(state)))
        (folder / 'step.json').write_text(json.dumps({
            'step': step, 'orders': list(orders), 'key': np.asarray(jax.random.key_data(key)).tolist(),
            'metrics': {name: float(value) for name, value in metrics.items()}}, indent=2) + '\n', encoding='utf-8')
    return folder


def load_bundle(folder: str | Path, target: TrainState) -> tuple[TrainState, dict, jax.Array, tuple[int, int]]:
    """`(state, batch, key, orders)` as `train_step` takes them, of process 0; `target` is a state of that structure."""
    folder = Path(folder)
    step = json.loads((folder / 'step.json').read_bytes())
    state = flax.serialization.from_bytes(target, (folder / 'state.msgpack').read_bytes())
    with np.load(folder / 'batch_0.npz') as file:
        batch = dict(file)
    key = jax.random.wrap_key_data(np.array(step['key'], np.uint32), impl=IMPLEMENTATION)
    return state, batch, key, tuple(step['orders'])
