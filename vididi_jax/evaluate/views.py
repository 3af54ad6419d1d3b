"""What a function of clips gives for whole videos: its mean over the views of a video."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from vididi_jax.data import pipeline
from vididi_jax.data.source import RecordSource
from vididi_jax.errors import UserError
from vididi_jax.pixels.augment import Augmentation
from vididi_jax.pixels.crops import CROPS, evaluation_crops
from vididi_jax.train import mesh as meshes


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
