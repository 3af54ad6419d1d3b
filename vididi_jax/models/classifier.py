"""An encoder with classification heads, one a derivative order."""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from vididi_jax.collectives import devices, own_rows
from vididi_jax.derivatives import time_derivative


@dataclass(frozen=True)
class Classifier:
    """An encoder with a head for each derivative order: `logits = Linear(dropout(encoder(D^order clip)))`.

    Attributes:
      encoder: the linen module.
      orders: derivative orders that have a head.
      classes: outputs of a head.
      dropout: probability, in training.
      frozen: whether the encoder stays as it is, BatchNorm statistics included.
    """

    encoder: nn.Module
    orders: tuple[int, ...]
    classes: int
    dropout: float
    frozen: bool

    @property
    def dtype(self) -> jnp.dtype:
        """Of the heads and logits: at least float32, whatever the encoder computes in."""
        return jnp.promote_types(self.encoder.dtype, jnp.float32)

    def head(self) -> nn.Dense:
        return nn.Dense(self.classes, dtype=self.dtype, param_dtype=self.dtype)

    def init(self, key: jax.Array, clip_shape: tuple[int, int, int]) -> dict:
        """'params' of 'encoder' and 'head0', ..., 'batch_stats' of 'encoder'; `clip_shape` is (T, H, W)."""
        encoder_key, *keys = jax.random.split(key, 1 + len(self.orders))
        encoder = self.encoder.init(encoder_key, jnp.zeros((1, *clip_shape, 3), self.encoder.dtype))
        features = jnp.zeros((1, self.encoder.feature_dim), self.dtype)
        heads = {f'head{order}': self.head().init(k, features)['params']
                 for order, k in zip(self.orders, keys, strict=True)}
        return {'params': {'encoder': encoder['params'], **heads}, 'batch_stats': {'encoder': encoder['batch_stats']}}

    def encode(self, variables: dict, view: jax.Array, train: bool, method: str = '__call__'):
        """(What `method` of the encoder gives, BatchNorm statistics after it)."""
        if not train:
            return self.encoder.apply(variables, view, train=False, method=method), variables['batch_stats']
        found, moved = self.encoder.apply(variables, view, train=True, method=method, mutable=['batch_stats'])
        return found, moved['batch_stats']

    def features(self, variables: dict, view: jax.Array, train: bool):
        """(Features (B, D), BatchNorm statistics after them) of a view (B, T', H, W, 3)."""
        return self.encode(variables, view, train)

    def logits(self, variables: dict, pixels: jax.Array, train: bool, key: jax.Array | None = None, **regions):
        """({order: (B, classes)}, BatchNorm statistics after it) of normalised clips (B, T, H, W, 3).

        `regions` are given on to `features`.
        """
        params, stats = variables['params'], variables['batch_stats']['encoder']
        found = {}
        for order in self.orders:
            encoder = {'params': params['encoder'], 'batch_stats': stats}
            view = time_derivative(pixels, order)
            features, stats = self.features(encoder, view, train and not self.frozen, **regions)
            features = jax.lax.stop_gradient(features) if self.frozen else features
            if train and self.dropout:
                # Drawn in float32 whatever the features are: another dtype would use other bits.
                shape = (devices() * len(features), *features.shape[1:])
                drawn = jax.random.uniform(jax.random.fold_in(key, order), shape, jnp.float32)
                features = jnp.where(own_rows(drawn) < self.dropout, 0, features / (1 - self.dropout))
            found[order] = self.head().apply({'params': params[f'head{order}']}, features.astype(self.dtype))
        return found, {'encoder': stats}

    def __call__(self, variables: dict, pixels: jax.Array) -> dict[int, jax.Array]:
        """{order: class probabilities (B, classes)} in evaluation mode."""
        found, _ = self.logits(variables, pixels, train=False)
        return {order: nn.softmax(value) for order, value in found.items()}
