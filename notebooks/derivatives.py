# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Temporal derivatives of a clip
#
# What a video looks like when only its changes are left: velocity and acceleration, as the encoder of ViDiDi sees them. Takes a minute on
# any machine. On Colab the first cell installs the project: put the address of its repository there.

# %%
REPOSITORY = ''  # such as https://github.com/OWNER/vididi_jax; not needed where the project is installed

import importlib.util
import subprocess
import sys

if importlib.util.find_spec('vididi_jax') is None:  # if pip replaces what was imported before, restart the runtime
    assert REPOSITORY, 'give the address of the repository above'
    subprocess.run([sys.executable, '-m', 'pip', 'install', '-q', f'git+{REPOSITORY}'], check=True)

# %% [markdown]
# ## A clip
#
# `VIDEO` may be a file of yours. Without one, it is a synthetic video: a sprite that moves before a background that stands still.

# %%
VIDEO = ''

import io

import jax
import jax.numpy as jnp
import numpy as np
from IPython.display import Image, display
from PIL import Image as Picture

import vididi_jax
from vididi_jax.data_prep.motion import render_video
from vididi_jax.derivatives import derivative_stack, taylor_expand, time_derivative
from vididi_jax.pictures import clip_and_derivatives

if VIDEO:
    clip = vididi_jax.read_clips(VIDEO, frames=16, stride=2)[0]
else:
    clip = render_video(seed=0, split='train', number=20, frames=24, size=64)[::2]
clip = jnp.asarray(clip, jnp.float32) / 255
clip.shape  # (T, H, W, 3)

# %% [markdown]
# ## Velocity and acceleration
#
# `time_derivative` is the difference of neighbouring frames; the second derivative is the difference of differences. A clip of T frames has
# T - 1 and T - 2 of them. What does not move is zero, shown gray here: the background is gone, and an encoder that sees only this has to go
# by the motion.

# %%
stack = derivative_stack(clip, 2)  # orders 0, 1 and 2, all cut to the same number of frames
display(Image(clip_and_derivatives(tuple(map(np.asarray, stack)), mean=(0, 0, 0), std=(1, 1, 1))))

# %% [markdown]
# The same, moving: the clip, its velocity, its acceleration.

# %%
def moving(*parts, height=160):
    """An animated picture of clips (T, H, W, 3) in [0, 1], side by side."""
    frames = np.concatenate([np.asarray(part) for part in parts], axis=2)
    frames = (255 * frames.clip(0, 1)).astype(np.uint8)
    size = round(height * frames.shape[2] / frames.shape[1]), height
    pictures = [Picture.fromarray(frame).resize(size, Picture.Resampling.NEAREST) for frame in frames]
    file = io.BytesIO()
    pictures[0].save(file, 'gif', save_all=True, append_images=pictures[1:], duration=120, loop=0)
    return Image(file.getvalue(), format='gif')


def visible(derivative):
    """Gray plus the derivative, scaled to its largest value."""
    return 0.5 + 0.5 * derivative / jnp.abs(derivative).max()


display(moving(stack[0], visible(stack[1]), visible(stack[2])))

# %% [markdown]
# ## How much of the clip is still?
#
# The share of pixels that change by less than one level of 255, from one frame to the next.

# %%
still = float((jnp.abs(stack[1]).max(-1) < 1 / 255).mean())
print(f'{100 * still:.0f} % of the pixels do not change from one frame to the next')

# %% [markdown]
# ## A frame from the derivatives of one moment
#
# The derivatives say where things go. `taylor_expand` adds them up: with all orders it gives later frames back exactly; with few orders it only
# extrapolates, and the error says how far velocity and acceleration alone carry.

# %%
every = [order[0] for order in derivative_stack(clip, len(clip) - 1)]
for orders in (1, 2, 3, len(every)):
    error = jnp.abs(taylor_expand(every[:orders], 2) - clip[2]).mean()
    print(f'frame 2 from derivatives up to order {orders - 1:2} of frame 0: mean error {float(error):.4f}')

# %% [markdown]
# ## Under jit, vmap and grad
#
# They are plain functions of arrays. Over a batch, compiled:

# %%
batch = jnp.stack([clip] * 4)
velocity = jax.jit(time_derivative)(batch)
by_vmap = jax.vmap(time_derivative)(batch)
energy = jax.grad(lambda clip: (time_derivative(clip) ** 2).sum())(clip)
print(velocity.shape, bool((velocity == by_vmap).all()), energy.shape)
assert bool((velocity == by_vmap).all())
