"""What `config.model` describes: the encoder and the dtype that it computes in, on devices of a kind.

`device` is one of them, see `vididi_jax.train.mesh.first_device`; it need not be one of this machine.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vididi_jax.models import create_encoder

DTYPES = ('auto', 'float32', 'bfloat16', 'float64')
AMPERE = 8  # the first compute capability of NVIDIA's GPUs that has arithmetic in bfloat16


def compute_dtype(model, device: jax.Device) -> jnp.dtype:
    """Dtype of the activations: 'auto' is bfloat16 where `has_bfloat16`, and float32 elsewhere."""
    if model.dtype == 'auto':
        return jnp.dtype(jnp.bfloat16 if has_bfloat16(device) else jnp.float32)
    return jnp.dtype(model.dtype)


def has_bfloat16(device: jax.Device) -> bool:
    """Whether a device computes in bfloat16: TPUs, GPUs but for NVIDIA's before Ampere (T4, V100), and no CPU.

    Elsewhere compilers compute in float32 and round, which is less exact than float32 alone, and on a CPU slower.
    """
    capability = str(getattr(device, 'compute_capability', ''))  # such as '7.5'; of AMD's, 'gfx90a'
    number = capability.partition('.')[0]
    return device.platform != 'cpu' and not (number.isdigit() and int(number) < AMPERE)


def build_encoder(model, device: jax.Device) -> nn.Module:
    """The encoder that `config.model` describes."""
    return create_encoder(
        model.name, width=model.width, dtype=compute_dtype(model, device),
        conv_impl=model.conv_impl, remat=model.remat, platform=device.platform)
