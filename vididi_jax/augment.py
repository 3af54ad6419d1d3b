"""Augmentation and normalisation of clips on the device: keyed per clip, the same for all frames of a clip.

The operations are pure functions on float clips (..., H, W, 3) in [0, 1] and agree with torchvision's of the same
parameters; `augment` draws the parameters and applies them to a batch of uint8 clips.

Reference: Chen et al., CPAL 2025, section 4 (experimental setup); torchvision.transforms for the operations.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from vididi_jax.errors import UserError

LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in torchvision and Pillow
CROP_ATTEMPTS = 10  # as torchvision: tries to fit a crop into the frame before taking the centre


@dataclass(frozen=True)
class Augmentation:
    """What happens to a training clip, in the order of the fields; probabilities are per clip.

    Attributes:
      size: height and width of the output, pixels.
      crop: 'random_resized' (area and aspect below, resized to `size`), or 'none' for frames that have that size.
      area: range of the crop's share of the frame.
      aspect: range of the crop's width / height, drawn log-uniformly.
      flip: probability of a horizontal flip.
      shift: largest wrapped shift in pixels, each way, of both axes; 0 for none.
      blur: probability of a Gaussian blur of `blur_kernel` pixels, sigma uniform in `blur_sigma`.
      jitter: probability of colour jitter; factors are uniform in 1 +- `brightness`, `contrast`, `saturation`, the hue
        shift in +- `hue` (of a full turn), applied in this order.
      gain: range of a factor on all channels; tint: range of one factor per channel. (1, 1) for none.
      gray: probability of gray; `gray_mode` 'channel' copies one random channel to all, 'luminance' takes the weighted sum.
      mean, std: of the final normalisation, per channel, on [0, 1].
      frame_consistent: whether jitter and gray are drawn once a clip (True) or for each frame. Per frame, what stands
        still no longer has a derivative of zero.
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
    gain: tuple[float, float] = (1.0, 1.0)
    tint: tuple[float, float] = (1.0, 1.0)
    gray: float = 0.2
    gray_mode: str = 'channel'
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    frame_consistent: bool = True
    centre_fraction: float = 0.875

    def __post_init__(self):
        for name, allowed in (('crop', ('random_resized', 'none')), ('gray_mode', ('channel', 'luminance'))):
            if getattr(self, name) not in allowed:
                raise UserError(f'augment.{name} is {getattr(self, name)!r}: choose {" or ".join(allowed)}.')
        for name in ('flip', 'blur', 'jitter', 'gray'):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f'augment.{name} is {getattr(self, name)}: a probability lies between 0 and 1.')
            object.__setattr__(self, name, float(getattr(self, name)))
        for name in ('area', 'aspect', 'blur_sigma', 'gain', 'tint', 'mean', 'std'):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # configs from files hold lists


def resize_weights(start, extent, inputs: int, outputs: int, dtype) -> jax.Array:
    """Antialiased bilinear resampling of `[start, start + extent)` to `outputs` samples, as a matrix.

    Row o is a triangle around `start + (o + 1/2) s`, s = extent / outputs, of half-width max(s, 1), cut to the source
    interval and normalised: pixels outside of it never count. As torchvision's `resize(antialias=True)` after a crop.

    Args:
      start, extent: scalars, pixels; may be traced.
      inputs, outputs: number of pixels.

    Returns:
      (outputs, inputs).
    """
    start, extent = jnp.asarray(start, dtype), jnp.asarray(extent, dtype)
    scale = extent / outputs
    centres = start + (jnp.arange(outputs, dtype=dtype) + 0.5) * scale
    pixels = jnp.arange(inputs, dtype=dtype) + 0.5
    weights = jnp.maximum(1 - jnp.abs(pixels - centres[:, None]) / jnp.maximum(scale, 1), 0)
    weights = jnp.where((pixels > start) & (pixels < start + extent), weights, 0)
    return weights / weights.sum(1, keepdims=True)


def resized_crop(clip: jax.Array, top, left, height, width, size: int, flip=False) -> jax.Array:
    """Crop (..., H, W, C) to a box, resize it to `size` x `size` (antialiased bilinear), and flip it if asked.

    Args:
      clip: floating point.
      top, left, height, width: integers, the box in pixels; may be traced.
      size: output height and width.
      flip: bool, may be traced.

    Returns:
      (..., size, size, C).
    """
    dtype = clip.dtype
    rows = resize_weights(top, height, clip.shape[-3], size, dtype)
    columns = resize_weights(left, width, clip.shape[-2], size, dtype)
    columns = jnp.where(flip, columns[::-1], columns)
    clip = jnp.einsum('...hwc,ih->...iwc', clip, rows, precision=lax.Precision.HIGHEST)
    return jnp.einsum('...iwc,jw->...ijc', clip, columns, precision=lax.Precision.HIGHEST)


def adjust_brightness(clip: jax.Array, factor) -> jax.Array:
    """`clamp(factor * x, 0, 1)`."""
    return jnp.clip(factor * clip, 0, 1)


def luminance(clip: jax.Array) -> jax.Array:
    """`0.299 R + 0.587 G + 0.114 B`: (..., H, W, 3) -> (..., H, W, 1)."""
    return sum(weight * clip[..., i : i + 1] for i, weight in enumerate(LUMINANCE))


def adjust_contrast(clip: jax.Array, factor) -> jax.Array:
    """`clamp(factor * x + (1 - factor) * mean luminance of the frame, 0, 1)`."""
    mean = luminance(clip).mean((-3, -2, -1), keepdims=True)
    return jnp.clip(factor * clip + (1 - factor) * mean, 0, 1)


def adjust_saturation(clip: jax.Array, factor) -> jax.Array:
    """`clamp(factor * x + (1 - factor) * luminance, 0, 1)`."""
    return jnp.clip(factor * clip + (1 - factor) * luminance(clip), 0, 1)


def adjust_hue(clip: jax.Array, shift) -> jax.Array:
    """Turn the hue by `shift` (1 is a full turn), at the same HSV saturation and value."""
    r, g, b = clip[..., 0], clip[..., 1], clip[..., 2]
    value, least = jnp.max(clip, -1), jnp.min(clip, -1)
    chroma = value - least
    safe = jnp.where(chroma == 0, 1, chroma)
    hue = jnp.where(value == r, (g - b) / safe, jnp.where(value == g, 2 + (b - r) / safe, 4 + (r - g) / safe))
    hue = 6 * jnp.mod(hue / 6 + shift, 1)

    def channel(n):  # HSV -> RGB: each channel falls from `value` by chroma times a trapezoid of the hue
        k = jnp.mod(n + hue, 6)
        return value - chroma * jnp.clip(jnp.minimum(k, 4 - k), 0, 1)

    return jnp.where(chroma[..., None] == 0, clip, jnp.stack([channel(5), channel(3), channel(1)], -1))


def gaussian_blur(clip: jax.Array, sigma, kernel: int = 3) -> jax.Array:
    """Separable Gaussian blur with reflected borders: weights `exp(-x^2 / (2 sigma^2))`, normalised."""
    half = kernel // 2
    offsets = jnp.arange(-half, half + 1, dtype=clip.dtype)
    weights = jnp.exp(-0.5 * (offsets / sigma) ** 2)
    weights /= weights.sum()
    for axis in (-3, -2):
        padding = [(0, 0)] * clip.ndim
        padding[axis] = (half, half)
        padded = jnp.pad(clip, padding, mode='reflect')
        clip = sum(weights[i] * lax.slice_in_dim(padded, i, i + clip.shape[axis], axis=axis) for i in range(kernel))
    return clip


def to_gray(clip: jax.Array, channel=None) -> jax.Array:
    """All three channels become channel number `channel` (may be traced), or the luminance if None."""
    one = luminance(clip) if channel is None else jnp.take(clip, jnp.asarray(channel)[None], axis=-1)
    return jnp.broadcast_to(one, clip.shape)


def normalise(clip: jax.Array, mean, std) -> jax.Array:
    """`(x - mean) / std` per channel."""
    return (clip - jnp.asarray(mean, clip.dtype)) / jnp.asarray(std, clip.dtype)


def random_box(key: jax.Array, height, width, area: tuple, aspect: tuple) -> tuple:
    """A random crop of torchvision's `RandomResizedCrop`: (top, left, height, width) in whole pixels.

    Area and log aspect are uniform; the first of ten draws that fits is taken, else the largest centred box whose
    aspect is in range.
    """
    keys = jax.random.split(key, 4)
    dtype = jnp.float32
    target = jax.random.uniform(keys[0], (CROP_ATTEMPTS,), dtype, *area) * (height * width)
    ratio = jnp.exp(jax.random.uniform(keys[1], (CROP_ATTEMPTS,), dtype, *map(jnp.log, aspect)))
    w = jnp.round(jnp.sqrt(target * ratio)).astype(jnp.int32)
    h = jnp.round(jnp.sqrt(target / ratio)).astype(jnp.int32)
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    fallback_w = jnp.minimum(width, jnp.round(height * aspect[1]).astype(jnp.int32))
    fallback_h = jnp.minimum(height, jnp.round(width / aspect[0]).astype(jnp.int32))
    chosen = jnp.argmax(fits)
    w, h = jnp.where(fits.any(), w[chosen], fallback_w), jnp.where(fits.any(), h[chosen], fallback_h)
    top = jax.random.randint(keys[2], (), 0, height - h + 1)
    left = jax.random.randint(keys[3], (), 0, width - w + 1)
    return (jnp.where(fits.any(), top, (height - h) // 2), jnp.where(fits.any(), left, (width - w) // 2), h, w)


def _colour(key: jax.Array, frames: jax.Array, spec: Augmentation) -> jax.Array:
    """Jitter and gray of one clip, or of one frame."""
    keys = jax.random.split(key, 7)

    def factor(k, amount):
        return jax.random.uniform(k, (), frames.dtype, 1 - amount, 1 + amount)

    if spec.jitter:
        out = adjust_brightness(frames, factor(keys[0], spec.brightness)) if spec.brightness else frames
        out = adjust_contrast(out, factor(keys[1], spec.contrast)) if spec.contrast else out
        out = adjust_saturation(out, factor(keys[2], spec.saturation)) if spec.saturation else out
        out = adjust_hue(out, factor(keys[3], spec.hue) - 1) if spec.hue else out
        frames = jnp.where(jax.random.bernoulli(keys[4], spec.jitter), out, frames)
    if spec.gray:
        channel = jax.random.randint(keys[5], (), 0, 3) if spec.gray_mode == 'channel' else None
        frames = jnp.where(jax.random.bernoulli(keys[6], spec.gray), to_gray(frames, channel), frames)
    return frames


def _augment_clip(key: jax.Array, clip: jax.Array, size: jax.Array, spec: Augmentation) -> jax.Array:
    """One clip (T, H, W, 3) in [0, 1], of which the top left `size` are pixels."""
    crop_key, flip_key, shift_key, blur_key, sigma_key, colour_key, gain_key, tint_key = jax.random.split(key, 8)
    flip = jax.random.bernoulli(flip_key, spec.flip)
    if spec.crop == 'random_resized':
        clip = resized_crop(clip, *random_box(crop_key, size[0], size[1], spec.area, spec.aspect), spec.size, flip)
    elif spec.flip:
        clip = jnp.where(flip, clip[:, :, ::-1], clip)
    if spec.shift:
        clip = jnp.roll(clip, jax.random.randint(shift_key, (2,), -spec.shift, spec.shift + 1), axis=(1, 2))
    if spec.blur:
        sigma = jax.random.uniform(sigma_key, (), clip.dtype, *spec.blur_sigma)
        blurred = gaussian_blur(clip, sigma, spec.blur_kernel)
        clip = jnp.where(jax.random.bernoulli(blur_key, spec.blur), blurred, clip)
    if spec.jitter or spec.gray:
        if spec.frame_consistent:
            clip = _colour(colour_key, clip, spec)
        else:
            clip = jax.vmap(partial(_colour, spec=spec))(jax.random.split(colour_key, clip.shape[0]), clip)
    if spec.gain != (1, 1):
        clip = clip * jax.random.uniform(gain_key, (), clip.dtype, *spec.gain)
    if spec.tint != (1, 1):
        clip = clip * jax.random.uniform(tint_key, (3,), clip.dtype, *spec.tint)
    return clip


@partial(jax.jit, static_argnames=('spec', 'dtype'))
def augment(key: jax.Array, clips: jax.Array, sizes: jax.Array, spec: Augmentation, dtype=jnp.float32) -> jax.Array:
    """Augment and normalise a batch of clips. Clip i depends on `fold_in(key, i)` and on its own pixels only.

    Args:
      key: of this batch and view.
      clips: uint8 (B, T, H, W, 3).
      sizes: int32 (B, 2), true height and width: frames stand in the top left corner of the canvas, what is beyond them
        is never used.
      spec: the augmentation; static under jit.
      dtype: of the computation and the result, float32 or float64.

    Returns:
      (B, T, size, size, 3), normalised.

    Raises:
      ValueError: clips that are not uint8, or not of `spec.size` where `spec.crop` is 'none'.
    """
    _check(clips, spec, cropped=spec.crop != 'none')
    keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(clips.shape[0]))
    pixels = clips.astype(dtype) / 255
    pixels = jax.vmap(partial(_augment_clip, spec=spec))(keys, pixels, sizes)
    return normalise(pixels, spec.mean, spec.std)


@partial(jax.jit, static_argnames=('spec', 'dtype'))
def centre_crop(clips: jax.Array, sizes: jax.Array, spec: Augmentation, dtype=jnp.float32) -> jax.Array:
    """Evaluation's view: the centred square of `spec.centre_fraction` of the shorter side, resized and normalised.

    Args and result as `augment`, without randomness. With frames of short side 128, a fraction of 0.875 and a size of
    112 the pixels are those of the frame, not resampled.
    """
    _check(clips, spec, cropped=True)

    def one(clip, size):
        side = jnp.round(spec.centre_fraction * size.min()).astype(jnp.int32)
        return resized_crop(clip, (size[0] - side) // 2, (size[1] - side) // 2, side, side, spec.size)

    pixels = jax.vmap(one)(clips.astype(dtype) / 255, sizes)
    return normalise(pixels, spec.mean, spec.std)


def _check(clips: jax.Array, spec: Augmentation, cropped: bool) -> None:
    if clips.dtype != jnp.uint8 or clips.ndim != 5:
        raise ValueError(f'clips must be uint8 (B, T, H, W, 3), not {clips.dtype} {clips.shape}.')
    if not cropped and clips.shape[2:4] != (spec.size, spec.size):
        raise UserError(f"frames are {clips.shape[2]} x {clips.shape[3]} and augment.crop is 'none' with size {spec.size}: "
                        'set augment.size to that of the frames, or augment.crop to random_resized.')
