"""A detector: an encoder with a head on boxes, its loss and its step.

Reference: Gu et al., AVA, CVPR 2018; Feichtenhofer et al., SlowFast, ICCV 2019, section 5 (the head).
"""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from vididi_jax.collectives import gather
from vididi_jax.models.classifier import Classifier
from vididi_jax.models.roi_align import roi_align
from vididi_jax.pixels.augment import Augmentation
from vididi_jax.pixels.boxes import augment_with_boxes
from vididi_jax.schedule import order_name
from vididi_jax.train.state import TrainState
from vididi_jax.train.update import compile_update


@dataclass(frozen=True)
class Detector(Classifier):
    """A `Classifier` of boxes, several classes each: `logits = Linear(dropout(max_{i,j} RoIAlign(mean_t map)_{ij}))`.

    Attributes:
      roi_size: height and width of what RoIAlign gives.
      sampling_ratio: see `roi_align`.
    """

    roi_size: int
    sampling_ratio: int

    def features(self, variables: dict, view: jax.Array, train: bool, *, boxes: jax.Array):
        """(Features (B, M, D), BatchNorm statistics after them) of boxes (B, M, 4), shares of the view."""
        maps, stats = self.encode(variables, view, train, 'feature_map')
        maps = maps.astype(self.dtype).mean(1)
        found = roi_align(maps, boxes * view.shape[2], output_size=self.roi_size,
                          spatial_scale=1 / self.encoder.spatial_stride, sampling_ratio=self.sampling_ratio)
        return found.max((2, 3)), stats

    def __call__(self, variables: dict, pixels: jax.Array, boxes: jax.Array) -> dict[int, jax.Array]:
        """{order: probability of each class (B, M, classes)} in evaluation mode."""
        found, _ = self.logits(variables, pixels, train=False, boxes=boxes)
        return {order: nn.sigmoid(value) for order, value in found.items()}


def box_loss(logits: jax.Array, labels: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean over the boxes that `mask` names and over the classes of the sigmoid cross-entropy; 0 without a box.

    Args:
      logits: (B, M, C).
      labels: (B, M, C), bool.
      mask: (B, M), bool.
    """
    losses = optax.sigmoid_binary_cross_entropy(logits, labels.astype(logits.dtype)).mean(-1)
    return jnp.where(mask, losses, 0).sum() / jnp.maximum(mask.sum(), 1)


def make_step(
    model: Detector, optimizer: optax.GradientTransformation, rate: optax.Schedule, spec: Augmentation, mesh: Mesh,
):
    """Build `step`, see `loop.Task`: the mean of the heads' `box_loss`."""

    def loss_fn(params, state, batch, key):
        pixels, boxes, labels, mask = batch
        variables = {'params': params, 'batch_stats': state.batch_stats}
        found, stats = model.logits(variables, pixels, True, key, boxes=boxes)
        found, labels, mask = jax.tree.map(gather, (found, labels, mask))
        losses = {f'loss_{order_name(order)}': box_loss(value, labels, mask) for order, value in found.items()}
        return sum(losses.values()) / len(losses), ({**losses, 'boxes': mask.sum()}, stats)

    update = compile_update(loss_fn, optimizer, rate, mesh)

    def step(
        state: TrainState, batch: dict[str, jax.Array], key: jax.Array, orders: tuple[int, ...],
        previous_finite=np.True_,
    ):
        del orders  # always those of the heads
        augment_key, dropout_key = jax.random.split(key)
        pixels, boxes, mask = augment_with_boxes(
            augment_key, batch['clips'][:, 0], batch['size'], batch['boxes'], batch['mask'], spec)
        return update(state, (pixels, boxes, batch['labels'], mask), dropout_key, previous_finite=previous_finite)

    return step
