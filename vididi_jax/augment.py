"""Augmentation and normalisation of clips on the device: keyed per clip, the same for all frames of a clip.

`augment` draws the parameters of the operations of `vididi_jax.pixels` and applies them to a batch of uint8 clips. In a
clip that does not move all frames stay equal to the last bit, so that its derivatives are zero.

Reference: Chen et al., CPAL 2025, section 4 (experimental setup); torchvision.transforms for the distributions.
"""

from dataclasses import dataclass
from functools import partial
from math import log
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vididi_jax.errors import UserError
from vididi_jax.pixels import (
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    gaussian_blur,
    luminance,
    normalise,
    resized_crop,
    to_gray,
)

CROPS = {'centre': 1, 'three': 3, 'random': 1}  # views of a clip in evaluation
CROP_ATTEMPTS = 10  # as torchvision: tries to fit a crop into the frame before taking the centre


@dataclass(frozen=True)
class Augmentation:
    """What happens to a training clip, in the order of the fields; probabilities are per clip.

    Attributes:
      size: height and width of the output, pixels.
      crop: 'random_resized' (area and aspect below, resized to `size`), or 'none' for frames that all have that size.
      area: range of the crop's share of the frame.
      aspect: range of the crop's width / height, drawn log-uniformly.
      flip: probability of a horizontal flip.
      shift: largest wrapped shift in pixels, each way, of both axes; 0 for none.
      blur: probability of a Gaussian blur of `blur_kernel` pixels, sigma uniform in `blur_sigma`.
      jitter: probability of colour jitter; factors are uniform in 1 +- `brightness`, `contrast`, `saturation`, the hue
        shift in +- `hue` (of a full turn), applied in this order (torchvision's is random).
      gray: probability of gray; `gray_mode` 'channel' copies one random channel to all, 'luminance' takes the weighted
        sum.
      gain: range of a factor on all channels; tint: range of one factor per channel. (1, 1) for none. Not clamped.
      mean, std: of the final normalisation, per channel, on [0, 1].
      frame_consistent: whether jitter and gray are drawn once a clip, and contrast is around the mean of the clip
        (True), or all that for each frame, as in the authors' code (False). Per frame, what stands still no longer has
        a derivative of zero.
      centre_fraction: side of evaluation's centre crop, as a share of the frame's shorter side.
    """

    size: int = 112
    crop: str = 'random_resized'
    area: tuple[float, float] = (0.08, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    shift: int = 0
    blur: float = 0.5
    blur_kernel: int = 3
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    jitter: float = 0.8
    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    hue: float = 0.05
    gray: float = 0.2
    gray_mode: str = 'channel'
    gain: tuple[float, float] = (1.0, 1.0)
    tint: tuple[float, float] = (1.0, 1.0)
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    frame_consistent: bool = True
    centre_fraction: float = 0.875

    def __post_init__(self):
        for name, value in vars(self).items():
            if isinstance(value, list):  # configs from files hold lists
                object.__setattr__(self, name, tuple(value))

        def need(name: str, holds: bool, what: str) -> None:
            if not holds:
                raise UserError(f'augment.{name} is {getattr(self, name)!r}: it must be {what}.')

        need('crop', self.crop in ('random_resized', 'none'), 'random_resized or none')
        need('gray_mode', self.gray_mode in ('channel', 'luminance'), 'channel or luminance')
        need('size', self.size >= 1, 'at least 1')
        need('shift', 0 <= self.shift <= self.size, f'from 0 to size, which is {self.size}')
        need('blur_kernel', self.blur_kernel > 0 and self.blur_kernel % 2 == 1, 'odd')
        need('hue', 0 <= self.hue <= 0.5, 'from 0 to 0.5')
        need('centre_fraction', 0 < self.centre_fraction <= 1, 'above 0 and at most 1')
        for name in ('flip', 'blur', 'jitter', 'gray', 'brightness', 'contrast', 'saturation'):
            need(name, 0 <= getattr(self, name) <= 1, 'from 0 to 1')
        for name in ('area', 'aspect', 'blur_sigma', 'gain', 'tint'):
            limits = getattr(self, name)
            need(name, len(limits) == 2 and 0 < limits[0] <= limits[1], 'a pair (low, high) above 0')
        need('area', self.area[1] <= 1, 'a share of the frame, at most 1')
        for name in ('mean', 'std'):
            need(name, len(getattr(self, name)) == 3, 'three numbers, one a channel')
        need('std', min(self.std) > 0, 'above 0')

    def check_frames(self, heights, widths) -> None:
        """Raises `UserError` if some video's frames do not have the size that `crop='none'` needs.

        Args:
          heights, widths: of each video's frames, sequences of integers.
        """
        wrong = sorted({(h, w) for h, w in zip(heights, widths, strict=True) if (h, w) != (self.size, self.size)})
        if self.crop == 'none' and wrong:
            height, width = wrong[0]
            raise UserError(f"frames are {height} x {width} and augment.crop is 'none' with size {self.size}: set "
                            'augment.size to that of all frames, or augment.crop to random_resized.')


class Crop(NamedTuple):
    """What of a frame is seen: a box in whole pixels, stretched to the output and flipped if `flip`; each (B,)."""

    top: jax.Array
    left: jax.Array
    height: jax.Array
    width: jax.Array
    flip: jax.Array


def _numbers(key: jax.Array, count: int) -> jax.Array:
    """Uniform in [0, 1), float32 whatever the clips' dtype, because it decides which bits are used.

    All that an operation needs is drawn at once: each draw costs compile time.
    """
    return jax.random.uniform(key, (count,), jnp.float32)


def _between(number: jax.Array, limits: tuple) -> jax.Array:
    return limits[0] + number * (limits[1] - limits[0])


def _below(number: jax.Array, count) -> jax.Array:
    """A whole number from 0 to `count` - 1."""
    return jnp.floor(number * count).astype(jnp.int32)


def random_box(key: jax.Array, height, width, area: tuple, aspect: tuple) -> tuple:
    """A random crop of torchvision's `RandomResizedCrop`: (top, left, height, width) in whole pixels.

    Area and log aspect are uniform; the first of ten draws that fits is taken, else the largest centred box whose
    aspect is in range.
    """
    numbers = _numbers(key, 2 * CROP_ATTEMPTS + 2)
    target = _between(numbers[:CROP_ATTEMPTS], area) * (height * width)
    ratio = jnp.exp(_between(numbers[CROP_ATTEMPTS:-2], (log(aspect[0]), log(aspect[1]))))
    w = jnp.round(jnp.sqrt(target * ratio)).astype(jnp.int32)
    h = jnp.round(jnp.sqrt(target / ratio)).astype(jnp.int32)
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    chosen, found = jnp.argmax(fits), fits.any()
    w = jnp.where(found, w[chosen], jnp.minimum(width, jnp.round(height * aspect[1]).astype(jnp.int32)))
    h = jnp.where(found, h[chosen], jnp.minimum(height, jnp.round(width / aspect[0]).astype(jnp.int32)))
    top = jnp.where(found, _below(numbers[-2], height - h + 1), (height - h) // 2)
    left = jnp.where(found, _below(numbers[-1], width - w + 1), (width - w) // 2)
    return top, left, h, w


def _colour(key: jax.Array, frames: jax.Array, spec: Augmentation) -> jax.Array:
    """Jitter and gray of one clip (T, H, W, 3), or of one frame (H, W, 3)."""
    brightness, contrast, saturation, hue, jitter, gray, channel = _numbers(key, 7)

    def around(centre, number, amount):
        return _between(number, (centre - amount, centre + amount)).astype(frames.dtype)

    if spec.jitter:
        out = adjust_brightness(frames, around(1, brightness, spec.brightness)) if spec.brightness else frames
        out = adjust_contrast(out, around(1, contrast, spec.contrast), luminance(out).mean()) if spec.contrast else out
        out = adjust_saturation(out, around(1, saturation, spec.saturation)) if spec.saturation else out
        out = adjust_hue(out, around(0, hue, spec.hue)) if spec.hue else out
        frames = jnp.where(jitter < spec.jitter, out, frames)
    if spec.gray:
        grayed = to_gray(frames, _below(channel, 3) if spec.gray_mode == 'channel' else None)
        frames = jnp.where(gray < spec.gray, grayed, frames)
    return frames


def _augment_clip(key: jax.Array, clip: jax.Array, size: jax.Array, spec: Augmentation) -> tuple[jax.Array, Crop]:
    """One clip (T, H, W, 3) in [0, 1], of which the top left `size` are pixels."""
    key, crop_key, colour_key = jax.random.split(key, 3)
    flip, down, right, blur, sigma, gain, *tint = _numbers(key, 9)
    flip = flip < spec.flip
    if spec.crop == 'random_resized':
        crop = Crop(*random_box(crop_key, size[0], size[1], spec.area, spec.aspect), flip)
        clip = resized_crop(clip, *crop[:4], spec.size, flip)
    else:
        crop = Crop(0 * size[0], 0 * size[1], *size, flip)
        clip = jnp.where(flip, clip[:, :, ::-1], clip) if spec.flip else clip
        clip = jnp.where((size == spec.size).all(), clip, jnp.nan)  # rather than showing the padding
    if spec.shift:
        shifts = [_below(number, 2 * spec.shift + 1) - spec.shift for number in (down, right)]
        clip = jnp.roll(clip, shifts, axis=(1, 2))
    if spec.blur:
        blurred = gaussian_blur(clip, _between(sigma, spec.blur_sigma).astype(clip.dtype), spec.blur_kernel)
        clip = jnp.where(blur < spec.blur, blurred, clip)
    if (spec.jitter or spec.gray) and spec.frame_consistent:
        clip = _colour(colour_key, clip, spec)
    elif spec.jitter or spec.gray:
        clip = jax.vmap(partial(_colour, spec=spec))(jax.random.split(colour_key, clip.shape[0]), clip)
    if spec.gain != (1, 1):
        clip = clip * _between(gain, spec.gain).astype(clip.dtype)
    if spec.tint != (1, 1):
        clip = clip * _between(jnp.stack(tint), spec.tint).astype(clip.dtype)
    return clip, crop


@partial(jax.jit, static_argnames=('spec', 'dtype'))
def augment(key: jax.Array, clips: jax.Array, sizes: jax.Array, spec: Augmentation, dtype=jnp.float32) -> jax.Array:
    """Augment and normalise a batch of clips. Clip i depends on `fold_in(key, i)` and on its own pixels only.

    Args:
      key: of this batch and view.
      clips: uint8 (B, T, H, W, 3).
      sizes: int32 (B, 2), true height and width: frames stand in the top left corner of the canvas, what is beyond them
        is never used. With `spec.crop` 'none' they must be `spec.size`: a clip of another size becomes NaN.
      spec: the augmentation; static under jit.
      dtype: of the computation and the result, float32 or float64.

    Returns:
      (B, T, size, size, 3), normalised.

    Raises:
      ValueError: clips that are not uint8, a low-precision `dtype`.
      UserError: a canvas that is not of `spec.size` where `spec.crop` is 'none'.
    """
    return augment_and_crop(key, clips, sizes, spec, dtype)[0]


@partial(jax.jit, static_argnames=('spec', 'dtype'))
def augment_and_crop(
    key: jax.Array, clips: jax.Array, sizes: jax.Array, spec: Augmentation, dtype=jnp.float32,
) -> tuple[jax.Array, Crop]:
    """As `augment`, and the crop of each clip (before it is shifted)."""
    check_clips(clips, dtype)
    spec.check_frames(clips.shape[2:3], clips.shape[3:4])
    keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(clips.shape[0]))
    pixels = clips.astype(dtype) / 255
    pixels, crops = jax.vmap(partial(_augment_clip, spec=spec))(keys, pixels, sizes)
    return normalise(pixels, spec.mean, spec.std), crops


@partial(jax.jit, static_argnames=('spec', 'dtype'))
def centre_crop(clips: jax.Array, sizes: jax.Array, spec: Augmentation, dtype=jnp.float32) -> jax.Array:
    """Evaluation's view: the centred square of `spec.centre_fraction` of the shorter side, resized and normalised.

    Args and result as `augment`, without randomness. With frames of short side 128, a fraction of 0.875 and a size of
    112 the pixels are those of the frame, not resampled.
    """
    return evaluation_crops(None, clips, sizes, spec, 'centre', dtype)[:, 0]


@partial(jax.jit, static_argnames=('spec', 'crops', 'dtype'))
def evaluation_crops(
    keys: jax.Array | None, clips: jax.Array, sizes: jax.Array, spec: Augmentation, crops: str, dtype=jnp.float32,
) -> jax.Array:
    """The squares that `crops` names, of `spec.centre_fraction` of the shorter side, resized and normalised.

    'centre': the centred one. 'three': at the start, the middle and the end of the longer side. 'random': one at a
    uniformly drawn place, the same for all frames of a clip.

    Args:
      keys: (B,), of each clip, for 'random' only.
      crops: one of `CROPS`, static under jit.
      clips, sizes, spec, dtype: as in `augment`.

    Returns:
      (B, CROPS[crops], T, size, size, 3), normalised.
    """
    check_clips(clips, dtype)

    def one(clip, size, key):
        side = jnp.round(spec.centre_fraction * size.min()).astype(jnp.int32)
        room, middle = size - side, (size - side) // 2
        if crops == 'random':
            corners = [jnp.floor(jax.random.uniform(key, (2,), jnp.float32) * (room + 1)).astype(jnp.int32)]
        else:
            longer = jnp.arange(2) == jnp.where(size[0] > size[1], 0, 1)
            places = (middle,) if crops == 'centre' else (0 * room, middle, room)
            corners = [jnp.where(longer, place, middle) for place in places]
        return jnp.stack([resized_crop(clip, *corner, side, side, spec.size) for corner in corners])

    if keys is None:
        keys = jnp.zeros(len(clips))  # not read
    return normalise(jax.vmap(one)(clips.astype(dtype) / 255, sizes, keys), spec.mean, spec.std)


def check_clips(clips: jax.Array, dtype) -> None:
    """Raises `ValueError` unless clips are uint8 (B, T, H, W, 3) and `dtype` is one to compute in."""
    if clips.dtype != jnp.uint8 or clips.ndim != 5:
        raise ValueError(f'clips must be uint8 (B, T, H, W, 3), not {clips.dtype} {clips.shape}.')
    if dtype not in (jnp.float32, jnp.float64):
        raise ValueError(f'dtype must be float32 or float64, not {dtype}.')
