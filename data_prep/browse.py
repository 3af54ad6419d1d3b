"""The task 'browse': a folder of videos, prepared, embedded, and searched for what moves alike."""

import tempfile
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from json import dumps, loads
from pathlib import Path

import numpy as np

from vididi_jax.browse.neighbours import NEAREST
from vididi_jax.browse.page import MOST, write_browser
from vididi_jax.data import checksums, records
from vididi_jax.data.clips import frames_spanned
from vididi_jax.data.readers import usable_cpus
from vididi_jax.data.source import RecordSource
from vididi_jax.errors import UserError
from vididi_jax.evaluate.features import ORDERS, video_features
from vididi_jax.evaluate.retrieval import kinds, neighbours
from vididi_jax.evaluate.views import Views, read_views
from vididi_jax.fields import check_fields
from vididi_jax.measures import unit
from vididi_jax.train.encoder import Encoder, stored_side, trained_encoder
from vididi_jax.train.processes import check_alone, on_process_zero
from vididi_jax.train.run import workdir_config

from . import folder
from .decode import decode_video
from .plan import Plan, Video, printable, shown
from .summary import summary
from .writer import write_dataset


def prepare_folder(
    videos: str, out: Path, short_side: int, check: Callable[[int], None],
) -> tuple[Path, list[dict]]:
    """Decode a folder of videos into `out`, in a data set named after the files that it holds; its manifest's rows.

    A folder that is a data set already is taken as it is.

    Args:
      videos: the folder.
      out: where the data set is made.
      short_side: of its frames.
      check: called with the number of videos before they are decoded.
    """
    # Of both: SHA256SUMS is also what users call the checksums of their videos.
    if all((Path(videos) / name).is_file() for name in (checksums.NAME, records.PLAN)):
        source = RecordSource(videos, 'train')  # which holds its files against their checksums
        check(len(source))
        lines = (source.directory / records.MANIFEST).read_bytes().splitlines()
        return Path(videos), list(map(loads, lines))
    plan, decode = folder.plan_folder(videos, short_side=short_side, encoding=records.ENCODING)
    check(len(plan.videos))
    files = [(Path(videos, video.path).stat().st_size, Path(videos, video.path).stat().st_mtime_ns)
             for video in plan.videos]
    place = out / f'data_{sha256(dumps([plan.described(), files]).encode()).hexdigest()[:8]}'
    rows = write_dataset(plan, decode, place, usable_cpus())
    summary(rows, str(place))
    return place, rows


def prepare_file(path: Path, out: Path, like: RecordSource) -> None:
    """Decode one video into the data set `out`, as those of `like` are; raises `UserError` if it cannot be read."""
    video = Video(printable(path.name), path.name, '', '', 'train')
    options = {'short_side': int(like.sizes.min(1).max())}
    decode = partial(folder.decode, root=str(path.parent), encoding=like.encoding, **options)
    write_dataset(Plan('query', str(path.parent), ('',), (video,), (), like.encoding, options), decode, out, 1)


def embed(
    config, encoder: Encoder, views: Views, directory: Path, cache: Path, workers: int,
) -> tuple[RecordSource, np.ndarray]:
    """The videos of a data set, and their features of the kind `config.kind`."""
    source = RecordSource(str(directory), 'train')
    features = video_features(encoder, source, orders=ORDERS, views=views, workers=workers, cache=cache)
    return source, kinds(features)[config.kind]


def told(kind: str) -> str:
    """What features of a kind are of."""
    return 'V and dV joined' if kind == 'joined' else kind


def print_nearest(name: str, query: np.ndarray, features: np.ndarray, source: RecordSource, kind: str) -> None:
    """The NEAREST videos of a folder to the video of that name, with their scores."""
    order = neighbours(query, features, NEAREST)[0]
    scores = unit(features[order]) @ unit(query)[0]
    print(f'the nearest {len(order)} of {len(source):,} videos to {name}, by the cosine of features of {told(kind)}:')
    for rank, (number, score) in enumerate(zip(order, scores, strict=True), 1):
        print(f'{rank:3}  {score:6.3f}  {shown(source.rows[number]["id"])}')


@on_process_zero
def run(config, workdir: str) -> None:
    """Embed the videos of `config.videos` and write `WORKDIR/index.html`; print the nearest to `config.query`."""
    check_fields(config)
    check_alone('a page')
    if not config.checkpoint or not config.videos:
        raise UserError('give --config.checkpoint=W, the workdir of a training run, and --config.videos=DIR, a folder '
                        'of videos.')
    query, out = Path(config.query), Path(workdir)
    if config.query and not query.is_file():
        raise UserError(f'config.query is {config.query}, and there is no such file.')
    if not Path(config.videos).is_dir():
        raise UserError(f'config.videos is {shown(config.videos)}, and that is no folder: give the one that '
                        'holds the videos.')
    training = workdir_config(config.checkpoint)
    views = read_views(config, ORDERS, training.model.name)
    encoder = trained_encoder(training, config.checkpoint, config.eval.checkpoint)

    def check(count: int) -> None:
        if count > MOST and not config.query:
            raise UserError(f'{shown(config.videos)} has {count:,} videos, and a page holds at most {MOST:,}: '
                            'browse a part of them, ask for the nearest to one with --config.query=FILE, or take the '
                            'features of all with configs/features.py.')

    side = stored_side(encoder.augment)
    if config.query and not (found := decode_video(query, side, records.ENCODING)).frames:
        raise UserError(f'config.query is {shown(config.query)}, which cannot be read as a video: {found.reason}.')
    directory, listed = prepare_folder(config.videos, out, side, check)
    rows = [row for row in listed if row['split'] == 'train']
    source, features = embed(config, encoder, views, directory, out / 'cache', config.data.workers)
    unread = [row for row in rows if row['status'] != 'ok']
    written = f'more than the {MOST:,} of a page, which is not written'
    if len(source) <= MOST:
        short = source.num_frames < frames_spanned(views.frames, views.stride)
        about = (f'{printable(str(Path(config.videos).resolve()))}: features of {told(config.kind)} by the encoder of '
                 f'{printable(config.checkpoint)}, step {encoder.step}, {views.text} views of {views.frames} frames at '
                 f'stride {views.stride}; {len(unread):,} of {len(rows):,} files could not be read, and '
                 f'{int(short.sum()):,} videos are shorter than a view, which begins them again.')
        if others := len(listed) - len(rows):
            about += f' The {others:,} videos of other splits than train are not here.'
        write_browser(out / 'index.html', source, features, unread, about=about, clusters=config.clusters)
        written = f'written to {out / "index.html"}'
    print(f'{len(source):,} videos embedded, {len(unread):,} not read; {written}')
    if config.query:
        with tempfile.TemporaryDirectory() as place:
            prepare_file(query.resolve(), Path(place) / 'data', source)
            _, asked = embed(config, encoder, views, Path(place) / 'data', Path(place) / 'cache', workers=0)
        print_nearest(shown(query.name), asked, features, source, config.kind)
