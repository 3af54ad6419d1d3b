"""What compiled programs are run on: a small encoder in place of a large one, weights, clips and devices."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from vididi_jax.models import create_encoder
from vididi_jax.models.norm import BatchNorm, relu
from vididi_jax.models.resnet3d import Conv3D, recomputing
from vididi_jax.pixels.augment import Augmentation


class Block(nn.Module):
    width: int
    dtype: jnp.dtype
    stride: int

    @nn.compact
    def __call__(self, x, train, views):
        x = Conv3D(self.width, (3, 3, 3), (2, self.stride, self.stride), self.dtype, name='conv')(x)
        return relu(BatchNorm(name='norm')(x, train=train, views=views))


class Small(nn.Module):
    """A convolution, BatchNorm and ReLU, which compile at once, in place of an encoder."""

    width: int
    dtype: jnp.dtype
    remat: bool = False
    last_stride: int = 2

    feature_dim = property(lambda self: 4 * self.width)
    spatial_stride = property(lambda self: 2 * self.last_stride)

    @nn.compact
    def feature_map(self, clips, train=False, views=1):
        block = recomputing(Block, self.remat)(self.feature_dim, self.dtype, self.spatial_stride, name='stem')
        return block(clips.astype(self.dtype), train, views)

    def __call__(self, clips, train=False, views=1):
        return self.feature_map(clips, train, views).mean((1, 2, 3))


def mesh_of(batch) -> Mesh:
    """The devices that a batch lies on."""
    sharding = jax.tree.leaves(batch)[0].sharding
    return sharding.mesh if isinstance(sharding, NamedSharding) else Mesh(np.array(jax.devices()[:1]), ('data',))


def encoder_of(model: dict, dtype, whole: bool, **options) -> nn.Module:
    if not whole:
        return Small(model['width'], dtype, model['remat'])
    return create_encoder(model['name'], width=model['width'], dtype=dtype, conv_impl=model['conv_impl'],
                          remat=model['remat'], **options)


def filled(shapes, seed: int = 0):
    """Numbers for a tree of shapes: weights of about unit gain, positive variances and scales; of counts, 1."""
    rng = np.random.default_rng(seed)

    def fill(path, leaf):
        name = str(getattr(path[-1], 'key', path[-1]))
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return np.ones(leaf.shape, leaf.dtype)
        if name in ('var', 'scale'):
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        value = rng.normal(size=leaf.shape) / np.sqrt(max(np.prod(leaf.shape[:-1]), 1))
        small = any('trace' in str(part) or 'opt_state' in str(part) for part in path)
        return (value * (1e-3 if small else 1)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(fill, shapes)


def clips_of(count: int, *shape: int, seed: int = 0) -> np.ndarray:
    """uint8 (count, *shape, 3): half of them noise, half smooth."""
    rng = np.random.default_rng(seed)
    *lead, height, width = shape
    y, x = np.mgrid[:height, :width] / height
    a, b, p = rng.uniform(-4, 4, (3, count, *lead, 1, 1, 3))
    smooth = 127 + 120 * np.sin(a * y[..., None] + b * x[..., None] + p)
    noise = rng.integers(0, 256, smooth.shape)
    return np.where((np.arange(count) % 2 == 0).reshape(-1, *[1] * (smooth.ndim - 1)), smooth, noise).astype(np.uint8)


def pixels_of(spec: Augmentation, *lead: int, count: int = 8) -> dict[str, np.ndarray]:
    """Clips and sizes that `spec` takes; frames that are cropped differ in size."""
    if spec.crop == 'none':
        height = width = spec.size
        sizes = np.full((count, 2), spec.size)
    else:
        height, width = 24, 31
        sizes = np.random.default_rng(1).integers(16, 25, (count, 2))
    return {'clips': clips_of(count, *lead, height, width), 'size': sizes.astype(np.int32)}
