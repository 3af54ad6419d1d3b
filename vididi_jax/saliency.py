"""Where an encoder looks: the saliency of every pixel of a clip, and how much of it lies where something moves."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

MOVES = 0.1  # change between neighbouring frames above which a pixel counts as moving; the range of a pixel is 1


def saliency(encode: Callable[[jax.Array], jax.Array], clips: jax.Array) -> jax.Array:
    """`|sum_c x_c ds/dx_c|` of every pixel x, where s = <f(x), f(x) - m>, m the mean of the features f of the clips.

    s grows with what tells a clip from the others: f - m is held constant.

    Args:
      encode: clips -> features (B, D), each of its own clip alone.
      clips: (B, T, H, W, C) normalised, B at least 2.

    Returns:
      (B, T, H, W), at least 0, of the dtype of the clips.

    Reference: Shrikumar, Greenside, Kundaje, "Learning Important Features Through Propagating Activation Differences",
    ICML 2017, section 2 (gradient x input).
    """

    def score(x: jax.Array) -> jax.Array:
        features = encode(x)
        own = jax.lax.stop_gradient(features - features.mean(0))
        return (features * own).sum()

    return jnp.abs((clips * jax.grad(score)(clips)).sum(-1))


def moving(pixels: jax.Array) -> jax.Array:
    """Which pixels change by more than MOVES from the frame before, or to the one after, in any channel.

    Args:
      pixels: (..., T, H, W, C) in [0, 1], T at least 2.

    Returns:
      (..., T, H, W) bool.
    """
    change = (jnp.abs(jnp.diff(pixels, axis=-4)) > MOVES).any(-1)
    still = jnp.zeros_like(change[..., :1, :, :])
    return jnp.concatenate([still, change], axis=-3) | jnp.concatenate([change, still], axis=-3)


def share_on(mask: jax.Array, saliency: jax.Array) -> jax.Array:
    """Share of each clip's saliency (B, T, H, W) that lies on a mask of its pixels: (B,), nan where all is 0."""
    axes = tuple(range(1, saliency.ndim))
    return (saliency * mask).sum(axes) / saliency.sum(axes)
