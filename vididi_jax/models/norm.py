"""Batch normalisation as PyTorch defines it, over the global batch."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax


class BatchNorm(nn.Module):
    """`y = (x - mean) / sqrt(variance + epsilon) * scale + bias`, per channel (last axis).

    In training mode mean and (biased) variance are those of the batch; the running statistics move by
    `1 - momentum` towards the batch's mean and its UNBIASED variance, as in torch.nn.BatchNorm. Under jit with a batch
    sharded over devices the statistics are over the whole of it (synchronised BatchNorm), without further ado. They
    are computed in two passes, in at least float32.

    Attributes:
      epsilon: added to the variance.
      momentum: share of the old running statistics that stays; 1 - PyTorch's momentum.

    Variables: params `scale`, `bias` (C,); batch_stats `mean`, `var` (C,); moments, where they are mutable, the same of
    the batch alone.

    Reference: Ioffe and Szegedy, "Batch Normalization", ICML 2015; torch.nn.BatchNorm3d.
    """

    epsilon: float = 1e-5
    momentum: float = 0.9

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        dtype = jnp.promote_types(x.dtype, jnp.float32)
        shape = x.shape[-1:]
        scale = self.param('scale', nn.initializers.ones, shape, dtype)
        bias = self.param('bias', nn.initializers.zeros, shape, dtype)
        running_mean = self.variable('batch_stats', 'mean', jnp.zeros, shape, dtype)
        running_var = self.variable('batch_stats', 'var', jnp.ones, shape, dtype)
        if train:
            axes = tuple(range(x.ndim - 1))
            wide = x.astype(dtype)
            mean = wide.mean(axes)
            var = jnp.square(wide - mean).mean(axes)
            if not self.is_initializing():
                count = x.size // x.shape[-1]
                unbiased = var * (count / max(count - 1, 1))
                for name, running, value in (('mean', running_mean, mean), ('var', running_var, unbiased)):
                    value = lax.stop_gradient(value)
                    running.value = self.momentum * running.value + (1 - self.momentum) * value
                    self.sow('moments', name, value, init_fn=tuple, reduce_fn=lambda _, new: new)
        else:
            mean, var = running_mean.value, running_var.value
        factor = scale * lax.rsqrt(var + self.epsilon)
        return (x.astype(dtype) * factor + (bias - mean * factor)).astype(x.dtype)
