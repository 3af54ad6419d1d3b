"""Check a prepared data set: every file against the checksum that preparation wrote, and that there are no others."""

import argparse
from pathlib import Path

import numpy as np
from tqdm import tqdm

from vididi_jax.data import checksums, records
from vididi_jax.data.source import RecordSource, open_splits
from vididi_jax.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('directory', help='data set directory')


def verify(directory: str | Path) -> None:
    """Raises `UserError` with the first thing that is wrong, and how many more are; prints a line a split.

    Of a view of a store, that is verified first.
    """
    folder = Path(directory)
    if not folder.is_dir():
        raise UserError(f'{folder} is no folder: give the directory of a data set.')
    sources = open_splits(folder)  # holds all files but the large ones against their checksums
    if sources[0].store != folder:
        verify(sources[0].store)
    sums = checksums.read_sums(folder)
    wrong = [f'{path} is no file of the data set: move it away' for path in sorted(folder.iterdir())
             if path.name not in {*sums, checksums.NAME}]
    for name in tqdm(sorted(filter(records.is_large, sums)), unit='file', desc='verify', dynamic_ncols=True):
        if problem := find_problem(folder / name, sums[name], sources):
            wrong.append(problem)
    if wrong:
        more = f' ({len(wrong) - 1:,} more files are wrong)' if len(wrong) > 1 else ''
        raise UserError(f'{wrong[0]}{more}.')
    for source in sources:
        counts = source.counts
        print(f'{source.split}: {len(source):,} records of {counts["listed"]:,} listed videos ({counts["missing"]:,} '
              f'missing, {counts["broken"]:,} broken), every checksum right')


def find_problem(path: Path, checksum: str, sources: list[RecordSource]) -> str:
    """What is wrong with a file: the first of its records that cannot be read, or another checksum; '' if nothing."""
    try:
        if checksums.of_file(path) == checksum:
            return ''
        for source in (source for source in sources if path in source.shards):
            for i in np.flatnonzero(source.index['shard'] == source.shards.index(path)):
                source.read_record(i)
    except OSError as error:
        return f'{path} cannot be read ({error}): {checksums.REPAIR}'
    except UserError as error:  # which sends whoever reads to this command
        return f'{str(error).rstrip(".").partition("; run ")[0]}: {checksums.REPAIR}'
    return f'{path} is not what was written (its checksum is not the one in {checksums.NAME}): {checksums.REPAIR}'
