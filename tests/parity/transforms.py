"""The pixel operations of augmentation against torchvision's, on fixed parameters."""

import jax.numpy as jnp
import numpy as np
import torch
from torchvision.models import get_model_weights
from torchvision.transforms import functional as theirs

from vididi_jax.models import torchvision as weights
from vididi_jax.pixels import colours
from vididi_jax.pixels import operations as pixels

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BOXES = ((0, 0, 40, 53), (5, 7, 30, 21), (3, 2, 12, 9))  # top, left, height, width
SIZE = 16


def flipped_crop(x, top, left, height, width):
    """As augmentation flips: the matrix of the columns."""
    rows = pixels.resize_weights(top, height, x.shape[-3], SIZE, x.dtype)
    columns = pixels.resize_weights(left, width, x.shape[-2], SIZE, x.dtype)
    return pixels.resample(x, rows, columns[::-1])


def blur(x, sigma):
    kernel = pixels.gaussian(sigma, 3, x.dtype)
    return pixels.smooth(pixels.smooth(x, kernel, -3), kernel, -2)


def coloured(x, name, *arguments):
    """A function of `colours` on frames."""
    return colours.merge(getattr(colours, name)(colours.spread(x), *arguments))


def contrast(x, factor):
    return coloured(x, 'adjust_contrast', factor, colours.mean_luminance(colours.spread(x), (-3, -2)))


# name -> (torchvision's function, ours), each of frames in [0, 1]
OPERATIONS = {
    **{f'resized crop {box}': (
        lambda x, b=box: theirs.resized_crop(x, *b, [SIZE, SIZE], antialias=True),
        lambda x, b=box: pixels.resized_crop(x, *b, SIZE)) for box in BOXES},
    'flipped crop': (
        lambda x: theirs.hflip(theirs.resized_crop(x, *BOXES[1], [SIZE, SIZE], antialias=True)),
        lambda x: flipped_crop(x, *BOXES[1])),
    **{f'blur, sigma {sigma}': (
        lambda x, s=sigma: theirs.gaussian_blur(x, [3, 3], [s, s]),
        lambda x, s=sigma: blur(x, s)) for sigma in (0.1, 0.7, 2.0)},
    **{f'{name} {factor}': (
        lambda x, n=name, f=factor: getattr(theirs, f'adjust_{n}')(x, f),
        lambda x, n=name, f=factor: contrast(x, f) if n == 'contrast' else coloured(x, f'adjust_{n}', f))
        for name in ('brightness', 'contrast', 'saturation') for factor in (0.8, 1.0, 1.2)},
    **{f'hue {shift}': (
        lambda x, s=shift: theirs.adjust_hue(x, s),
        lambda x, s=shift: coloured(x, 'adjust_hue', s)) for shift in (-0.05, 0.03, 0.4)},
    'luminance gray': (lambda x: theirs.rgb_to_grayscale(x, 3), lambda x: coloured(x, 'to_gray')),
    'normalisation': (lambda x: theirs.normalize(x, MEAN, STD), lambda x: pixels.normalise(x, MEAN, STD)),
}


def differences() -> dict[str, float]:
    """Largest absolute difference of each operation, float64, on one random frame of 40 x 53."""
    frame = np.random.RandomState(0).uniform(size=(40, 53, 3))
    channels_first = torch.from_numpy(frame).permute(2, 0, 1)
    found = {}
    for name, (expected, ours) in OPERATIONS.items():
        wanted = expected(channels_first).permute(1, 2, 0).numpy()
        found[name] = float(np.abs(np.asarray(ours(jnp.asarray(frame)[None])[0]) - wanted).max())
    return found


def presets() -> dict[str, float]:
    """Largest absolute difference of the pixels that the weights of each encoder want: mean, std, side of the crop."""
    found = {}
    for name, size in weights.SIZES.items():
        preset = get_model_weights(name).KINETICS400_V1.transforms()
        pairs = ((preset.mean, weights.MEAN), (preset.std, weights.STD), (preset.crop_size, (size, size)))
        found[name] = max(float(np.abs(np.subtract(*pair)).max()) for pair in pairs)
    return found
