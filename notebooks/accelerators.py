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
# # GPU and TPU: what JAX sees, how a batch is split, what a step needs
#
# Runs on any machine: without an accelerator it shows the same on eight virtual devices. Takes a minute and under 2 GB of memory;
# more of both where enough memory is free for a step of the paper's recipe to be timed as well.
# On Colab choose *Runtime*, *Change runtime type* first.

# %%
REPOSITORY = ''  # such as https://github.com/OWNER/vididi_jax; not needed where the project is installed

import importlib.util
import os
import subprocess
import sys

if importlib.util.find_spec('vididi_jax') is None:  # if pip replaces what was imported before, restart the runtime
    assert REPOSITORY, 'give the address of the repository above'
    subprocess.run([sys.executable, '-m', 'pip', 'install', '-q', f'git+{REPOSITORY}'], check=True)


def run(command, lines=0):
    """A command of a shell, which leaves accelerators to this notebook; prints its last so many lines, 0 for all."""
    path = os.pathsep.join((os.path.dirname(sys.executable), os.environ['PATH']))  # where `vididi` is
    quiet = {**os.environ, 'PATH': path, 'JAX_PLATFORMS': 'cpu', 'TQDM_DISABLE': '1'}
    done = subprocess.run(command, shell=True, env=quiet, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    print('\n'.join(done.stdout.splitlines()[-lines:]))
    done.check_returncode()

# %% [markdown]
# ## Devices
#
# An NVIDIA GPU wants `pip install "jax[cuda12]"`, a TPU `pip install "jax[tpu]"`; Colab's runtimes have theirs. The flag below splits a CPU into eight
# devices, and does nothing elsewhere; it must stand before the first use of JAX.

# %%
os.environ['XLA_FLAGS'] = os.environ.get('XLA_FLAGS', '') + ' --xla_force_host_platform_device_count=8'

import jax

for device in jax.devices():
    stats = device.memory_stats() or {}
    print(device, device.device_kind, f'{stats["bytes_limit"] / 2**30:.1f} GiB' if 'bytes_limit' in stats else '')

# %% [markdown]
# ## A batch over all of them
#
# Nothing needs to be set: `batch_size` is that of all devices together and a multiple of their number. Statistics, covariances and negatives
# are those of the global batch, so the loss does not depend on how many devices there are.

# %%
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from vididi_jax.losses import vicreg_loss
from vididi_jax.train.mesh import make_mesh

mesh = make_mesh()
z = np.random.default_rng(0).normal(size=(2, 64, 32)).astype(np.float32)
split = jax.device_put(z, NamedSharding(mesh, PartitionSpec(None, 'data')))
for shard in split.addressable_shards[:3]:
    print(shard.device, 'has', shard.data.shape, 'of', split.shape)
loss = jax.jit(lambda z: vicreg_loss(z[0], z[1])[0])
print('split over', len(jax.devices()), 'devices', float(loss(split)), 'on one', float(loss(jnp.asarray(z))))
assert np.isclose(float(loss(split)), float(loss(jnp.asarray(z))), rtol=1e-5)

# %% [markdown]
# ## What a step computes, before it runs
#
# `--config.task=inspect` prints config, parameters, shapes and arithmetic, compiles an update, prints the memory that it needs, and, where that much
# is free, times a few updates. Below, memory and time are those of the CPU, as this notebook holds the accelerator: for those of the accelerator,
# give the same commands in a terminal while no notebook holds it. The recipe of the paper, and a narrow one for a CPU:

# %%
run('vididi prep motion --train=64 --test=8 --out=data/few')
run('vididi train ucf101_vicreg --config.task=inspect --config.data.dir=data/few', lines=5)
run('vididi train motion_vicreg --config.task=inspect --config.data.dir=data/few', lines=5)

# %% [markdown]
# ## What to set
#
# | where | what |
# |---|---|
# | one GPU | nothing; `config.model.remat = True` where memory is short: activations are computed again in the backward pass |
# | several GPUs or TPU chips | `config.batch_size` a multiple of their number |
# | TPU pod, SLURM | the same command in every process, with `--multihost` |
# | a CPU | `config.model.width = 8`, small frames |
#
# What was measured on an H100, and what the compilers say of others, is in `docs/performance.md` and `benchmarks/RESULTS.md`. How many
# clips a second the machine of this notebook encodes:

# %%
import time

from vididi_jax.compilation import compiler_options
from vididi_jax.models import create_encoder
from vididi_jax.models.build import has_bfloat16

width = 64 if jax.default_backend() in ('gpu', 'tpu') else 8
clips = jnp.zeros((8, 8, 112, 112, 3), jnp.bfloat16 if has_bfloat16(jax.devices()[0]) else jnp.float32)
encoder = create_encoder('r3d_18', width=width, dtype=clips.dtype)
variables = jax.jit(encoder.init)(jax.random.key(0), clips[:1])
forward = jax.jit(lambda variables, clips: encoder.apply(variables, clips, train=False),
                  compiler_options=compiler_options(jax.default_backend()))  # as training and evaluation compile it
jax.block_until_ready(forward(variables, clips))
start = time.perf_counter()
for _ in range(3):
    features = jax.block_until_ready(forward(variables, clips))
print(f'R3D-18 of width {width}: {3 * len(clips) / (time.perf_counter() - start):.1f} clips of 8x112x112 a second, forward, on one device')
