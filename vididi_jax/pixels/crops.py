"""What evaluation sees of a clip: squares at fixed or random places, resized and normalised."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from vididi_jax.pixels.augment import Augmentation, check_clips
from vididi_jax.pixels.operations import normalise, resized_crop

CROPS = {'centre': 1, 'three': 3, 'random': 1}  # views of a clip


@partial(jax.jit, static_argnames=('spec', 'dtype'))
def centre_crop(clips: jax.Array, sizes: jax.Array, spec: Augmentation, dtype=jnp.float32) -> jax.Array:
    """Evaluation's view: the centred square of `spec.centre_fraction` of the shorter side, resized and normalised.

    Args and result as `augment.augment`, without randomness. With frames of short side 128, a fraction of 0.875 and a
    size of 112 the pixels are those of the frame, not resampled.
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
      clips, sizes, spec, dtype: as in `augment.augment`.

    Returns:
      (B, CROPS[crops], T, size, size, 3), normalised.
    """
    check_clips(clips, dtype)

    def one(clip, size, key):
        side = jnp.round(np.float32(spec.centre_fraction) * size.min()).astype(jnp.int32)  # whatever `dtype` is
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
