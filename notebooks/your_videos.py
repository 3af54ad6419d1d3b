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
# # Your folder of videos: features, neighbours, clusters
#
# From files to features, and to a page that shows which videos move alike. No labels. Without a folder of your own it makes one of synthetic
# videos, and takes some minutes on two cores and under 2 GB of memory.

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
    quiet = {**os.environ, 'PATH': path, 'JAX_PLATFORMS': 'cpu', 'TQDM_MININTERVAL': '30'}
    with subprocess.Popen(
            command, shell=True, env=quiet, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        for line in process.stdout:
            print(line, end='')
    assert process.returncode == 0

# %% [markdown]
# ## The folder
#
# `FOLDER` may be any tree of videos that FFmpeg reads.

# %%
FOLDER = ''

from pathlib import Path

import av
import numpy as np

import vididi_jax

if not FOLDER:
    from vididi_jax.data_prep.motion import label_of, render_video

    FOLDER = 'made_up_videos'
    for number in range(96):
        path = Path(FOLDER, f'{label_of(number)}_{number:03d}.mp4')
        path.parent.mkdir(exist_ok=True)
        with av.open(str(path), 'w') as file:
            stream = file.add_stream('mpeg4', rate=25)
            stream.width = stream.height = 64
            stream.bit_rate = 2_000_000
            for frame in render_video(seed=7, split='train', number=number, frames=24, size=64):
                file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format='rgb24')))
            file.mux(stream.encode())
len(list(Path(FOLDER).rglob('*')))

# %% [markdown]
# ## Decode once
#
# Frames go into shards that training reads at random; what cannot be read is listed with its reason, and nothing is lost in silence.

# %%
run(f'''vididi prep folder "--videos={FOLDER}" --short_side=32 --out=data/folder''')

# %% [markdown]
# ## Train on them
#
# A narrow encoder, small frames and few epochs, so that it suits a laptop. With a GPU and videos of your own, prepare without
# `--short_side`, and leave out the lines from `config.data.workers` to `config.health.every_cycles`, except that of `config.epochs`: set it such that
# epochs x videos / 32 is 10,000 or more.

# %%
config = vididi_jax.get_config('folder_vicreg')
config.data.dir = 'data/folder'
config.data.workers = 0  # frames this small are decoded by threads
config.model.width = 8
config.framework.projector = (256, 256, 64)
config.augment.size = 24
config.clip.stride = 1
config.epochs = 16
config.health.every_cycles = 4
encode = vididi_jax.pretrain(config, 'runs/folder', report=False)
encode

# %% [markdown]
# ## Features of every video
#
# One file with the features of V, dV and d2V, and the ids. The variant `:motion` suits videos of 24 frames; leave it out for longer ones.
# `encode_video` gives the features of a file that is in no data set.

# %%
question = vididi_jax.get_config('features:motion')
question.eval.split = 'train'
path = vididi_jax.evaluate(question, 'runs/folder', report=False)
found = np.load(path)
{name: found[name].shape for name in found.files if found[name].ndim}

# %%
one = vididi_jax.encode_video(Path(FOLDER, str(found['ids'][0])), encode, order=1)
one.shape

# %% [markdown]
# ## Neighbours and clusters
#
# These are found by the cosine of the features of dV, which are those of the motion. Such a short training on so few videos teaches little: the
# neighbours share the axis of their motion at best, and the flips of the augmentation make left and right the same.

# %%
from sklearn.cluster import KMeans
from sklearn.preprocessing import normalize

features, ids = normalize(found['dV']), found['ids']
similarity = features @ features.T
np.fill_diagonal(similarity, -1)
for query in range(0, len(ids), max(1, len(ids) // 8)):
    nearest = similarity[query].argsort()[::-1][:3]
    print(ids[query], '->', ', '.join(f'{ids[other]} {similarity[query, other]:.2f}' for other in nearest))

# %%
clusters = KMeans(min(8, len(ids)), n_init=4, random_state=0).fit_predict(features)
for number in range(clusters.max() + 1):
    print(number, ', '.join(ids[clusters == number][:8]))

# %% [markdown]
# ## The page
#
# A page to look at: click a video, and see its neighbours move. It prepares the folder itself, with larger frames.

# %%
from vididi_jax.tasks import run_task

search = vididi_jax.get_config('browse')
search.checkpoint, search.videos = 'runs/folder', FOLDER
search.eval.stride = 1  # of videos of 24 frames; leave it out for longer ones
run_task(search, 'runs/search')

# %%
import sys

if 'google.colab' in sys.modules:  # which shows no files of its machine: look at the one that is downloaded
    from google.colab import files

    files.download('runs/search/index.html')
else:
    from IPython.display import IFrame, display

    display(IFrame('runs/search/index.html', width=1000, height=700))
