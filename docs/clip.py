"""Draws docs/clip.png, a video of the motion data set and its derivatives: `PYTHONPATH=. python docs/clip.py`."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np

from data_prep.motion import render_video
from vididi_jax.derivatives import derivative_stack
from vididi_jax.pictures import clip_and_derivatives

video = render_video(seed=0, split='train', number=20, frames=16, size=64)  # a ring that circles clockwise
stack = derivative_stack(jnp.asarray(video[::2], jnp.float32) / 255, 2)
picture = clip_and_derivatives(tuple(map(np.asarray, stack)), mean=(0, 0, 0), std=(1, 1, 1))
Path(__file__).with_suffix('.png').write_bytes(picture)
