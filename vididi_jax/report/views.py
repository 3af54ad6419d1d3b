"""What training sees: two augmented views of a video and their derivatives, moving."""

import jax
import jax.numpy as jnp
import numpy as np

from vididi_jax.data import clips as clip_indices
from vididi_jax.data import pipeline
from vididi_jax.data.source import RecordSource
from vididi_jax.derivatives import time_derivative
from vididi_jax.keys import root_key
from vididi_jax.pixels.augment import Augmentation, augment
from vididi_jax.report.animation import Clips
from vididi_jax.report.html import clip_image, paragraph
from vididi_jax.schedule import order_name, resolve
from vididi_jax.train.pretrain import used_videos
from vididi_jax.train.step import frames_to_read, view_frames

VIDEOS = 3


def visible(clip: np.ndarray, order: int, spec: Augmentation) -> np.ndarray:
    """Normalised pixels as uint8: as they were, or, of a derivative, gray where nothing changes."""
    x = np.asarray(clip, np.float64)
    pixels = 0.5 + 0.5 * x / max(np.abs(x).max(), 1e-9) if order else x * np.array(spec.std) + np.array(spec.mean)
    return np.round(255 * np.clip(pixels, 0, 1)).astype(np.uint8)


def views_section(training, source: RecordSource, clips: Clips) -> str:
    """Some videos of `source`, which a run was trained on, augmented with the run's seed."""
    spec = Augmentation(**training.augment)
    used, schedule, clip = used_videos(training, source), resolve(training.schedule), training.clip
    shown = used[np.linspace(0, len(used) - 1, min(VIDEOS, len(used))).round().astype(int)]
    batch = pipeline.load_whole(source, shown, np.stack([clip_indices.sample_clip_pair(
        np.random.default_rng((training.seed, record)), int(source.num_frames[record]), stride=clip.stride,
        length=frames_to_read(clip.frames, schedule.max_order, clip.length), placement=clip.placement)
        for record in shown.tolist()]))
    orders = [order for order, share in enumerate(schedule.shares) if share]
    rows = []
    views = [augment(jax.random.fold_in(root_key(training.seed), view),
                     jnp.asarray(batch['clips'][:, view]), jnp.asarray(batch['size']), spec) for view in (0, 1)]
    for video in range(len(shown)):
        row = ''
        for number, view in enumerate(views, 1):
            figures = ''
            for order in orders:
                name = f'{order_name(order)} of view {number}'
                seen = time_derivative(view[video], order)[:view_frames(clip.frames, (order, order), clip.length)]
                frames = visible(seen, order, spec)
                figures += f'<figure>{clip_image(clips.add(frames), name)}<figcaption>{name}</figcaption></figure>'
            row += f'<div>{figures}</div>'
        rows.append(f'<div class="views">{row}</div>')
    text = (f'{len(shown)} of the {len(used):,} videos used of split {training.data.split!r}: two clips of each, '
            'augmented as in training, in the orders that the schedule has; in a derivative gray is no change.')
    return '<h2>What training sees</h2>' + paragraph(text) + ''.join(rows)
