"""TFDS's description of a data set: features.json, dataset_info.json and label.labels.txt."""

from pathlib import Path
from tempfile import TemporaryDirectory

from vididi_jax.data import records


def describe(plan, shards: list[tuple], rows: list[dict], scratch: Path) -> dict[str, bytes]:
    """The files as TFDS writes them, name -> content.

    Args:
      plan, shards: a `writer.Plan` and its shards.
      rows: of all videos, those that were decoded with `_record`: shard, offset, length and checksum.
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
    for split in dict.fromkeys(split for split, *_ in shards):
        mine = [row['_record'] for row in rows if row['split'] == split and row['status'] == 'ok']
        count = next(total for name, _, total, _ in shards if name == split)
        lengths = [sum(record[0] == number for record in mine) for number in range(count)]
        size = sum(records.record_size(record[2]) for record in mine)
        template = tfds.core.ShardedFileTemplate(
            data_dir=str(scratch), dataset_name=plan.name, split=split, filetype_suffix='tfrecord')
        splits.append(tfds.core.SplitInfo(
            name=split, shard_lengths=lengths, num_bytes=size, filename_template=template))
    info.set_splits(tfds.core.splits.SplitDict(splits))
    with TemporaryDirectory(dir=scratch) as folder:
        info.write_to_directory(folder)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}
