"""Batch normalisation as PyTorch defines it, over the global batch; and what follows it."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from vididi_jax.collectives import as_varying, devices, gather


@jax.custom_jvp
def relu(x: jax.Array) -> jax.Array:
    """`max(x, 0)`. Its derivative is told by the result, which the next layer keeps anyway: nothing else is kept."""
    return jnp.maximum(x, 0)


@relu.defjvp
def _relu_jvp(primals, tangents):
    y = relu(*primals)
    return y, jnp.where(y > 0, *tangents, 0)


def moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and (biased) variance of x (V, ..., C) over all axes but the first and the last, and over all devices.

    In at least float32, in two passes over a device's part. Devices tell each other the mean and the variance of their
    parts, so that one exchange is enough and no digits cancel: the variance of all is the mean of the variances and
    the variance of the means (Chan, Golub and LeVeque, 1983). Their parts have the same size.

    Returns:
      Two arrays (V, C).
    """
    axes = tuple(range(1, x.ndim - 1))
    x = x.astype(np.promote_types(x.dtype, jnp.float32))
    mean = checkpoint_name(x.mean(axes), 'moments')  # kept, and what is exchanged: no backward pass sums or asks again
    var = jnp.square(x - jnp.expand_dims(mean, axes)).mean(axes)
    means, variances = checkpoint_name(gather(jnp.stack([mean, var])[:, None], axis=1), 'moments')
    mean = means.mean(0)
    return mean, variances.mean(0) + jnp.square(means - mean[None]).mean(0)


class BatchNorm(nn.Module):
    """`y = (x - mean) / sqrt(variance + epsilon) * scale + bias`, per channel (last axis).

    In training mode mean and (biased) variance are those of the batch; the running statistics move by
    `1 - momentum` towards the batch's mean and its UNBIASED variance, as in torch.nn.BatchNorm. Of several views in
    one batch each has its own statistics, and the running ones see one after the other. Inside of `jax.shard_map`
    statistics are over the batch of all devices (synchronised BatchNorm), without further ado, see `moments`.

    Attributes:
      epsilon: added to the variance.
      momentum: share of the old running statistics that stays; 1 - PyTorch's momentum.

    Variables: params `scale`, `bias` (C,); batch_stats `mean`, `var` (C,); moments, where they are mutable, the same of
    each view alone, (V, C).

    Reference: Ioffe and Szegedy, "Batch Normalization", ICML 2015; torch.nn.BatchNorm3d.
    """

    epsilon: float = 1e-5
    momentum: float = 0.9

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, views: int = 1) -> jax.Array:
        """(B, ..., C) -> the same.

        Args:
          x: the batch.
          train: whether to normalise by the statistics of the batch, else by the running ones.
          views: how many views, of equal size, a training batch is made of, one after the other; static.
        """
        dtype = np.promote_types(x.dtype, jnp.float32)
        shape = x.shape[-1:]
        scale = self.param('scale', nn.initializers.ones, shape, dtype)
        bias = self.param('bias', nn.initializers.zeros, shape, dtype)
        running_mean = self.variable('batch_stats', 'mean', jnp.zeros, shape, dtype)
        running_var = self.variable('batch_stats', 'var', jnp.ones, shape, dtype)
        parts = x.reshape(views if train else 1, -1, *x.shape[1:])
        if train:
            mean, var = moments(parts)
            if not self.is_initializing():
                count = devices() * parts[0].size // x.shape[-1]
                unbiased = var * (count / max(count - 1, 1))
                for name, running, values in (('mean', running_mean, mean), ('var', running_var, unbiased)):
                    values = lax.stop_gradient(values)
                    for value in values:
                        running.value = self.momentum * running.value + (1 - self.momentum) * value
                    self.sow('moments', name, values, init_fn=tuple, reduce_fn=lambda _, new: new)
            # As one array, so that the gradient is one exchange, too.
            mean, var = checkpoint_name(as_varying(jnp.stack([mean, var])), 'moments')
        else:
            mean, var = running_mean.value[None], running_var.value[None]
        factor = scale[None] * lax.rsqrt(var + self.epsilon)
        axes = tuple(range(1, parts.ndim - 1))
        factor, offset = (jnp.expand_dims(value, axes) for value in (factor, bias[None] - mean * factor))
        return (parts.astype(dtype) * factor + offset).astype(x.dtype).reshape(x.shape)
