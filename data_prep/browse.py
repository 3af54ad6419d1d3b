"""The task 'browse': a folder of videos, prepared, embedded, and searched for what moves alike."""

import tempfile
from argparse import Namespace
from functools import partial
from hashlib import sha256
from json import dumps, loads
from pathlib import Path

import numpy as np

from vididi_jax.browse.neighbours import NEAREST
from vididi_jax.browse.page import write_browser
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
from vididi_jax.train.encoder import Encoder, trained_encoder
from vididi_jax.train.processes import check_alone, on_process_zero
from vididi_jax.train.run import workdir_config

from . import folder
from .__main__ import summary
from .plan import Plan, Video, printable
from .writer import write_dataset

SHORT_SIDE, ENCODING = 128, 'jpeg'


def prepare_folder(videos: str, out: Path) -> tuple[Path, list[dict]]:
    """Decode a folder of videos into `out`, in a data set named after the files that it holds; its manifest's rows.

    A folder that is a data set already is taken as it is.
    """
    if (Path(videos) / checksums.NAME).is_file():
        source = RecordSource(videos, 'train')  # which holds its files against their checksums
        lines = (source.directory / records.MANIFEST).read_text().splitlines()
        return Path(videos), [row for row in map(loads, lines) if row['split'] == 'train']
    plan, decode = folder.plan(Namespace(videos=videos, group='', split_by_dir=False, list=None,
                                         short_side=SHORT_SIDE, encoding=ENCODING))
    files = [(Path(videos, video.path).stat().st_size, Path(videos, video.path).stat().st_mtime_ns)
             for video in plan.videos]
    place = out / f'data_{sha256(dumps([plan.described(), files]).encode()).hexdigest()[:8]}'
    rows = write_dataset(plan, decode, place, usable_cpus())
    summary(rows, str(place))
    return place, rows


def prepare_file(path: Path, out: Path) -> None:
    """Decode one video into the data set `out`; raises `UserError` if it cannot be read."""
    video = Video(printable(path.name), path.name, '', '', 'train')
    options = {'short_side': SHORT_SIDE}
    decode = partial(folder.decode, root=str(path.parent), encoding=ENCODING, **options)
    write_dataset(Plan('query', str(path.parent), ('',), (video,), (), ENCODING, options), decode, out, 1)


def embed(
    config, encoder: Encoder, views: Views, directory: Path, cache: Path, workers: int,
) -> tuple[RecordSource, np.ndarray]:
    """The videos of a data set, and their features of the kind `config.kind`."""
    source = RecordSource(str(directory), 'train')
    features = video_features(encoder, source, orders=ORDERS, views=views, workers=workers, cache=cache)
    return source, kinds(features)[config.kind]


def print_nearest(query: np.ndarray, features: np.ndarray, source: RecordSource, kind: str) -> None:
    """The NEAREST videos of a folder to one video, with their scores."""
    order = neighbours(query, features, NEAREST)[0]
    scores = unit(features[order]) @ unit(query)[0]
    print(f'the nearest {len(order)} of {len(source):,} videos, by the cosine of features of {kind}:')
    for rank, (number, score) in enumerate(zip(order, scores, strict=True), 1):
        print(f'{rank:3}  {score:6.3f}  {source.rows[number]["id"]}')


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
    views, training = read_views(config, ORDERS), workdir_config(config.checkpoint)
    encoder = trained_encoder(training, config.checkpoint, config.eval.checkpoint)
    directory, rows = prepare_folder(config.videos, out)
    source, features = embed(config, encoder, views, directory, out / 'cache', config.data.workers)
    short = source.num_frames < frames_spanned(views.frames, views.stride)
    unread = [row for row in rows if row['status'] != 'ok']
    about = (f'{printable(str(Path(config.videos).resolve()))}: features of {config.kind} by the encoder of '
             f'{printable(config.checkpoint)}, step '
             f'{encoder.step}, {views.text} views of {views.frames} frames; {len(unread):,} of {len(rows):,} files '
             f'could not be read, and {int(short.sum()):,} videos are shorter than a view, which begins them again.')
    write_browser(out / 'index.html', source, features, unread, about=about, clusters=config.clusters)
    print(f'{len(source):,} videos embedded, {len(unread):,} not read; written to {out / "index.html"}')
    if config.query:
        with tempfile.TemporaryDirectory() as place:
            prepare_file(query.resolve(), Path(place) / 'data')
            _, asked = embed(config, encoder, views, Path(place) / 'data', Path(place) / 'cache', workers=0)
        print_nearest(asked, features, source, config.kind)
