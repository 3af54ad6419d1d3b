"""Features of whole videos by a frozen encoder, kept in a cache; and the task that writes them to a file."""

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vididi_jax.data.source import RecordSource
from vididi_jax.derivatives import time_derivative
from vididi_jax.errors import UserError
from vididi_jax.evaluate.gather import check_finite
from vididi_jax.evaluate.protocol import open_nonempty, usable
from vididi_jax.evaluate.results import check_name, device, provenance
from vididi_jax.evaluate.views import Views, average_over_views, read_views
from vididi_jax.fields import check_fields
from vididi_jax.files import replacing
from vididi_jax.schedule import order_name
from vididi_jax.train.encoder import Encoder, asked_encoder, check_same_everywhere
from vididi_jax.train.processes import on_process_zero, raise_together
from vididi_jax.train.run import workdir_config

logger = logging.getLogger(__name__)

ORDERS = (0, 1, 2)
MAKERS = ('data', 'pixels', 'models', 'derivatives.py',  # of features
          *(f'evaluate/{name}.py' for name in ('views', 'gather', 'features')))


def code_hash(package: Path) -> str:
    """Hash of the source of everything that decides the features: the files `MAKERS` of a copy of this package."""
    files = [file for maker in MAKERS for file in sorted((package / maker).rglob('*.py')) or [package / maker]]
    digest = hashlib.sha256()
    for file in files:
        source = file.read_bytes()
        digest.update(f'{file.relative_to(package).as_posix()} {len(source)} '.encode() + source)
    return digest.hexdigest()[:16]


CODE = code_hash(Path(__file__).resolve().parents[1])  # as it was imported


@dataclass(frozen=True)
class FeatureFunction:
    """`(variables, pixels) -> {order: features (B, D)}` of an encoder."""

    module: nn.Module
    orders: tuple[int, ...]

    def __call__(self, variables, pixels: jax.Array) -> dict[int, jax.Array]:
        return {order: self.module.apply(variables, time_derivative(pixels, order), train=False)
                for order in self.orders}


def video_features(
    encoder: Encoder, source: RecordSource, *, orders: tuple[int, ...], views: Views, workers: int, cache: Path,
) -> dict[int, np.ndarray]:
    """Features of every video of `source`, in record order, averaged over its views.

    What was computed before comes from `cache`: a file an order, named after a hash of the encoder's weights, the
    data's fingerprint, the views, the code, the kind of device and JAX's version, which results tell. A file that is
    damaged is computed again.

    Args:
      encoder: the frozen encoder.
      source: the records.
      orders: derivative orders to take features of.
      views: see `average_over_views`.
      workers: decoding processes.
      cache: folder, made if need be.

    Returns:
      {order: (N, D) float32, float64 where the encoder computes in it}.

    Raises:
      UserError: features that are not finite.
    """
    dtype = jnp.float64 if encoder.module.dtype == jnp.float64 else jnp.float32
    about = {'code': CODE, 'encoder': encoder.fingerprint(encoder.module), 'made': [device(), jax.__version__],
             'data': source.fingerprint, 'split': source.split, **views._asdict()}
    if views.crops != 'random':
        del about['seed']
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
    paths = {order: cache / f'{key}_order{order}.npz' for order in orders}
    known = _read(paths, len(source))
    missing = tuple(order for order in orders if order not in known)
    if missing:
        computed = average_over_views(
            FeatureFunction(encoder.module, missing), encoder.variables, source, np.arange(len(source)),
            augment=encoder.augment, views=views, workers=workers, dtype=dtype)
        check_finite(computed.values(), source.ids, 'features',
                     'take another checkpoint, or train with a lower config.optimizer.base_rate')
        _write(paths, computed)
        known |= computed
    return {order: known[order] for order in orders}


@on_process_zero
def _write(paths: dict[int, Path], features: dict[int, np.ndarray]) -> None:
    for order, value in features.items():
        path = paths[order]
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part, part.open('wb') as file:  # another evaluation may write the same
            np.savez(file, features=value)  # a zip file: it has checksums


@on_process_zero  # so that all agree on what is missing
def _read(paths: dict[int, Path], videos: int) -> dict[int, np.ndarray]:
    found = {order: _read_file(path, videos) for order, path in paths.items()}
    return {order: value for order, value in found.items() if value is not None}


def _read_file(path: Path, videos: int) -> np.ndarray | None:
    if not path.exists():
        return None
    try:
        with np.load(path) as file:
            features = file['features']
        if len(features) == videos:
            return features
        reason = f'{len(features)} videos instead of {videos}'
    except Exception as error:  # whatever a broken file makes a reader raise
        reason = str(error)
    logger.warning('%s is damaged (%s): computing these features again.', path, reason)
    return None


@raise_together
def _open(config, workdir: str) -> tuple:
    """The training config, the views, the videos and the encoder, checked."""
    check_fields(config)
    check_name(workdir, config)
    training = workdir_config(workdir)
    views = read_views(config, ORDERS, training.model.name)
    source = open_nonempty(config.data.dir or training.data.dir, config.eval.split)
    side = usable(source, config.eval)
    check_file(Path(workdir) / 'eval' / config.eval.name / 'features.npz', source, config.eval.untrained)
    encoder = asked_encoder(training, workdir, config.eval)
    return training, views, side, encoder


def check_file(path: Path, source: RecordSource, untrained: bool) -> None:
    """Raises `UserError` if features of another data set, split, or kind of encoder would be overwritten."""
    try:
        with np.load(path) as file:
            about = json.loads(str(file['about']))
        there = {'data set': about['fingerprint'], 'split': about['split'],
                 'encoder': about['config']['eval']['untrained']}
    except Exception:  # there is none, or it is damaged, and written anew
        return
    asked = {'data set': source.fingerprint, 'split': source.split, 'encoder': untrained}
    other = [name for name, value in asked.items() if there[name] != value]
    if other:
        raise UserError(f'{path} has features of another {other[0]}, which these would overwrite: set another '
                        '--config.eval.name, or delete it.')


def run(config, workdir: str) -> Path:
    """Write the features of split `config.eval.split`; labels are neither needed nor used.

    Videos that are missing or broken are counted and not refused: there is no figure here that a part would change.

    The file has `V`, `dV` and `d2V` (N, D), `ids`, `labels` and `groups` (N,) text, and `about`: JSON text with the
    counts of the split's videos, views, checkpoint, fingerprints, and what results.json has too: seeds, config, commit,
    versions, device.
    """
    training, views, side, encoder = _open(config, workdir)
    check_same_everywhere(config, side.source.fingerprint, encoder)
    features = video_features(encoder, side.source, orders=ORDERS, views=views, workers=config.data.workers,
                              cache=Path(workdir) / 'eval' / 'cache')

    @on_process_zero
    def write() -> Path:
        counts = side.counts(config.eval)
        about = {'data': config.data.dir or training.data.dir, 'split': side.source.split,
                 'short_video': config.eval.short_video, 'counts': counts, 'clips_x_crops': views.text,
                 'frames': views.frames, 'stride': views.stride, 'encoder': encoder.fingerprint(),
                 'checkpoint_step': encoder.step, 'fingerprint': side.source.fingerprint, 'seed': training.seed,
                 'evaluation_seed': config.seed, 'statistics': training.get('statistics', 'plain'),
                 **provenance(config)}
        columns = {column: np.array([row[key] for row in side.rows], str)
                   for column, key in (('ids', 'id'), ('labels', 'label'), ('groups', 'group'))}
        path = Path(workdir) / 'eval' / config.eval.name / 'features.npz'
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part, part.open('wb') as file:
            np.savez(file, **{order_name(order): features[order][side.videos] for order in ORDERS}, **columns,
                     about=json.dumps(about))
        print(f'{counts["videos"]:,} of {counts["listed"]:,} listed videos of split {side.source.split!r} '
              f'({counts["missing"]:,} missing, {counts["broken"]:,} broken, {counts["looped"]:,} looped, '
              f'{counts["dropped"]:,} dropped as too short), {views.text} views, {counts["clips_per_video"]:.1f} '
              f'different clips a video, encoder of step {encoder.step}: written to {path}')
        return path

    return write()
