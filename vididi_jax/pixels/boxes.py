"""Boxes that move with the pixels: what augmentation and evaluation do to a clip, done to its boxes.

Boxes are (B, M, 4): x1, y1, x2, y2 as shares of width and height, from the top left corner. M is fixed, and a mask
(B, M) says which of them there are.
"""

from functools import partial

import jax
import jax.numpy as jnp

from vididi_jax.errors import UserError
from vididi_jax.pixels.augment import Augmentation, Window, augment_with_windows, check_clips
from vididi_jax.pixels.operations import letterbox, normalise


def move_boxes(boxes: jax.Array, mask: jax.Array, sizes: jax.Array, windows: Window) -> tuple[jax.Array, jax.Array]:
    """Boxes of frames -> boxes of what is seen of them.

    They are cut to the crop. A box whose centre is not in the crop is taken for not there: of what it shows, most was
    cut off along one axis at least. What stays has half its height and width, or all that fits.

    Args:
      boxes: (B, M, 4), shares of the frame.
      mask: (B, M), bool.
      sizes: (B, 2), height and width of the frames, pixels.
      windows: what is seen of each clip.

    Returns:
      (B, M, 4), shares of the crop, in [0, 1]; and the mask.
    """
    scale = jnp.stack([sizes[:, 1], sizes[:, 0]], 1) / jnp.stack([windows.width, windows.height], 1)
    offset = jnp.stack([windows.left / windows.width, windows.top / windows.height], 1)
    corners = boxes.reshape(*boxes.shape[:-1], 2, 2) * scale[:, None, None] - offset[:, None, None]
    flipped = corners.at[..., 0].set(1 - corners[..., ::-1, 0])
    corners = jnp.where(windows.flip[:, None, None, None], flipped, corners)
    # Centres do fall on borders, so a product is compared with whole numbers, which no program rounds otherwise.
    first, extent = (2 * jnp.stack(pair, 1)[:, None] for pair in (
        (windows.left, windows.top), (windows.width, windows.height)))
    centres = (boxes[..., :2] + boxes[..., 2:]) * sizes[:, None, ::-1]
    inside = ((centres >= first) & (centres <= first + extent)).all(-1)
    return jnp.clip(corners, 0, 1).reshape(boxes.shape), mask & inside


@partial(jax.jit, static_argnames='spec')
def augment_with_boxes(
    key: jax.Array, clips: jax.Array, sizes: jax.Array, boxes: jax.Array, mask: jax.Array, spec: Augmentation,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`augment`, and `move_boxes` accordingly.

    Args:
      key, clips, sizes, spec: as in `augment`.
      boxes: (B, M, 4), shares of the frame. mask: (B, M), bool.

    Returns:
      Clips (B, T, size, size, 3), float32 and normalised; boxes (B, M, 4), shares of them; mask.

    Raises:
      UserError: a wrapped shift, which tears boxes apart, or another crop or flip for each frame; see also `augment`.
    """
    if spec.varies('crop') or spec.varies('flip'):
        raise UserError(f'augment.per_frame is {spec.per_frame}: a box has one place in a clip: leave crop and flip '
                        'out, or set augment.frame_consistent to True.')
    if spec.shift:
        raise UserError(f'augment.shift is {spec.shift}: shifts wrap around, and a box cannot: set it to 0.')
    pixels, windows = augment_with_windows(key, clips, sizes, spec)
    return pixels, *move_boxes(boxes, mask, sizes, windows)


@partial(jax.jit, static_argnames='spec')
def whole_frames(
    clips: jax.Array, sizes: jax.Array, boxes: jax.Array, spec: Augmentation,
) -> tuple[jax.Array, jax.Array]:
    """Evaluation's view for detection: whole frames, aspect kept, in the top left of a square of `spec.size`.

    Args:
      clips, sizes: as in `augment`.
      boxes: (B, M, 4), shares of the frame; may reach beyond it.
      spec: `size`, `mean` and `std` are used.

    Returns:
      Clips (B, T, size, size, 3), float32 and normalised, then 0 beyond the frames; boxes (B, M, 4), shares of the
      square.

    Raises:
      ValueError: clips that are not uint8.
    """
    check_clips(clips, jnp.float32)

    def one(clip, size):
        frames, inside = letterbox(clip, size[0], size[1], spec.size)
        return jnp.where(inside[..., None], normalise(frames, spec.mean, spec.std), 0)

    pixels = jax.vmap(one)(clips.astype(jnp.float32) / 255, sizes)
    share = sizes[:, ::-1] / sizes.max(1, keepdims=True)
    return pixels, boxes * jnp.tile(share, 2)[:, None]
