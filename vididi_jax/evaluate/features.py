"""Features of videos from a frozen encoder: evenly spaced clips, centre crop, averaged over clips."""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from vididi_jax.augment import Augmentation, centre_crop
from vididi_jax.data import pipeline
from vididi_jax.data.source import RecordSource
from vididi_jax.derivatives import time_derivative
from vididi_jax.errors import UserError
from vididi_jax.train import mesh as meshes
from vididi_jax.train.checkpoint import load_encoder_variables
from vididi_jax.train.loop import INIT, check_same_shapes
from vididi_jax.train.state import build_encoder


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
    return Encoder(module, variables, augment, 0)


@partial(jax.jit, static_argnames=('module', 'augment', 'orders'))
def clip_features(module, variables, clips, sizes, *, augment: Augmentation, orders: tuple[int, ...]) -> dict:
    """Features of uint8 clips (B, T, H, W, 3) and of their derivatives: {order: (B, D) float32}."""
    dtype = jnp.float64 if module.dtype == jnp.float64 else jnp.float32
    pixels = centre_crop(clips, sizes, augment, dtype)
    return {order: module.apply(variables, time_derivative(pixels, order), train=False).astype(dtype)
            for order in orders}


def video_features(
    encoder: Encoder, source: RecordSource, *, orders: tuple[int, ...], clips: int, frames: int, stride: int,
    workers: int,
) -> dict[int, np.ndarray]:
    """Features of every video of `source`, in record order, averaged over its clips.

    Args:
      encoder: the frozen encoder.
      source: the records.
      orders: derivative orders to take features of.
      clips: evenly spaced clips a video.
      frames, stride: of a clip; a video that is too short loops.
      workers: decoding processes.

    Returns:
      {order: (N, D) float32}.
    """
    if frames <= max(orders):
        raise UserError(f'clips of {frames} frames have no derivative of order {max(orders)}: raise eval.frames.')
    mesh = meshes.make_mesh()
    devices = mesh.size
    videos_per_batch = devices * max(1, 64 // (clips * devices))  # about 64 clips at a time, the same on each device
    batches = pipeline.evaluation_batches(
        source, clips_per_video=clips, length=frames, stride=stride, videos_per_batch=videos_per_batch)
    variables = meshes.replicate(mesh, encoder.variables)
    features = {order: [] for order in orders}
    with pipeline.iterate(batches, workers=workers) as iterator, \
            tqdm(total=len(source), unit='video', leave=False, dynamic_ncols=True) as bar:
        for batch in iterator:
            count = len(batch['label'])
            fill = [(0, videos_per_batch - count)]  # the last batch keeps the shape; what fills it is cut off below
            pixels = np.pad(batch['clips'], fill + [(0, 0)] * 5)
            sizes = np.pad(batch['size'], fill + [(0, 0)], mode='edge')
            placed = meshes.to_devices(mesh, {
                'clips': pixels.reshape(-1, *pixels.shape[2:]), 'size': np.repeat(sizes, clips, axis=0)})
            found = clip_features(encoder.module, variables, placed['clips'], placed['size'],
                                  augment=encoder.augment, orders=orders)
            for order, value in jax.device_get(found).items():
                features[order].append(value.reshape(videos_per_batch, clips, -1).mean(1)[:count])
            bar.update(count)
    return {order: np.concatenate(values) for order, values in features.items()}
