"""A trained encoder as a function: `encode = load_encoder(workdir); features = encode(clips)`."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from vididi_jax.augment import Augmentation
from vididi_jax.config import workdir_config
from vididi_jax.crops import centre_crop
from vididi_jax.derivatives import time_derivative
from vididi_jax.errors import UserError
from vididi_jax.evaluate.features import Encoder, trained_encoder
from vididi_jax.models import create_encoder
from vididi_jax.models.torchvision import MEAN, SIZES, STD, from_state_dict, read_weights, width_of

Channels = tuple[float, float, float]


def load_encoder(
    source: str | Path, *, name: str | None = None, size: int | None = None, mean: Channels | None = None,
    std: Channels | None = None, batch_size: int = 32,
) -> Callable[..., np.ndarray]:
    """The encoder of a training run, or of a file of torchvision's weights.

    Args:
      source: a workdir, whose latest checkpoint is taken, or a .pth, .safetensors or .npz file.
      name: of a file's encoder, r3d_18 if None. A workdir knows its own, and also what follows.
      size: height and width of the clips that a file's encoder gets; None is what torchvision's own weights were
        trained on, 112 pixels, 224 for s3d.
      mean, std: of the channels of RGB in [0, 1], by which a file's encoder wants its pixels normalised; None is those
        of torchvision's own video weights, which are not ImageNet's. Weights that a run exported want the run's.
      batch_size: most clips that are encoded at a time.

    Returns:
      `encode(clips, order=0)`. `clips` is (N, T, H, W, 3), N and T of any size: uint8 RGB, which is centre-cropped,
      resized and normalised as in evaluation, or floating point, which must be normalised already. `order` is the
      temporal derivative to encode, T must be larger. It gives float32 features (N, D), and raises `UserError` for
      clips or orders of another kind.

    Raises:
      UserError: no such workdir, checkpoint or file, weights that do not fit, or options of a file with a workdir.

    Example:
      encode = load_encoder('runs/mine')
      features = np.concatenate([encode(clips), encode(clips, order=1)], axis=1)

    Reference: torchvision.models.video, R3D_18_Weights.KINETICS400_V1.transforms() and its like.
    """
    source = Path(source)
    options = {'name': name, 'size': size, 'mean': mean, 'std': std}
    given = {option: value for option, value in options.items() if value is not None}
    if source.is_dir():
        if given:
            raise UserError(f'{source} is a workdir, which knows the {" and ".join(given)} of its encoder: leave '
                            f'{"it" if len(given) == 1 else "them"} out, they are for files of weights.')
        encoder = trained_encoder(workdir_config(source), str(source))
    elif source.is_file():
        encoder = _from_file(source, **given)
    else:
        raise UserError(f'{source} is neither a workdir nor a file of weights: give one of them.')
    return _Encode(encoder, batch_size)


def _from_file(
    file: Path, name: str = 'r3d_18', size: int | None = None, mean: Channels = MEAN, std: Channels = STD,
) -> Encoder:
    state_dict = read_weights(file)
    variables = from_state_dict(name, state_dict)
    module = create_encoder(name, width=width_of(name, state_dict))
    pixels = Augmentation(size=SIZES[name] if size is None else size, mean=tuple(mean), std=tuple(std))
    return Encoder(module, variables, pixels, step=0)


class _Encode:
    """The function that `load_encoder` returns."""

    def __init__(self, encoder: Encoder, batch_size: int):
        if batch_size < 1:
            raise UserError(f'batch_size is {batch_size}: it must be at least 1.')
        self.encoder, self.batch_size = encoder, batch_size
        self.variables = jax.device_put(encoder.variables)
        self._apply = jax.jit(self._features, static_argnames='order')

    def _features(self, variables, clips: jax.Array, order: int) -> jax.Array:
        if clips.dtype == jnp.uint8:
            sizes = jnp.broadcast_to(jnp.array(clips.shape[2:4]), (clips.shape[0], 2))
            clips = centre_crop(clips, sizes, self.encoder.augment, jnp.float32)
        views = time_derivative(clips, order)
        return self.encoder.module.apply(variables, views, train=False).astype(jnp.float32)

    def __call__(self, clips: np.ndarray, order: int = 0) -> np.ndarray:
        clips = np.asarray(clips)
        known = clips.dtype == np.uint8 or jnp.issubdtype(clips.dtype, jnp.floating)
        if clips.ndim != 5 or clips.shape[-1] != 3 or not known:
            raise UserError(f'clips are {clips.dtype} of shape {clips.shape}: give uint8 or normalised float clips of '
                            'shape (N, T, H, W, 3).')
        whole = isinstance(order, int | np.integer) and not isinstance(order, bool)
        if not whole or not 0 <= order < clips.shape[1]:
            raise UserError(f'clips of {clips.shape[1]} frames have no derivative of order {order!r}: give an integer '
                            'from 0 to one less than the number of frames.')
        features = [np.zeros((0, self.encoder.module.feature_dim), np.float32)]
        for start in range(0, len(clips), self.batch_size):
            part = clips[start : start + self.batch_size]
            # A power of two: few programs for clips of any number, and at most twice the work.
            count = min(self.batch_size, 1 << (len(part) - 1).bit_length())
            fill = np.zeros((count - len(part), *clips.shape[1:]), clips.dtype)
            found = self._apply(self.variables, np.concatenate([part, fill]), order=int(order))
            features.append(np.asarray(found)[: len(part)])
        return np.concatenate(features)
