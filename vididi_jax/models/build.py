"""What `config.model` describes: the encoder and the dtype that it computes in, on the platform of the devices.

`platform` is 'cpu', 'gpu' or 'tpu', see `vididi_jax.train.mesh.platform`; it need not be that of this machine.
"""

import flax.linen as nn
import jax.numpy as jnp

from vididi_jax.models import create_encoder

DTYPES = ('auto', 'float32', 'bfloat16', 'float64')


def compute_dtype(model, platform: str) -> jnp.dtype:
    """Dtype of the activations: 'auto' is bfloat16 on GPU and TPU, and float32 on a CPU, where bfloat16 is slower."""
    if model.dtype == 'auto':
        return jnp.dtype(jnp.float32 if platform == 'cpu' else jnp.bfloat16)
    return jnp.dtype(model.dtype)


def build_encoder(model, platform: str) -> nn.Module:
    """The encoder that `config.model` describes."""
    return create_encoder(
        model.name, width=model.width, dtype=compute_dtype(model, platform),
        conv_impl=model.conv_impl, remat=model.remat, platform=platform)
