"""Projectors and predictors: multi-layer perceptrons on features."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vididi_jax.models.norm import BatchNorm, relu


class MLP(nn.Module):
    """Blocks of Linear-BatchNorm-ReLU, then one plain Linear.

    Linear layers that BatchNorm follows have no bias, which it would remove; the last one has.

    Attributes:
      features: widths of the layers, the last one that of the output.
      dtype: of the computation; parameters have at least float32.

    Reference: Chen et al., CPAL 2025, appendix (projectors); Bardes et al., VICReg, ICLR 2022, section 4.2.
    """

    features: tuple[int, ...]
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False, views: int = 1) -> jax.Array:
        """(N, D) -> (N, features[-1]), in `dtype`; `train` and `views` as `BatchNorm` takes them."""
        param_dtype = np.promote_types(self.dtype, jnp.float32)
        for width in self.features[:-1]:
            x = nn.Dense(width, use_bias=False, dtype=self.dtype, param_dtype=param_dtype)(x)
            x = relu(BatchNorm()(x, train=train, views=views))
        return nn.Dense(self.features[-1], dtype=self.dtype, param_dtype=param_dtype)(x)
