"""Where encoders look: the saliency of some test clips, and the share of it that lies on moving pixels."""

import logging
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from vididi_jax import pictures
from vididi_jax.compilation import jit_with_options
from vididi_jax.data import clips as clip_indices
from vididi_jax.data import pipeline
from vididi_jax.errors import UserError
from vididi_jax.pixels.crops import centre_crop
from vididi_jax.report.evidence import Evidence, evenly_by_class
from vididi_jax.report.html import paragraph, picture, table
from vididi_jax.report.summary import pretraining_config, schedule_of, start_of
from vididi_jax.saliency import MOVES, moving, saliency, share_on
from vididi_jax.train.encoder import Encoder, trained_encoder, untrained_encoder

logger = logging.getLogger(__name__)

MEASURED, SHOWN = 64, 6


@jit_with_options(static_argnames='module')
def _saliency(module, variables, pixels):
    return saliency(partial(module.apply, variables, train=False), pixels)


def _clips(evidence: Evidence, chosen: np.ndarray) -> dict:
    """The middle clip of each of `chosen`: `clips` uint8 (N, 1, T, H, W, 3), and `size` (N, 2) of their frames."""
    test, clip = evidence.fold.test, evidence.evaluation.training.clip
    videos = test.videos[chosen]
    return pipeline.load_whole(test.source, videos, np.stack([clip_indices.even_clips(
        int(frames), clips=1, length=max(2, clip.frames), stride=clip.stride)
        for frames in test.source.num_frames[videos]]))


def _pixels(batch: dict, augment) -> tuple[jax.Array, jax.Array]:
    """Clips as an encoder takes them, float32 (N, T, h, w, 3), normalised; and the same in [0, 1]."""
    pixels = centre_crop(jnp.asarray(batch['clips'][:, 0]), jnp.asarray(batch['size']), augment)
    return pixels, jnp.clip(pixels * jnp.array(augment.std) + jnp.array(augment.mean), 0, 1)


def encoders_of(evidence: Evidence, beside: dict[str, Encoder]) -> dict[str, Encoder]:
    """{name: encoder}: this run's, that before its training if it can still be had, and those beside it."""
    training = evidence.evaluation.training
    found = {f'{schedule_of(training)}, trained': evidence.evaluation.encoder}
    try:
        found[start_of(training)] = untrained_encoder(training)
    except UserError as error:  # what it started from is gone
        logger.warning('the report shows no untrained encoder: %s', error)
    return found | beside


def other_run(workdir: str) -> dict[str, Encoder]:
    """{name: its trained encoder}; raises `UserError` if it is no run of pretraining, or has no checkpoint."""
    training = pretraining_config(workdir)
    return {f'{Path(workdir).name} ({schedule_of(training)})': trained_encoder(training, workdir)}


def mean_share(shares: np.ndarray) -> str:
    """Percent, of the clips that have a saliency: one that nothing tells from the others has none, and is NaN."""
    known = shares[np.isfinite(shares)]
    some = f' (of {len(known)} clips; nothing tells the others apart)' if len(known) < len(shares) else ''
    return f'{100 * float(known.mean()):.1f}{some}' if len(known) else 'none: nothing tells any clip from the others'


def looks_section(evidence: Evidence, beside: dict[str, Encoder]) -> str:
    """The section `saliency`."""
    chosen = evenly_by_class(evidence.fold.test.labels, MEASURED)
    if len(chosen) < 2:
        return paragraph('Where the encoder looks is what tells clips apart, and the first fold has one test video.')
    batch, maps, rows = _clips(evidence, chosen), {}, []
    seen = _pixels(batch, evidence.evaluation.encoder.augment)[1]
    for name, encoder in encoders_of(evidence, beside).items():  # each sees the pixels that it was trained on
        pixels, plain = _pixels(batch, encoder.augment)
        found = _saliency(encoder.module, encoder.variables, pixels)
        maps[name] = np.asarray(jax.image.resize(found, seen.shape[:-1], 'linear'))
        rows.append((name, mean_share(np.asarray(share_on(moving(plain), found)))))
    where = moving(seen)
    rows.append(('moving pixels themselves, the share of an even saliency', f'{100 * float(where.mean()):.1f}'))
    shown = evenly_by_class(evidence.fold.test.labels[chosen], min(SHOWN, len(chosen)))
    image = pictures.saliency(np.asarray(seen)[shown], {name: found[shown] for name, found in maps.items()})
    text = (f'{len(shown)} test clips of {evidence.fold.name}, and under each the saliency of its pixels (gradient x '
            'input of what tells the clip from others), bright where it is large, scaled to the largest of its row.')
    return ('<section id="saliency"><h2>Where the encoder looks</h2>' + picture(image, text) + table(
        rows, ('encoder', f'percent of the saliency on moving pixels, {len(chosen)} test clips'))
        + f'<p class="faint">A pixel moves if it changes by more than {MOVES:.0%} of its range from one frame to the '
        'next.</p></section>')
