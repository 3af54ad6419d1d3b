"""Is a representation healthy? Measures of collapse and of agreement, and a probe that takes them during training.

The measures are functions of arrays in numpy; rows are videos or clips. Embeddings are compared by their direction.
Where anything is not finite, the measure is nan.
"""

import logging
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from vididi_jax.augment import Augmentation
from vididi_jax.crops import centre_crop
from vididi_jax.data import pipeline
from vididi_jax.data.source import RecordSource
from vididi_jax.derivatives import derivative_stack
from vididi_jax.train import mesh as meshes
from vididi_jax.train.state import Networks, TrainState

logger = logging.getLogger(__name__)

COLLAPSED_STD, COLLAPSED_RANK = 0.05, 1.5  # below these, embeddings are one point, or one line
NEIGHBOURS = 5


def unit(x: np.ndarray) -> np.ndarray:
    """Rows of (..., D) to unit Euclidean length, float64; a row of zeros stays."""
    x = np.asarray(x, np.float64)
    with np.errstate(invalid='ignore'):  # infinity becomes nan
        return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), np.finfo(np.float64).tiny)


def embedding_std(z: np.ndarray) -> tuple[float, float]:
    """Smallest and mean standard deviation of the D entries of unit embeddings, times sqrt(D).

    The mean is about 1 for embeddings that spread evenly over the sphere, and 0 for collapsed ones.

    Args:
      z: (N, D).

    Reference: Chen and He, "Exploring Simple Siamese Representation Learning", CVPR 2021, section 4.1.
    """
    std = unit(z).std(0) * np.sqrt(z.shape[1])
    return float(std.min()), float(std.mean())


def effective_rank(z: np.ndarray) -> float:
    """`exp(-sum_i p_i log p_i)`, p_i the share of singular value i of the centred embeddings: 1 to min(N - 1, D).

    Args:
      z: (N, D). Embeddings that are all equal have rank 0.

    Reference: Roy and Vetterli, "The Effective Rank", EUSIPCO 2007; Garrido et al., "RankMe", ICML 2023.
    """
    z = np.asarray(z, np.float64)
    if not np.isfinite(z).all():  # the decomposition would raise
        return np.nan
    values = np.linalg.svd(z - z.mean(0), compute_uv=False)
    if values.sum() <= 1e-12 * max(np.linalg.norm(z), 1e-300):
        return 0.0
    shares = values[values > 0] / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def alignment(z1: np.ndarray, z2: np.ndarray) -> float:
    """Mean squared distance between the unit embeddings of two clips of the same video: 0 is best, 2 is unrelated.

    Args:
      z1, z2: (N, D).

    Reference: Wang and Isola, "Understanding Contrastive Representation Learning", ICML 2020, section 4.
    """
    return float(((unit(z1) - unit(z2)) ** 2).sum(-1).mean())


def uniformity(z: np.ndarray) -> float:
    """`log mean_{i != j} exp(-2 |z_i - z_j|^2)` of unit embeddings: 0 where all are equal, the lower the more spread.

    Args:
      z: (N, D), N at least 2.

    Reference: Wang and Isola, ICML 2020, section 4.
    """
    z = unit(z)
    squared = np.maximum(2 - 2 * z @ z.T, 0)
    return float(np.log(np.exp(-2 * squared)[~np.eye(len(z), dtype=bool)].mean()))


def order_agreement(z: np.ndarray) -> float:
    """Mean cosine between the embeddings of different derivative orders of the same clip.

    Args:
      z: (K, N, D), one row of embeddings an order, K at least 2.
    """
    z = unit(z)
    cosines = np.einsum('ind,jnd->ijn', z, z).mean(-1)
    return float(cosines[~np.eye(len(z), dtype=bool)].mean())


def knn_accuracy(features: np.ndarray, labels: np.ndarray, k: int = NEIGHBOURS) -> float:
    """Percentage of videos whose class wins the vote of their k nearest others, by cosine; ties go to the nearer class.

    Args:
      features: (N, D).
      labels: (N,) ints.
      k: number of neighbours.
    """
    if not np.isfinite(features).all():  # nan has no place in the order
        return np.nan
    x, labels = unit(features), np.asarray(labels)
    similarity = x @ x.T
    np.fill_diagonal(similarity, -np.inf)
    nearest = labels[np.argsort(-similarity, axis=1, kind='stable')[:, : min(k, len(x) - 1)]]
    votes = (nearest[:, :, None] == nearest[:, None, :]).sum(-1)  # of each neighbour's class; argmax takes the nearest
    winners = nearest[np.arange(len(x)), votes.argmax(1)]
    return 100 * float((winners == labels).mean())


class Probe:
    """A fixed set of training videos whose embeddings are measured during a run."""

    def __init__(self, config, networks: Networks, source: RecordSource, videos: np.ndarray, mesh):
        """Reads the clips: two a video, evenly placed, of `config.health.videos` videos drawn from the run's seed.

        The number of videos is rounded down to whole batches of the run, but to one at least.
        """
        batches = max(1, min(config.health.videos, len(videos)) // config.batch_size)
        chosen = np.sort(np.random.default_rng(config.seed).choice(videos, batches * config.batch_size, replace=False))
        process, processes = jax.process_index(), jax.process_count()
        dataset = pipeline.evaluation_batches(
            source, clips_per_video=2, length=config.clip.frames, stride=config.clip.stride,
            videos_per_batch=config.batch_size // processes, records=chosen[process::processes])
        self.batches = list(dataset)
        self.max_order = min(2, config.clip.frames - 1)
        self.has_labels = len(source.label_names) > 1
        self._mesh = mesh
        self._embed = jax.jit(
            partial(_embed, networks=networks, spec=Augmentation(**config.augment), max_order=self.max_order),
            out_shardings=meshes.replicated(mesh))

    def measure(self, state: TrainState) -> dict[str, float]:
        """Every measure, by its name under 'health/'; warns if the embeddings collapse.

        Embeddings are the outputs of the projector (BYOL's online one) in evaluation mode. Spread and alignment are
        those of order 0.
        """
        variables = {name: {'params': state.params[name], 'batch_stats': state.batch_stats[name]}
                     for name in ('encoder', 'projector')}
        found = []
        for batch in self.batches:
            placed = meshes.to_devices(self._mesh, {name: batch[name] for name in ('clips', 'size', 'label')})
            found.append(jax.device_get(self._embed(variables, placed)))
        features, z = (np.concatenate([part[i] for part in found], axis=1) for i in (0, 1))
        labels = np.concatenate([part[2] for part in found])
        smallest, mean = embedding_std(z[0, :, 0])
        flat = z.reshape(z.shape[0], -1, z.shape[-1])
        measures = {
            'embedding_std_min': smallest, 'embedding_std_mean': mean, 'effective_rank': effective_rank(z[0, :, 0]),
            'alignment': alignment(z[0, :, 0], z[0, :, 1]), 'uniformity': uniformity(z[0, :, 0]),
            'order_agreement': order_agreement(flat),
        }
        if self.has_labels:
            per_video = features.mean(2)  # of both clips
            measures['knn_accuracy'] = knn_accuracy(np.concatenate([unit(x) for x in per_video[:2]], axis=1), labels)
        warn_of_collapse(measures)
        return {f'health/{name}': value for name, value in measures.items()}


def _embed(variables, batch, *, networks: Networks, spec: Augmentation, max_order: int):
    """Features and embeddings of all orders, (K, B, 2, D) each, and the labels."""
    clips, dtype = batch['clips'], jnp.float32
    pixels = centre_crop(clips.reshape(-1, *clips.shape[2:]), jnp.repeat(batch['size'], 2, axis=0), spec, dtype)
    stack = derivative_stack(pixels, max_order)
    features = networks.encoder.apply(variables['encoder'], jnp.concatenate(stack), train=False)
    z = networks.projector.apply(variables['projector'], features, train=False)
    shape = (len(stack), clips.shape[0], 2, -1)
    return features.astype(dtype).reshape(shape), z.astype(dtype).reshape(shape), batch['label']


def warn_of_collapse(measures: dict[str, float]) -> None:
    """Logs what to try if the embeddings have (nearly) become one point, or one line."""
    if measures['embedding_std_mean'] < COLLAPSED_STD or measures['effective_rank'] < COLLAPSED_RANK:
        logger.warning(
            'THE EMBEDDINGS COLLAPSE (mean std %.3f, effective rank %.1f): try a lower config.optimizer.base_rate, a '
            'longer warm-up or a larger batch; with VICReg a larger weight of the variance term, with BYOL a slower '
            'target (framework.ema_base) or a faster predictor (optimizer.predictor_rate).',
            measures['embedding_std_mean'], measures['effective_rank'])
