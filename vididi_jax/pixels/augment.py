"""Augmentation and normalisation of clips on the device: keyed per clip, the same for all frames of a clip.

`augment` draws the parameters of `operations` and `colours` and applies them to a batch of uint8 clips. In a clip that
does not move all frames stay equal to the last bit, so that its derivatives are zero.

Reference: Chen et al., CPAL 2025, section 4 (experimental setup); torchvision.transforms for the distributions.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vididi_jax.errors import UserError
from vididi_jax.fields import check_fields
from vididi_jax.pixels import colours, operations
from vididi_jax.pixels.colours import Colours

PER_FRAME = ('crop', 'flip', 'blur', 'jitter', 'gray')  # what can be drawn anew for each frame
CROP_ATTEMPTS = 10  # as torchvision: tries to fit a crop into the frame before taking the centre
CROP_LEVELS = 4096  # areas, and aspects, that a crop is drawn from: more than boxes of whole pixels tell apart


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
      frame_consistent: whether every operation is drawn once a clip, and contrast is around the mean of the clip. If
        not, those of `per_frame` are drawn anew for each frame, and what stands still has a derivative.
      per_frame: some of 'crop', 'flip', 'blur', 'jitter' and 'gray'; read where `frame_consistent` is False. The
        default is what the authors' code did.
      centre_fraction: side of evaluation's centre crop, as a share of the frame's shorter side.

    Raises:
      UserError: a field that does not keep to its rule in `vididi_jax.fields`.
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
    per_frame: tuple[str, ...] = ('jitter', 'gray')
    centre_fraction: float = 0.875

    def __post_init__(self):
        for name, value in vars(self).items():
            if isinstance(value, list):  # configs from files hold lists
                object.__setattr__(self, name, tuple(value))

        check_fields({'augment': vars(self)})
        if self.shift > self.size:
            raise UserError(f'augment.shift is {self.shift}: it must be from 0 to augment.size, which is {self.size}.')

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

    def varies(self, operation: str) -> bool:
        """Whether an operation is drawn anew for each frame."""
        return not self.frame_consistent and operation in self.per_frame


class Window(NamedTuple):
    """What of a frame is seen: a box in whole pixels, stretched to the output and flipped if `flip`; each
    (B,), or (B, T) where it varies from frame to frame."""

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
    aspect is in range, of a pixel at least.

    Boxes are rounded, so a last bit can decide a pixel, and what a compiler fuses it rounds otherwise. Here are only
    tables that the host computes, and products in float32: a box is the same in every program, at every precision.
    """
    numbers = _numbers(key, 2 * CROP_ATTEMPTS + 2)
    levels = (np.arange(CROP_LEVELS) + 0.5) / CROP_LEVELS
    root_area, root_aspect = np.sqrt(_between(levels, area)), np.exp(_between(levels, np.log(aspect)) / 2)

    def look_up(table: np.ndarray, numbers: jax.Array) -> jax.Array:
        return jnp.asarray(table, jnp.float32)[_below(numbers, CROP_LEVELS)]

    def whole(length: jax.Array) -> jax.Array:
        return jnp.round(length).astype(jnp.int32)

    areas, aspects = numbers[:CROP_ATTEMPTS], numbers[CROP_ATTEMPTS:-2]
    side = look_up(root_area, areas) * jnp.sqrt(jnp.asarray(height * width, jnp.float32))
    w, h = whole(side * look_up(root_aspect, aspects)), whole(side * look_up(1 / root_aspect, aspects))
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    chosen, found = jnp.argmax(fits), fits.any()
    w = jnp.where(found, w[chosen], jnp.clip(whole(height * np.float32(aspect[1])), 1, width))
    h = jnp.where(found, h[chosen], jnp.clip(whole(width * np.float32(1 / aspect[0])), 1, height))
    top = jnp.where(found, _below(numbers[-2], height - h + 1), (height - h) // 2)
    left = jnp.where(found, _below(numbers[-1], width - w + 1), (width - w) // 2)
    return top, left, h, w


def _where(condition: jax.Array, changed: Colours, rgb: Colours) -> Colours:
    return jax.tree.map(partial(jnp.where, condition), changed, rgb)


def _jitter(numbers: jax.Array, rgb: Colours, spec: Augmentation) -> Colours:
    brightness, contrast, saturation, hue, jitter = numbers[:5]

    def around(centre, number, amount):
        return _between(number, (centre - amount, centre + amount)).astype(rgb[0].dtype)

    out = colours.adjust_brightness(rgb, around(1, brightness, spec.brightness)) if spec.brightness else rgb
    if spec.contrast:
        mean = colours.mean_luminance(out, tuple(range(rgb[0].ndim - 1)))
        out = colours.adjust_contrast(out, around(1, contrast, spec.contrast), mean)
    out = colours.adjust_saturation(out, around(1, saturation, spec.saturation)) if spec.saturation else out
    out = colours.adjust_hue(out, around(0, hue, spec.hue)) if spec.hue else out
    return _where(jitter < spec.jitter, out, rgb)


def _gray(numbers: jax.Array, rgb: Colours, spec: Augmentation) -> Colours:
    gray, channel = numbers[5:7]
    grayed = colours.to_gray(rgb, _below(channel, 3) if spec.gray_mode == 'channel' else None)
    return _where(gray < spec.gray, grayed, rgb)


def _kernel(numbers: jax.Array, dtype, spec: Augmentation) -> jax.Array:
    """Of the blur, or the one that changes nothing."""
    blur, sigma = numbers[3:5]
    weights = operations.gaussian(_between(sigma, spec.blur_sigma).astype(dtype), spec.blur_kernel, dtype)
    return jnp.where(blur < spec.blur, weights, np.arange(spec.blur_kernel) == spec.blur_kernel // 2)


def _view(clip: jax.Array, window: Window, blur: jax.Array, shifts: list, spec: Augmentation) -> jax.Array:
    """What of a clip (..., H, W, 3) is in the window, flipped, shifted and blurred: (..., size, size, 3).

    Flip, wrapped shift and blur are linear maps of rows, and of columns, as the resize is. So where pixels are resized
    they are done to its small matrices: `F(R x) = (F R) x`.
    """
    kernel = _kernel(blur, clip.dtype, spec) if spec.blur else None

    def move(x, axis, shift, flip=None):
        x = x if flip is None or not spec.flip else jnp.where(flip, jnp.flip(x, axis), x)
        x = jnp.roll(x, shift, axis) if spec.shift else x
        return operations.smooth(x, kernel, axis) if spec.blur else x

    down, right = shifts
    if spec.crop == 'none':
        return move(move(clip, -3, down), -2, right, window.flip)
    rows = operations.resize_weights(window.top, window.height, clip.shape[-3], spec.size, clip.dtype)
    columns = operations.resize_weights(window.left, window.width, clip.shape[-2], spec.size, clip.dtype)
    return operations.resample(clip, move(rows, 0, down), move(columns, 0, right, window.flip))


def _augment_clip(key: jax.Array, clip: jax.Array, size: jax.Array, spec: Augmentation) -> tuple[jax.Array, Window]:
    """One clip (T, H, W, 3) in [0, 1], of which the top left `size` are pixels."""
    key, crop_key, colour_key = jax.random.split(key, 3)
    draw, draw_colour = partial(_numbers, count=9), partial(_numbers, count=7)
    numbers, of_frames = draw(key), jax.random.fold_in(key, 1)  # a key that is drawn from is not split as well
    _, down, right, _, _, gain, *tint = numbers

    def each(draw, key: jax.Array):
        """What is drawn for each frame."""
        return jax.vmap(draw)(jax.random.split(key, clip.shape[0]))

    frame_numbers = each(draw, of_frames) if spec.varies('flip') or spec.varies('blur') else None

    def box(key: jax.Array) -> tuple:
        whole = 0 * size[0], 0 * size[1], *size
        return whole if spec.crop == 'none' else random_box(key, *size, spec.area, spec.aspect)

    flips, blurs = (frame_numbers if spec.varies(name) else numbers for name in ('flip', 'blur'))
    window = Window(*(each(box, crop_key) if spec.varies('crop') else box(crop_key)), flips[..., 0] < spec.flip)
    shifts = [_below(number, 2 * spec.shift + 1) - spec.shift for number in (down, right)]
    view = partial(_view, shifts=shifts, spec=spec)
    axes = [0 if spec.varies(name) else None for name in ('crop', 'crop', 'crop', 'crop', 'flip', 'blur')]
    if any(axis == 0 for axis in axes):
        view = jax.vmap(view, (0, Window(*axes[:-1]), axes[-1]))
    clip = view(clip, window, blurs)
    if spec.crop == 'none':
        clip = jnp.where((size == spec.size).all(), clip, jnp.nan)  # rather than showing the padding

    if spec.jitter or spec.gray:
        once, rgb = draw_colour(colour_key), colours.spread(clip)
        each_colour = (each(draw_colour, jax.random.fold_in(colour_key, 1))
                       if spec.varies('jitter') or spec.varies('gray') else None)

        def apply(operation, name: str, rgb: Colours) -> Colours:
            operation = partial(operation, spec=spec)
            return jax.vmap(operation)(each_colour, rgb) if spec.varies(name) else operation(once, rgb)

        rgb = apply(_jitter, 'jitter', rgb) if spec.jitter else rgb
        rgb = apply(_gray, 'gray', rgb) if spec.gray else rgb
        clip = colours.merge(rgb)
    if spec.gain != (1, 1):
        clip = clip * _between(gain, spec.gain).astype(clip.dtype)
    if spec.tint != (1, 1):
        clip = clip * _between(jnp.stack(tint), spec.tint).astype(clip.dtype)
    return clip, window


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
    return augment_with_windows(key, clips, sizes, spec, dtype)[0]


@partial(jax.jit, static_argnames=('spec', 'dtype'))
def augment_with_windows(
    key: jax.Array, clips: jax.Array, sizes: jax.Array, spec: Augmentation, dtype=jnp.float32,
) -> tuple[jax.Array, Window]:
    """As `augment`, and the window of each clip (before it is shifted), or of each of its frames where it varies."""
    check_clips(clips, dtype)
    spec.check_frames(clips.shape[2:3], clips.shape[3:4])
    keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(clips.shape[0]))
    pixels = clips.astype(dtype) / 255
    pixels, windows = jax.vmap(partial(_augment_clip, spec=spec))(keys, pixels, sizes)
    return operations.normalise(pixels, spec.mean, spec.std), windows


def check_clips(clips: jax.Array, dtype) -> None:
    """Raises `ValueError` unless clips are uint8 (B, T, H, W, 3) and `dtype` is one to compute in."""
    if clips.dtype != jnp.uint8 or clips.ndim != 5:
        raise ValueError(f'clips must be uint8 (B, T, H, W, 3), not {clips.dtype} {clips.shape}.')
    if dtype not in (jnp.float32, jnp.float64):
        raise ValueError(f'dtype must be float32 or float64, not {dtype}.')
