"""What a function of clips gives for whole videos: its mean over the views of a video."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vididi_jax.compilation import jit_with_options
from vididi_jax.data import pipeline
from vididi_jax.data.source import RecordSource
from vididi_jax.errors import UserError
from vididi_jax.evaluate.gather import batch_size_for, gathered
from vididi_jax.keys import root_key
from vididi_jax.models import LEAST_FRAMES
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


def read_views(config, orders: tuple[int, ...], encoder: str = '') -> Views:
    """The views that an evaluation's config asks for, checked.

    Args:
      config: of the evaluation.
      orders: derivative orders that will be taken of the clips.
      encoder: its name, where it is known.

    Raises:
      UserError: clips of too few frames for these, see `check_frames`.
    """
    settings = config.eval
    if settings.frames <= max(orders):
        raise UserError(f'clips of {settings.frames} frames have no derivative of order {max(orders)}: raise '
                        'eval.frames.')
    check_frames(settings.frames, orders, encoder)
    return Views(settings.clips, settings.frames, settings.stride, settings.crops, config.seed)


def check_frames(frames: int, orders: tuple[int, ...], encoder: str) -> None:
    """Raises `UserError` if derivatives of `orders` of clips of so many frames leave too few for an encoder's pools."""
    least = LEAST_FRAMES.get(encoder, 1)
    if frames - max(orders) < least:
        raise UserError(f'{encoder} takes clips of at least {least} frames, and derivatives of order {max(orders)} of '
                        f'clips of {frames} have {frames - max(orders)}: raise config.eval.frames.')


@jit_with_options(static_argnames=('function', 'augment', 'views', 'dtype'))
def _outputs(function, variables, batch: dict, *, augment: Augmentation, views: Views, dtype) -> dict:
    """{order: (B, clips x crops, D)} of a batch of videos."""
    clips, records = batch['clips'], batch['record']
    seed = root_key(views.seed)
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
    size = batch_size_for(mesh, 64 // (views.clips * CROPS[views.crops]))  # about 64 views at a time
    batches = pipeline.evaluation_batches(
        source, clips_per_video=views.clips, length=views.frames, stride=views.stride, batch_size=size,
        records=videos, rows=meshes.rows_here(mesh, size))
    variables = meshes.replicate(mesh, variables)

    def outputs(batch: dict) -> dict:
        return _outputs(function, variables, batch, augment=augment, views=views, dtype=dtype)

    means = [{order: value.mean(1) for order, value in found.items()} for found in gathered(
        outputs, batches, mesh=mesh, count=len(videos), inputs=('clips', 'size', 'record'), workers=workers)]
    return {order: np.concatenate([found[order] for found in means]) for order in means[0]}
