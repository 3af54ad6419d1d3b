"""What an encoder makes of whole videos: its outputs on evenly spaced clips, averaged; and a cache of features."""

import hashlib
import json
import logging
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from vididi_jax.augment import Augmentation
from vididi_jax.crops import CROPS, evaluation_crops
from vididi_jax.data import pipeline
from vididi_jax.data.source import RecordSource
from vididi_jax.derivatives import time_derivative
from vididi_jax.errors import UserError
from vididi_jax.train import mesh as meshes
from vididi_jax.train.checkpoint import checksums, load_encoder_variables
from vididi_jax.train.state import INIT, build_encoder, check_same_shapes

logger = logging.getLogger(__name__)


class Encoder(NamedTuple):
    """A frozen encoder and how it wants its pixels.

    Attributes:
      module: the linen module.
      variables: {'params', 'batch_stats'}.
      augment: of the training run; evaluation uses its crop size, centre fraction, mean and standard deviation.
      step: training steps behind the variables; 0 if untrained.
    """

    module: nn.Module
    variables: Any
    augment: Augmentation
    step: int

    def fingerprint(self) -> str:
        """Hash of all that decides the features of a view: architecture, weights and normalisation."""
        pixels = {name: value for name, value in asdict(self.augment).items()
                  if name in ('size', 'centre_fraction', 'mean', 'std')}
        about = [str(self.module), checksums(self.variables), pixels]
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]


class Views(NamedTuple):
    """Which views of a video are looked at: `config.eval` in short."""

    clips: int  # evenly spaced
    frames: int
    stride: int
    crops: str  # one of `CROPS`
    seed: int  # of random crops

    @property
    def text(self) -> str:
        """For results: '10 x 1 (centre)'."""
        return f'{self.clips} x {CROPS[self.crops]} ({self.crops})'


def read_views(config, orders: tuple[int, ...]) -> Views:
    """The views that an evaluation's config asks for; raises `UserError` if derivatives of `orders` do not fit."""
    settings = config.eval
    if settings.crops not in CROPS:
        raise UserError(f'eval.crops is {settings.crops!r}: choose one of {", ".join(CROPS)}.')
    if settings.clips < 1 or settings.stride < 1:
        raise UserError(f'eval.clips is {settings.clips} and eval.stride {settings.stride}: both must be at least 1.')
    if settings.frames <= max(orders):
        raise UserError(f'clips of {settings.frames} frames have no derivative of order {max(orders)}: raise '
                        'eval.frames.')
    return Views(settings.clips, settings.frames, settings.stride, settings.crops, config.seed)


def trained_encoder(config, workdir: str) -> Encoder:
    """The encoder of the latest checkpoint of `workdir`, whose training config is `config`."""
    untrained = untrained_encoder(config)
    variables, meta = load_encoder_variables(workdir)
    check_same_shapes(untrained.variables['params'], variables['params'], workdir)
    return untrained._replace(variables=variables, step=meta['step'])


def untrained_encoder(config) -> Encoder:
    """The encoder that a run of `config` starts from, before its first step: the baseline of every evaluation."""
    module = build_encoder(config.model)
    augment = Augmentation(**config.augment)
    clip = jnp.zeros((1, config.clip.frames, augment.size, augment.size, 3), module.dtype)
    key = jax.random.fold_in(jax.random.key(config.seed), INIT)
    variables = jax.jit(module.init)(jax.random.split(key, 3)[0], clip)  # as in `init_state`
    if config.init_from:
        given, _ = load_encoder_variables(config.init_from)
        check_same_shapes(variables['params'], given['params'], config.init_from)
        variables = given
    return Encoder(module, variables, augment, 0)


@dataclass(frozen=True)
class FeatureFunction:
    """`(variables, pixels) -> {order: features (B, D)}` of an encoder."""

    module: nn.Module
    orders: tuple[int, ...]

    def __call__(self, variables, pixels: jax.Array) -> dict[int, jax.Array]:
        return {order: self.module.apply(variables, time_derivative(pixels, order), train=False)
                for order in self.orders}


@partial(jax.jit, static_argnames=('function', 'augment', 'views', 'dtype'))
def _outputs(function, variables, batch: dict, *, augment: Augmentation, views: Views, dtype) -> dict:
    """{order: (B, clips x crops, D)} of a batch of videos."""
    clips, records = batch['clips'], batch['record']
    seed = jax.random.key(views.seed)
    fold = jax.vmap(jax.random.fold_in, (None, 0))
    keys = jax.vmap(fold, (0, None))(fold(seed, records), jnp.arange(views.clips)).reshape(-1)
    sizes = jnp.repeat(batch['size'], views.clips, axis=0)
    pixels = evaluation_crops(keys, clips.reshape(-1, *clips.shape[2:]), sizes, augment, views.crops, dtype)
    found = function(variables, pixels.reshape(-1, *pixels.shape[2:]))
    return {order: value.astype(dtype).reshape(len(clips), -1, value.shape[-1]) for order, value in found.items()}


def average_over_views(
    function: Callable, variables, source: RecordSource, videos: np.ndarray, *, augment: Augmentation, views: Views,
    workers: int, dtype=jnp.float32,
) -> dict[int, np.ndarray]:
    """The mean over a video's views of what `function` gives, for videos of `source`.

    Args:
      function: `(variables, pixels (B, T, h, w, 3)) -> {order: (B, D)}`; hashable, as it is compiled in.
      variables: its first argument.
      source: the records.
      videos: (N,) indices into them.
      augment: how pixels are cropped and normalised.
      views: which views; a clip of a video that is too short for it runs on from its start.
      workers: decoding processes.
      dtype: of the pixels and the mean, float32 or float64.

    Returns:
      {order: (N, D)}, in the order of `videos`.
    """
    mesh = meshes.make_mesh()
    devices = mesh.size
    views_per_video = views.clips * CROPS[views.crops]
    size = devices * max(1, 64 // (views_per_video * devices))  # about 64 views at a time, the same on each device
    batches = pipeline.evaluation_batches(
        source, clips_per_video=views.clips, length=views.frames, stride=views.stride, videos_per_batch=size,
        records=videos)
    variables = meshes.replicate(mesh, variables)
    found = {}
    with pipeline.iterate(batches, workers=workers) as iterator, \
            tqdm(total=len(videos), unit='video', leave=False, dynamic_ncols=True) as bar:
        for batch in iterator:
            count = len(batch['label'])
            fill = size - count  # the last batch keeps the shape; what fills it is cut off below
            placed = meshes.to_devices(mesh, {
                name: np.pad(batch[name], [(0, fill)] + [(0, 0)] * (batch[name].ndim - 1), mode='edge')
                for name in ('clips', 'size', 'record')})
            outputs = _outputs(function, variables, placed, augment=augment, views=views, dtype=dtype)
            for order, value in jax.device_get(outputs).items():
                found.setdefault(order, []).append(value.mean(1)[:count])
            bar.update(count)
    return {order: np.concatenate(values) for order, values in found.items()}


def video_features(
    encoder: Encoder, source: RecordSource, *, orders: tuple[int, ...], views: Views, workers: int, cache: Path,
) -> dict[int, np.ndarray]:
    """Features of every video of `source`, in record order, averaged over its views.

    What was computed before comes from `cache`: a file an order, named after a hash of the encoder's weights, the
    data's fingerprint and the views. A file that is damaged is computed again.

    Args:
      encoder: the frozen encoder.
      source: the records.
      orders: derivative orders to take features of.
      views: see `average_over_views`.
      workers: decoding processes.
      cache: folder, made if need be.

    Returns:
      {order: (N, D) float32, float64 where the encoder computes in it}.
    """
    dtype = jnp.float64 if encoder.module.dtype == jnp.float64 else jnp.float32
    about = {'encoder': encoder.fingerprint(), 'data': source.fingerprint, 'split': source.split, **views._asdict()}
    if views.crops != 'random':
        del about['seed']
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
    paths = {order: cache / f'{key}_order{order}.npz' for order in orders}
    known = {order: value for order, path in paths.items() if (value := _read(path, len(source))) is not None}
    missing = tuple(order for order in orders if order not in known)
    if missing:
        known |= average_over_views(
            FeatureFunction(encoder.module, missing), encoder.variables, source, np.arange(len(source)),
            augment=encoder.augment, views=views, workers=workers, dtype=dtype)
        if jax.process_index() == 0:
            cache.mkdir(parents=True, exist_ok=True)
            for order in missing:
                _write(paths[order], known[order])
    return {order: known[order] for order in orders}


def _write(path: Path, features: np.ndarray) -> None:
    temporary = path.with_suffix('.tmp')
    with temporary.open('wb') as file:
        np.savez(file, features=features)  # a zip file: it has checksums
    os.replace(temporary, path)


def _read(path: Path, videos: int) -> np.ndarray | None:
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
