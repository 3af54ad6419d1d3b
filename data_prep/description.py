"""TFDS's description of a data set: features.json, dataset_info.json and label.labels.txt."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from vididi_jax.data import records


def describe(plan, shards: list[tuple], indices: dict[str, np.ndarray], scratch: Path) -> dict[str, bytes]:
    """The files as TFDS writes them, name -> content.

    Args:
      plan, shards: a `data_prep.plan.Plan` and its shards.
      indices: split -> its index, see `records.VIDEO`.
      scratch: a folder that can be written to.
    """
    import tensorflow_datasets as tfds

    identity = tfds.core.dataset_info.DatasetIdentity(
        name=plan.name, version=tfds.core.Version('1.0.0'), data_dir=str(scratch), module_name='data_prep')
    options = ', '.join(f'{name}={value}' for name, value in plan.options.items())
    info = tfds.core.DatasetInfo(
        builder=identity, features=records.features(plan.label_names, plan.encoding),
        description=f'Decoded videos of {plan.name}, one record each ({options}, encoding={plan.encoding}).')
    splits = []
    for split, index in indices.items():
        count = next(total for name, _, total, _ in shards if name == split)
        lengths = np.bincount(index['shard'], minlength=count).tolist()
        size = int(records.record_size(index['length']).sum())
        template = tfds.core.ShardedFileTemplate(
            data_dir=str(scratch), dataset_name=plan.name, split=split, filetype_suffix='tfrecord')
        splits.append(tfds.core.SplitInfo(
            name=split, shard_lengths=lengths, num_bytes=size, filename_template=template))
    info.set_splits(tfds.core.splits.SplitDict(splits))
    with TemporaryDirectory(dir=scratch) as folder:
        info.write_to_directory(folder)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}
