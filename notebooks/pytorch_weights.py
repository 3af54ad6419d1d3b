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
# # From PyTorch weights to PyTorch weights
#
# torchvision's encoder in, pretraining goes on from it without labels, and weights for PyTorch come out. Needs `torch` and `torchvision`, which
# Colab has. Some minutes on two cores, under 4 GB of memory. To try it quickly the encoder has random weights: with
# `weights='KINETICS400_V1'` torchvision loads its own.

# %%
REPOSITORY = ''  # such as https://github.com/OWNER/vididi_jax; not needed where the project is installed

import importlib.util
import os
import subprocess
import sys

if importlib.util.find_spec('vididi_jax') is None:  # if pip replaces what was imported before, restart the runtime
    assert REPOSITORY, 'give the address of the repository above'
    subprocess.run([sys.executable, '-m', 'pip', 'install', '-q', f'git+{REPOSITORY}'], check=True)


def run(command):
    """A command of a shell, which leaves accelerators to this notebook."""
    path = os.pathsep.join((os.path.dirname(sys.executable), os.environ['PATH']))  # where `vididi` is
    quiet = {**os.environ, 'PATH': path, 'JAX_PLATFORMS': 'cpu', 'TQDM_DISABLE': '1'}
    done = subprocess.run(command, shell=True, env=quiet, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    print(done.stdout)
    done.check_returncode()

# %% [markdown]
# ## torchvision's encoder, and its features

# %%
import numpy as np
import torch
import torchvision

torch.manual_seed(0)
model = torchvision.models.video.r3d_18(weights=None)
model.fc = torch.nn.Identity()
model.eval()
torch.save(model.state_dict(), 'r3d_18.pth')

clips = np.random.default_rng(0).normal(size=(2, 8, 32, 32, 3)).astype(np.float32)  # normalised
with torch.no_grad():
    expected = model(torch.from_numpy(clips).permute(0, 4, 1, 2, 3)).numpy()
expected.shape

# %% [markdown]
# ## The same here

# %%
import jax

import vididi_jax

jax.config.update('jax_default_matmul_precision', 'highest')  # else GPUs and TPUs round float32 to less
encode = vididi_jax.load_encoder('r3d_18.pth', name='r3d_18')
found = encode(clips)
difference = float(np.abs(found - expected).max() / np.abs(expected).max())
print(f'largest difference, of the largest feature: {difference:.1e}')
assert difference < 1e-4

# %% [markdown]
# ## Pretraining goes on from it
#
# `import` makes a workdir of the weights, `init_from` starts from its encoder. On a CPU the full encoder is slow: a few steps on small clips show
# that it works.

# %%
run('vididi import --weights=r3d_18.pth --name=r3d_18 --out=runs/torchvision')
run('vididi prep motion --train=16 --test=8 --out=data/sixteen')

# %%
from vididi_jax.models.torchvision import MEAN, STD

config = vididi_jax.get_config('motion_vicreg')
config.data.dir = 'data/sixteen'
config.init_from = 'runs/torchvision'
config.augment.mean, config.augment.std = MEAN, STD  # what torchvision's weights expect
config.model.width = 64
config.model.dtype = 'float32'
config.schedule = 'base'
config.batch_size = 8
config.epochs = 1
config.health.every_cycles = 0
encode = vididi_jax.pretrain(config, 'runs/continued', report=False)
encode

# %% [markdown]
# ## And back to PyTorch
#
# A `.pth` or `.safetensors` under torchvision's names; of width 64 it fits torchvision's model as it is, of any width the module of
# `docs/pytorch.md`.

# %%
run('vididi export --workdir=runs/continued --out=continued.pth')

# %%
model.load_state_dict(torch.load('continued.pth'), strict=False)
with torch.no_grad():
    back = model.eval()(torch.from_numpy(clips).permute(0, 4, 1, 2, 3)).numpy()
difference = float(np.abs(encode(clips) - back).max() / np.abs(back).max())
print(f'largest difference, of the largest feature: {difference:.1e}')
assert difference < 1e-4
