"""What training sees: two augmented views of a video and their derivatives, moving."""

import html

import jax
import jax.numpy as jnp
import numpy as np

from vididi_jax.data import clips as clip_indices
from vididi_jax.data import pipeline
from vididi_jax.data.source import RecordSource
from vididi_jax.derivatives import time_derivative
from vididi_jax.pixels.augment import Augmentation, augment
from vididi_jax.report.animation import Clips
from vididi_jax.report.html import clip_image, paragraph

VIDEOS = 3
NAMES = ('V', 'dV', 'd2V')


def visible(clip: np.ndarray, order: int, spec: Augmentation) -> np.ndarray:
    """Normalised pixels as uint8: as they were, or, of a derivative, gray where nothing changes."""
    x = np.asarray(clip, np.float64)
    pixels = 0.5 + 0.5 * x / max(np.abs(x).max(), 1e-9) if order else x * np.array(spec.std) + np.array(spec.mean)
    return np.round(255 * np.clip(pixels, 0, 1)).astype(np.uint8)


def views_section(training, directory: str, clips: Clips) -> str:
    """Some videos of the training split, augmented with the run's seed; raises `UserError` if the data are absent."""
    source, spec = RecordSource(directory, training.data.split), Augmentation(**training.augment)
    count = min(VIDEOS, len(source))
    batch = pipeline.load_whole(source, np.arange(count), np.stack([clip_indices.sample_clip_pair(
        np.random.default_rng((training.seed, record)), int(source.num_frames[record]), length=training.clip.frames,
        stride=training.clip.stride, placement=training.clip.placement) for record in range(count)]))
    orders = range(min(3, training.clip.frames))
    figures = []
    views = [augment(jax.random.fold_in(jax.random.key(training.seed), view),
                     jnp.asarray(batch['clips'][:, view]), jnp.asarray(batch['size']), spec) for view in (0, 1)]
    for video in range(count):
        for number, view in enumerate(views):
            for order in orders:
                name = f'{NAMES[order]} of view {number + 1}'
                frames = visible(time_derivative(view[video], order), order, spec)
                figures.append(f'<figure>{clip_image(clips.add(frames), name)}<figcaption>{html.escape(name)}'
                               '</figcaption></figure>')
    text = (f'{count} of the {len(source):,} videos of split {training.data.split!r}: two clips of each, augmented as '
            'in training, and their derivatives, in which gray is no change.')
    return ('<h2>What training sees</h2>' + paragraph(text) + f'<div class="views">{"".join(figures)}</div>')
