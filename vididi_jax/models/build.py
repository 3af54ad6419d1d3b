"""What `config.model` describes: the encoder and the dtype that it computes in."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vididi_jax.errors import UserError
from vididi_jax.models import create_encoder

DTYPES = ('auto', 'float32', 'bfloat16', 'float64')


def compute_dtype(model) -> jnp.dtype:
    """Dtype of the activations: 'auto' is bfloat16 on GPU and TPU, and float32 on a CPU, where bfloat16 is slower."""
    if model.dtype not in DTYPES:
        raise UserError(f'model.dtype is {model.dtype!r}: choose one of {", ".join(DTYPES)}.')
    if model.dtype == 'auto':
        return jnp.dtype(jnp.float32 if jax.default_backend() == 'cpu' else jnp.bfloat16)
    return jnp.dtype(model.dtype)


def build_encoder(model, **options) -> nn.Module:
    """The encoder that `config.model` describes; `options` of `create_encoder` besides."""
    return create_encoder(
        model.name, width=model.width, dtype=compute_dtype(model), conv_impl=model.conv_impl, remat=model.remat,
        **options)
