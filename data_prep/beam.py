"""Shards written by an Apache Beam pipeline, on one machine or on many.

A task is a shard: it decodes the shard's videos and writes what a run without Beam would, the same bytes. Tasks and
the command that started them meet in files alone, so all of them must see `--videos` and `--out` at the same paths. A
runner may give a task twice, also at the same time: each writes into temporary files of its own, and what is there
stays.
"""

import os
import shlex
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from threading import Event, Thread

from tqdm import tqdm

from vididi_jax.data import records
from vididi_jax.errors import UserError

from .decode import Decoded
from .plan import Plan, Video, shown
from .shards import count_parts, read_parts, write_shard

SHARED = '--videos and --out must lie on a file system that this machine and all workers see at the same paths'


def pipeline_flags(runner: str, options: str) -> list[str]:
    """The command line of a pipeline, from `--runner` and `--beam_options`.

    Raises:
      UserError: apache_beam is not installed, or `options` cannot be split as a shell would.

    >>> shlex.split("--project=mine --experiments='a b'")
    ['--project=mine', '--experiments=a b']
    """
    if find_spec('apache_beam') is None:
        raise UserError(f'--runner={runner} needs Apache Beam, which is not installed: `pip install -e ".[beam]"` into '
                        'an environment of its own, as it holds other packages back.')
    try:
        return [f'--runner={runner}', *shlex.split(options)]
    except ValueError as error:
        raise UserError(f'--beam_options={options} cannot be split into options ({error}).') from error


def write_shards(plan: Plan, decode: Callable[[Video], Decoded], waiting: list[tuple], out: Path,
                 flags: list[str]) -> dict[tuple[str, int], dict]:
    """Write shards of `plan`, each with its part; returns (split, number) -> part, read again from the disk.

    Args:
      plan, decode, out: as of `data_prep.writer.write_dataset`.
      waiting: the shards to write, of `plan.shards()`.
      flags: of `pipeline_flags`.

    Raises:
      UserError: the pipeline fails, or has ended and a shard is not there.
    """
    import apache_beam
    from apache_beam.options.pipeline_options import PipelineOptions

    small = replace(plan, videos=(), missing=(), files={}, views={})  # it goes to every worker
    try:
        pipeline = apache_beam.Pipeline(options=PipelineOptions(flags))
        _ = (pipeline | apache_beam.Create(waiting) | apache_beam.Reshuffle()
             | apache_beam.Map(write_task, plan=small, decode=decode, out=out.resolve()))
        with _progress(plan.name, out, len(plan.shards())):
            job = pipeline.run()
            try:
                job.wait_until_finish()
            except KeyboardInterrupt:
                job.cancel()  # else it would go on elsewhere
                raise
    except Exception as error:  # whatever a task or a service raises, Beam wraps it in a class of the runner's choice
        *_, last = [type(error).__name__, *filter(None, map(str.strip, str(error).splitlines()))]
        raise UserError(f'the Beam pipeline failed ({last}): the same command goes on from here.') from error
    parts = read_parts(plan, waiting, out)
    if lost := len(waiting) - len(parts):
        raise UserError(f'{lost:,} of {len(waiting):,} shards are not in {out} after the pipeline has ended: {SHARED}; '
                        'the same command goes on from here.')
    return parts


def write_task(shard: tuple, plan: Plan, decode: Callable[[Video], Decoded], out: Path) -> None:
    """What a worker does for one shard: nothing if it is there already.

    Raises:
      UserError: the worker does not see the videos or the output, or cannot write.
    """
    if read_parts(plan, [shard], out):
        return
    videos = shard[-1]
    # A worker elsewhere would take every video that it does not see for a broken one.
    for path in (out / records.INCOMPLETE, *(Path(plan.root, video.path) for video in videos if plan.root)):
        if not os.path.exists(path):
            raise UserError(f'the worker {socket.gethostname()} does not see {shown(str(path))}: {SHARED}.')
    with tqdm(disable=True) as bar:
        write_shard(plan, shard, map(decode, videos), out, bar)


@contextmanager
def _progress(name: str, out: Path, total: int) -> Iterator[None]:
    """A bar of the shards that are written, by looking."""
    ended = Event()
    with tqdm(total=total, unit='shard', desc=name, dynamic_ncols=True) as bar:
        def look() -> None:
            while not ended.wait(1):
                bar.update(count_parts(out) - bar.n)

        watcher = Thread(target=look, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()
            bar.update(count_parts(out) - bar.n)
