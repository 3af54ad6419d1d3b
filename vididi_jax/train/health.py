"""A probe that measures, during a run, whether the representation is healthy: collapse, agreement, saliency."""

import logging
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from vididi_jax import measures
from vididi_jax.compilation import compiler_options
from vididi_jax.data import pipeline
from vididi_jax.data.source import RecordSource
from vididi_jax.derivatives import derivative_stack
from vididi_jax.models import LEAST_FRAMES
from vididi_jax.pixels.augment import Augmentation
from vididi_jax.pixels.crops import centre_crop
from vididi_jax.saliency import moving, saliency, share_on
from vididi_jax.train import mesh as meshes
from vididi_jax.train.state import Networks, TrainState

logger = logging.getLogger(__name__)

COLLAPSED_STD, COLLAPSED_RANK = 0.05, 1.5  # below these, embeddings are one point, or one line


class Probe:
    """A fixed set of training videos whose embeddings are measured during a run."""

    def __init__(self, config, networks: Networks, source: RecordSource, videos: np.ndarray, mesh):
        """Reads the clips: two a video, evenly placed, of `config.health.videos` videos drawn from the run's seed.

        The number of videos is rounded down to whole batches of the run, but to one at least.
        """
        batches = max(1, min(config.health.videos, len(videos)) // config.batch_size)
        chosen = np.sort(np.random.default_rng(config.seed).choice(videos, batches * config.batch_size, replace=False))
        dataset = pipeline.evaluation_batches(
            source, clips_per_video=2, length=config.clip.frames, stride=config.clip.stride,
            batch_size=config.batch_size, records=chosen, rows=meshes.rows_here(mesh, config.batch_size))
        self.batches = list(dataset)
        self.max_order = max_order(config)
        self.has_labels = len(source.label_names) > 1
        self._mesh = mesh
        options = compiler_options(meshes.platform(mesh))
        self._embed = jax.jit(
            partial(_embed, networks=networks, spec=Augmentation(**config.augment), max_order=self.max_order),
            out_shardings=meshes.replicated(mesh), compiler_options=options)
        self._look = jax.jit(partial(_look, networks=networks, spec=Augmentation(**config.augment)),
                             out_shardings=meshes.replicated(mesh), compiler_options=options)

    def measure(self, state: TrainState) -> dict[str, float]:
        """Every measure, by its name under 'health/'; warns if the embeddings collapse.

        Embeddings are the outputs of the projector (BYOL's online one) in evaluation mode. Spread and alignment are
        those of order 0, and so is the share of the saliency that lies on moving pixels, beside the share of the pixels
        that move: the mean over the clips.
        """
        variables = {name: {'params': state.params[name], 'batch_stats': state.batch_stats[name]}
                     for name in ('encoder', 'projector')}
        found, seen = [], []
        for batch in self.batches:
            placed = meshes.to_devices(self._mesh, {name: batch[name] for name in ('clips', 'size', 'label')})
            found.append(jax.device_get(self._embed(variables, placed)))
            if self.max_order:  # one frame has no motion
                seen.append(jax.device_get(self._look(variables['encoder'], placed)))
        features, z = (np.concatenate([part[i] for part in found], axis=1) for i in (0, 1))
        labels = np.concatenate([part[2] for part in found])
        smallest, mean = measures.embedding_std(z[0, :, 0])
        found = {
            'embedding_std_min': smallest, 'embedding_std_mean': mean,
            'effective_rank': measures.effective_rank(z[0, :, 0]),
            'alignment': measures.alignment(z[0, :, 0], z[0, :, 1]), 'uniformity': measures.uniformity(z[0, :, 0]),
        }
        if self.max_order:
            shares, moving_shares = (np.concatenate([part[i] for part in seen]) for i in (0, 1))
            found['order_agreement'] = measures.order_agreement(z.reshape(z.shape[0], -1, z.shape[-1]))
            if np.isfinite(shares).any():  # none is, where all clips have the same features: a collapse, which is told
                found['saliency_on_motion'] = float(np.nanmean(shares))
            found['moving_pixels'] = float(np.mean(moving_shares))
        if self.has_labels:
            per_video = features.mean(2)  # of both clips
            found['knn_accuracy'] = measures.knn_accuracy(measures.join(*per_video[:2]), labels)
        warn_of_collapse(found, most=min(len(labels) - 1, z.shape[-1]))
        return {f'health/{name}': value for name, value in found.items()}


def max_order(config) -> int:
    """The highest derivative order that is measured: 2, or that of which clips leave the encoder enough frames."""
    return max(0, min(2, config.clip.frames - LEAST_FRAMES.get(config.model.name, 1)))


def _embed(variables, batch, *, networks: Networks, spec: Augmentation, max_order: int):
    """Features and embeddings of all orders, (K, B, 2, D) each, and the labels."""
    clips, dtype = batch['clips'], jnp.float32
    pixels = centre_crop(clips.reshape(-1, *clips.shape[2:]), jnp.repeat(batch['size'], 2, axis=0), spec, dtype)
    stack = derivative_stack(pixels, max_order)
    features = networks.encoder.apply(variables['encoder'], jnp.concatenate(stack), train=False)
    z = networks.projector.apply(variables['projector'], features, train=False)
    shape = (len(stack), clips.shape[0], 2, -1)
    return features.astype(dtype).reshape(shape), z.astype(dtype).reshape(shape), batch['label']


def _look(variables, batch, *, networks: Networks, spec: Augmentation):
    """Share of the encoder's saliency on moving pixels, and share of the pixels that move, (2 B,) each."""
    clips = batch['clips']
    clips = clips.reshape(-1, *clips.shape[2:])
    pixels = centre_crop(clips, jnp.repeat(batch['size'], 2, axis=0), spec, jnp.float32)
    where = moving(pixels * jnp.array(spec.std) + jnp.array(spec.mean))
    seen = saliency(partial(networks.encoder.apply, variables, train=False), pixels)
    return share_on(where, seen), where.mean((1, 2, 3))


def warn_of_collapse(measured: dict[str, float], most: float = np.inf) -> None:
    """Logs what to try if the embeddings have (nearly) become one point, or one line; `most`: the highest rank."""
    line = measured['effective_rank'] < COLLAPSED_RANK and most > 1  # two points are always one
    if line or measured['embedding_std_mean'] < COLLAPSED_STD:
        logger.warning(
            'THE EMBEDDINGS COLLAPSE (mean std %.3f, effective rank %.1f): try a lower config.optimizer.base_rate, a '
            'longer warm-up or a larger batch; with VICReg a larger weight of the variance term, with BYOL a slower '
            'target (framework.ema_base) or a faster predictor (optimizer.predictor_rate).',
            measured['embedding_std_mean'], measured['effective_rank'])
