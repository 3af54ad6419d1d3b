"""Writing a data set directory: several processes decode, one writes, and a run that was stopped goes on.

Until everything is written the directory holds `incomplete/`: the plan of the run, and for each finished shard its
checksum and the rows of its videos. SHA256SUMS comes last, so a directory that has it is complete. Files appear whole,
and a run that goes on reads again what is there.
"""

import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

from tqdm import tqdm

from vididi_jax.data import records
from vididi_jax.data.readers import end_with_parent
from vididi_jax.errors import UserError

from . import beam
from .decode import Decoded
from .finish import finish
from .output import clear, is_complete, unfinished, write, writing
from .plan import Plan, Video, shown
from .shards import read_parts, write_shard
from .views import write_views


def write_dataset(plan: Plan, decode: Callable[[Video], Decoded], out: str | Path, workers: int,
                  pipeline: Sequence[str] = ()) -> list[dict]:
    """Decode the videos of `plan` and write the data set directory `out`; returns the manifest's rows.

    Where the plan has views, `out` holds a store of all videos and beside it the views, see `data_prep.views`; the rows
    are those of the store.

    Args:
      plan: what to write.
      decode: a function that can be pickled.
      out: the directory; one that an equal plan left unfinished is gone on with.
      workers: decoding processes.
      pipeline: of `beam.pipeline_flags`; if given, Apache Beam has the shards decoded and written, by its own workers.

    Raises:
      UserError: `out` holds something else, the data set of another plan or a damaged one, another process writes to
        it, or it cannot be written to; no video can be decoded; or the pipeline fails.
    """
    out = Path(out)
    if plan.views:
        foreign = [path for path in (out.iterdir() if out.is_dir() else ())
                   if path.name not in {records.STORE, *plan.views}]
        if foreign:
            raise UserError(f'{out} is not empty and was not written by this command: choose another --out.')
        rows = write_dataset(replace(plan, views={}), decode, out / records.STORE, workers, pipeline)
        write_views(plan, out)
        return rows
    described = plan.described()
    with writing(out):
        if is_complete(out, described):
            print(f'{shown(str(out))} is complete already: nothing to do')
            return [json.loads(line) for line in (out / records.MANIFEST).read_bytes().splitlines()]
    with unfinished(out):
        clear(out)
        write(out, records.PLAN, json.dumps(described).encode(), folder=out / records.INCOMPLETE)
        shards = plan.shards()
        done = read_parts(plan, shards, out)
        waiting = [shard for shard in shards if shard[:2] not in done]
        left = sum(len(videos) for *_, videos in waiting)
        if left < len(plan.videos):
            print(f'going on after {len(plan.videos) - left:,} of {len(plan.videos):,} videos')
        if pipeline and waiting:
            done |= beam.write_shards(plan, decode, waiting, out, pipeline)
        else:
            done |= _write_shards(plan, decode, waiting, out, workers)
        return finish(plan, shards, [done[shard[:2]] for shard in shards], out, described)


def _write_shards(plan: Plan, decode: Callable, waiting: list[tuple], out: Path, workers: int) -> dict[tuple, dict]:
    """Write shards, decoding in processes of this machine; (split, number) -> part."""
    videos = [video for *_, part in waiting for video in part]
    bar = tqdm(total=len(plan.videos), initial=len(plan.videos) - len(videos), unit='video', desc=plan.name,
               dynamic_ncols=True)
    with bar, _decoded(decode, videos, workers) as stream:
        return {shard[:2]: write_shard(plan, shard, stream, out, bar) for shard in waiting}


class _decoded:
    """Context of an iterator over the decoded videos, in order, a few ahead of their use."""

    def __init__(self, decode, videos: list[Video], workers: int):
        self.decode, self.videos, self.workers = decode, videos, min(workers, len(videos))
        self.pool = ProcessPoolExecutor(
            self.workers, get_context('spawn'), initializer=end_with_parent) if self.workers > 1 else None

    def __enter__(self) -> Iterator[Decoded]:
        return self._ahead() if self.pool else map(self.decode, self.videos)

    def _ahead(self) -> Iterator[Decoded]:
        waiting, videos = deque(), iter(self.videos)
        try:
            while True:
                for video in videos:
                    waiting.append(self.pool.submit(self.decode, video))
                    if len(waiting) >= 2 * self.workers:  # whole videos, in memory
                        break
                if not waiting:
                    return
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise UserError('a decoding process died (out of memory, or a crash in the decoder): '
                            'run the same command again with fewer --workers.') from error

    def __exit__(self, *_) -> None:
        if self.pool:
            self.pool.shutdown(cancel_futures=True)
