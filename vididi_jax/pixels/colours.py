"""Colours: pure functions of (red, green, blue), three floating point arrays in [0, 1].

What a channel becomes depends on all three. `spread` makes three arrays of a clip, each of its shape (..., H, W, 3)
with one colour in all channels, and `merge` takes every channel from its own. In between everything is elementwise in
the shape of the result: compilers make that one pass over memory, which computes a pixel's colours three times and
stores none of the three arrays. Slices of channels, reductions over them and stacks cut it into many passes.

Reference: torchvision.transforms.functional, with which they agree to rounding.
"""

import jax
import jax.numpy as jnp

LUMINANCE = (0.2989, 0.587, 0.114)  # as in torchvision's tensor operations; ITU-R BT.601 and Pillow have 0.299

Colours = tuple[jax.Array, jax.Array, jax.Array]


def spread(clip: jax.Array) -> Colours:
    """A clip (..., H, W, 3) -> red, green and blue, each (..., H, W, 3), the same in all channels."""
    return tuple(jnp.broadcast_to(clip[..., i : i + 1], clip.shape) for i in range(3))


def merge(colours: Colours) -> jax.Array:
    """The first channel of red, the second of green and the third of blue: (..., H, W, 3)."""
    red, green, blue = colours
    channel = jnp.arange(3)
    return jnp.where(channel == 0, red, jnp.where(channel == 1, green, blue))


def adjust_brightness(colours: Colours, factor) -> Colours:
    """`clamp(factor * x, 0, 1)`."""
    return tuple(jnp.clip(factor * x, 0, 1) for x in colours)


def luminance(colours: Colours) -> jax.Array:
    """`0.2989 R + 0.587 G + 0.114 B`."""
    return sum(weight * x for weight, x in zip(LUMINANCE, colours, strict=True))


def mean_luminance(colours: Colours, axes: tuple[int, ...]) -> jax.Array:
    """Mean over axes of frames and pixels, which stay, of length 1: (..., 1)."""
    return (merge(colours).mean(axes, keepdims=True) * jnp.asarray(LUMINANCE, colours[0].dtype)).sum(-1, keepdims=True)


def adjust_contrast(colours: Colours, factor, mean) -> Colours:
    """`clamp(factor * x + (1 - factor) * mean, 0, 1)`."""
    return tuple(jnp.clip(factor * x + (1 - factor) * mean, 0, 1) for x in colours)


def adjust_saturation(colours: Colours, factor) -> Colours:
    """`clamp(factor * x + (1 - factor) * luminance, 0, 1)`."""
    return adjust_contrast(colours, factor, luminance(colours))


def adjust_hue(colours: Colours, shift) -> Colours:
    """Turn the hue by `shift` (1 is a full turn), at the same HSV saturation and value."""
    r, g, b = colours
    value, least = jnp.maximum(jnp.maximum(r, g), b), jnp.minimum(jnp.minimum(r, g), b)
    chroma = value - least
    # Not `value == r`: a compiler that fuses may compute both twice and round them differently.
    red, green = (r >= g) & (r >= b), g >= b
    sector = jnp.where(red, 0, jnp.where(green, 2, 4))
    across = jnp.where(red, g - b, jnp.where(green, b - r, r - g))
    hue = sector + across / jnp.where(chroma == 0, 1, chroma) + 6 * shift

    def channel(n, x):  # HSV -> RGB: each channel falls from `value` by chroma times a trapezoid of the hue
        k = n + hue
        k -= 6 * jnp.floor(k / 6)
        return jnp.where(chroma == 0, x, value - chroma * jnp.clip(jnp.minimum(k, 4 - k), 0, 1))

    return channel(5, r), channel(3, g), channel(1, b)


def to_gray(colours: Colours, channel=None) -> Colours:
    """All become colour number `channel` (may be traced), or the luminance if None."""
    r, g, b = colours
    one = luminance(colours) if channel is None else jnp.where(channel == 0, r, jnp.where(channel == 1, g, b))
    return one, one, one
