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
# # Pretrain an encoder, and ask what it has learned
#
# Eight kinds of motion, no labels in training, and the two questions of the README. A short version of `make demo`: some minutes on two
# cores and under 2 GB of memory. Its 128 steps are too few for V, whose figures end about where they began, so look at those of dV; the runs of the
# README and the demo have eight to ten times as many steps. To get figures like theirs, leave out `--train` and `--test`, and all lines that change
# `config` except that of `config.data.dir`: some ten minutes.

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
# ## Videos
#
# `vididi prep` writes data sets: here of synthetic videos, with `vididi prep folder --videos=DIR` of your own.

# %%
run('vididi prep motion --train=512 --test=256 --out=data/motion')
run('vididi prep motion --triples --test=128 --out=data/triples')

# %% [markdown]
# ## Which derivatives each step sees
#
# The schedule of the paper alternates: both views of a clip as velocity, one as velocity and one as it is, both as they are; and in half of the
# steps each order is one higher.

# %%
run('vididi schedule vididi --epochs=4 --steps=4')

# %% [markdown]
# ## Training
#
# A config is a value: change any field. `pretrain` goes on where it was interrupted, and returns the encoder. Derivatives are shorter than the
# clip; with `config.clip.length = 'constant'` a longer clip is read, so that all have one length, and one program is compiled instead of three.

# %%
import vididi_jax

config = vididi_jax.get_config('motion_vicreg')
config.data.dir = 'data/motion'
config.epochs = 8
config.clip.length = 'constant'
config.health.every_cycles = 2
encode = vididi_jax.pretrain(config, 'runs/notebook', report=False)
encode

# %% [markdown]
# ## Asking
#
# R@1: how often is the nearest neighbour of a test video, among the training videos, one of the same motion? Chance is 12.5 percent. The
# evaluation never touches the run's own files, and can ask the untrained encoder too.

# %%
results = {}
for name in ('untrained', 'trained'):
    for task in ('retrieval', 'tug'):
        question = vididi_jax.get_config(f'{task}:motion')
        question.eval.name = f'{task}_{name}'
        question.eval.untrained = name == 'untrained'
        if task == 'tug':
            question.data.dir = 'data/triples'
        last = (name, task) == ('trained', 'tug')
        results[task, name] = vididi_jax.evaluate(question, 'runs/notebook', report=last)

# %%
for (task, name), found in results.items():
    print(task, name, {kind: round(next(iter(values.values())), 1) for kind, values in found.items()})

# %% [markdown]
# ## The report
#
# The last evaluation wrote it. It is a single file: test videos with their nearest neighbours, moving; a
# map of the features; where the encoder looks; curves.

# %%
import sys

if 'google.colab' in sys.modules:  # which shows no files of its machine: look at the one that is downloaded
    from google.colab import files

    files.download('runs/notebook/report/index.html')
else:
    from IPython.display import IFrame, display

    display(IFrame('runs/notebook/report/index.html', width=1000, height=700))

# %% [markdown]
# ## Without derivatives
#
# `config.schedule = 'base'` is the plain framework. With the README's budget its features go by the background: compare both with
# `vididi compare --workdir=runs/table --config.runs=runs/notebook,runs/base`, once both were evaluated under the same names.
