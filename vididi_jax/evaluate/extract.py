"""Features of all videos of a split as one file: WORKDIR/eval/NAME/features.npz."""

import json
from pathlib import Path

import numpy as np

from vididi_jax.config import workdir_config
from vididi_jax.evaluate.features import read_views, trained_encoder, untrained_encoder, video_features
from vididi_jax.evaluate.protocol import open_complete

ORDERS = (0, 1, 2)
NAMES = ('V', 'dV', 'd2V')


def run(config, workdir: str) -> Path:
    """Write the features of split `config.eval.split`; labels are neither needed nor used.

    The file has `V`, `dV` and `d2V` (N, D), `ids`, `labels` and `groups` (N,) text, and `about`: JSON text with the
    counts of the split's videos, views, checkpoint and fingerprints.
    """
    training = workdir_config(workdir)
    views = read_views(config, ORDERS)
    directory = config.data.dir or training.data.dir
    source = open_complete(directory, config.eval.split, config.allow_missing)
    encoder = untrained_encoder(training) if config.eval.untrained else trained_encoder(training, workdir)
    features = video_features(encoder, source, orders=ORDERS, views=views, workers=config.data.workers,
                              cache=Path(workdir) / 'eval' / 'cache')
    about = {'data': directory, 'split': source.split, 'counts': {
        **source.counts, 'videos': len(source), 'looped': views.looped(source)}, 'clips_x_crops': views.text,
        'frames': views.frames, 'stride': views.stride, 'encoder': encoder.fingerprint(),
        'checkpoint_step': encoder.step, 'fingerprint': source.fingerprint}
    columns = {column: np.array([row[key] for row in source.rows], str)
               for column, key in (('ids', 'id'), ('labels', 'label'), ('groups', 'group'))}
    path = Path(workdir) / 'eval' / config.eval.name / 'features.npz'
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **{name: features[order] for order, name in zip(ORDERS, NAMES, strict=True)}, **columns,
             about=json.dumps(about))
    print(f'{len(source):,} of {source.counts["listed"]:,} listed videos of split {source.split!r}, {views.text} '
          f'views, encoder of step {encoder.step}: written to {path}')
    return path
