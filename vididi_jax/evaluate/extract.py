"""Features of all videos of a split as one file: WORKDIR/eval/NAME/features.npz."""

import json
from pathlib import Path

import numpy as np

from vididi_jax.config import workdir_config
from vididi_jax.evaluate.features import read_views, trained_encoder, untrained_encoder, video_features
from vididi_jax.evaluate.protocol import open_complete, usable
from vididi_jax.evaluate.results import provenance

ORDERS = (0, 1, 2)
NAMES = ('V', 'dV', 'd2V')


def run(config, workdir: str) -> Path:
    """Write the features of split `config.eval.split`; labels are neither needed nor used.

    The file has `V`, `dV` and `d2V` (N, D), `ids`, `labels` and `groups` (N,) text, and `about`: JSON text with the
    counts of the split's videos, views, checkpoint, fingerprints, and what results.json has too: seeds, config, commit,
    versions, device.
    """
    training = workdir_config(workdir)
    views = read_views(config, ORDERS)
    directory = config.data.dir or training.data.dir
    source = open_complete(directory, config.eval.split, config.allow_missing)
    side = usable(source, config.eval)
    encoder = untrained_encoder(training) if config.eval.untrained else trained_encoder(training, workdir)
    features = video_features(encoder, source, orders=ORDERS, views=views, workers=config.data.workers,
                              cache=Path(workdir) / 'eval' / 'cache')
    counts = side.counts(config.eval)
    about = {'data': directory, 'split': source.split, 'short_video': config.eval.short_video, 'counts': counts,
             'clips_x_crops': views.text, 'frames': views.frames, 'stride': views.stride,
             'encoder': encoder.fingerprint(), 'checkpoint_step': encoder.step, 'fingerprint': source.fingerprint,
             'seed': training.seed, 'evaluation_seed': config.seed, **provenance(config)}
    columns = {column: np.array([row[key] for row in side.rows], str)
               for column, key in (('ids', 'id'), ('labels', 'label'), ('groups', 'group'))}
    path = Path(workdir) / 'eval' / config.eval.name / 'features.npz'
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **{name: features[order][side.videos] for order, name in zip(ORDERS, NAMES, strict=True)}, **columns,
             about=json.dumps(about))
    print(f'{counts["videos"]:,} of {counts["listed"]:,} listed videos of split {source.split!r} ({counts["looped"]:,} '
          f'looped, {counts["dropped"]:,} dropped as too short), {views.text} views, encoder of step {encoder.step}: '
          f'written to {path}')
    return path
