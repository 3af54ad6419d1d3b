"""Video ResNets of 18 layers: R3D, R(2+1)D and MC3 (Tran et al., CVPR 2018), as torchvision builds them."""

from collections.abc import Callable
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name

from vididi_jax.models.conv3d import conv3d
from vididi_jax.models.norm import BatchNorm, relu

kaiming_fan_out = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')


class Conv3D(nn.Module):
    """Convolution without bias, padded by half its kernel. Parameter `kernel` (kt, kh, kw, C, O).

    Attributes:
      features: output channels O.
      kernel: (kt, kh, kw).
      stride: (st, sh, sw).
      dtype: of the computation; the kernel is kept in at least float32.
      impl: see `conv3d`.
      initializer: of the kernel.
    """

    features: int
    kernel: tuple[int, int, int]
    stride: tuple[int, int, int] = (1, 1, 1)
    dtype: jnp.dtype = jnp.float32
    impl: str = 'auto'
    initializer: Callable = kaiming_fan_out

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (*self.kernel, x.shape[-1], self.features)
        w = self.param('kernel', self.initializer, shape, np.promote_types(self.dtype, jnp.float32))
        padding = tuple(k // 2 for k in self.kernel)
        y = conv3d(x.astype(self.dtype), w.astype(self.dtype), self.stride, padding, self.impl)
        return checkpoint_name(y, 'convolution')


def recomputing(block: type[nn.Module], remat: bool) -> type[nn.Module]:
    """A block, called with (x, train, views), that keeps less for its backward pass and computes it there again.

    What is cheap, which is normalised activations; with `remat` all but its input and the statistics, for which devices
    have to ask each other.
    """
    kept = ('moments',) if remat else ('moments', 'convolution', 'pool')
    return nn.remat(block, static_argnums=(2, 3), policy=jax.checkpoint_policies.save_only_these_names(*kept))


def mid_planes(inputs: int, outputs: int) -> int:
    """Channels between the two halves of a factorised 3x3x3 convolution: as many parameters as the whole one."""
    return (inputs * outputs * 27) // (inputs * 9 + 3 * outputs)


class Convolution(nn.Module):
    """The 3x3x3 convolution of a block in the way of its network.

    Attributes:
      kind: '3d' 3x3x3; '2d' 1x3x3; '2plus1d' 1x3x3, BatchNorm, ReLU, 3x1x1 over `mid` channels.
      features: output channels.
      stride: of time and of space; '2d' leaves time as it is.
      mid: channels between the halves of '2plus1d'.
    """

    kind: str
    features: int
    stride: tuple[int, int]
    mid: int
    dtype: jnp.dtype
    impl: str

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, views: int = 1) -> jax.Array:
        (t, s), options = self.stride, dict(dtype=self.dtype, impl=self.impl)
        if self.kind == '3d':
            return Conv3D(self.features, (3, 3, 3), (t, s, s), **options, name='conv')(x)
        if self.kind == '2d':
            return Conv3D(self.features, (1, 3, 3), (1, s, s), **options, name='conv')(x)
        x = Conv3D(self.mid, (1, 3, 3), (1, s, s), **options, name='spatial')(x)
        x = relu(BatchNorm(name='norm')(x, train=train, views=views))
        return Conv3D(self.features, (3, 1, 1), (t, 1, 1), **options, name='temporal')(x)


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut: `relu(x' + BN(conv2(relu(BN(conv1(x))))))`."""

    kind: str
    features: int
    stride: tuple[int, int]
    dtype: jnp.dtype
    impl: str

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, views: int = 1) -> jax.Array:
        mid = mid_planes(x.shape[-1], self.features)  # both convolutions use the first one's
        options = dict(mid=mid, dtype=self.dtype, impl=self.impl)
        y = Convolution(self.kind, self.features, self.stride, **options, name='conv1')(x, train=train, views=views)
        y = relu(BatchNorm(name='norm1')(y, train=train, views=views))
        y = Convolution(self.kind, self.features, (1, 1), **options, name='conv2')(y, train=train, views=views)
        y = BatchNorm(name='norm2')(y, train=train, views=views)
        if self.stride != (1, 1) or x.shape[-1] != self.features:
            t, s = self.stride
            stride = (1 if self.kind == '2d' else t, s, s)
            x = Conv3D(self.features, (1, 1, 1), stride, self.dtype, self.impl, name='shortcut')(x)
            x = BatchNorm(name='shortcut_norm')(x, train=train, views=views)
        return relu(x + y)


class Stem(nn.Module):
    """First layers: 3x7x7 (1x7x7 then 3x1x1 if `factorised`), spatial stride 2, no pooling."""

    features: int
    factorised: bool
    dtype: jnp.dtype
    impl: str

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, views: int = 1) -> jax.Array:
        options = dict(dtype=self.dtype, impl=self.impl)
        if not self.factorised:
            x = Conv3D(self.features, (3, 7, 7), (1, 2, 2), **options, name='conv')(x)
            return relu(BatchNorm(name='norm')(x, train=train, views=views))
        middle = max(45 * self.features // 64, 1)
        x = Conv3D(middle, (1, 7, 7), (1, 2, 2), **options, name='spatial')(x)
        x = relu(BatchNorm(name='spatial_norm')(x, train=train, views=views))
        x = Conv3D(self.features, (3, 1, 1), **options, name='temporal')(x)
        return relu(BatchNorm(name='temporal_norm')(x, train=train, views=views))


class VideoResNet(nn.Module):
    """Stem, four stages of two blocks, global average.

    Attributes:
      kinds: `Convolution` kind of each stage.
      width: channels of the first stage; stage s has `width * 2**s`.
      dtype: of the computation.
      conv_impl: see `conv3d`.
      remat: see `recomputing`.
      last_stride: of space, in the last stage.

    Variables: params `stem/...`, `stage{1..4}_block{0,1}/...` with kernels (kt, kh, kw, in, out) and BatchNorm's
    `scale`, `bias`; batch_stats the same paths with `mean`, `var`.
    """

    kinds: tuple[str, str, str, str]
    width: int = 64
    dtype: jnp.dtype = jnp.float32
    conv_impl: str = 'auto'
    remat: bool = False
    last_stride: int = 2

    blocks: ClassVar[int] = 2

    @property
    def feature_dim(self) -> int:
        """Length of the feature."""
        return 8 * self.width

    @property
    def spatial_stride(self) -> int:
        """Input pixels from a cell of the feature map to the next."""
        return 8 * self.last_stride

    @nn.compact
    def feature_map(self, clips: jax.Array, train: bool = False, views: int = 1) -> jax.Array:
        """(B, T, H, W, 3) -> (B, T', H', W', feature_dim), before pooling; `train` and `views` as of `BatchNorm`."""
        options = dict(dtype=self.dtype, impl=self.conv_impl)
        block = recomputing(BasicBlock, self.remat)
        stem = Stem(self.width, self.kinds[0] == '2plus1d', **options, name='stem')
        x = stem(clips.astype(self.dtype), train=train, views=views)
        strides = ((1, 1), (2, 2), (2, 2), (2, self.last_stride))
        for stage, (kind, stride) in enumerate(zip(self.kinds, strides, strict=True)):
            for i in range(self.blocks):
                name = f'stage{stage + 1}_block{i}'
                x = block(kind, self.width * 2**stage, (1, 1) if i else stride, **options, name=name)(x, train, views)
        return x

    def __call__(self, clips: jax.Array, train: bool = False, views: int = 1) -> jax.Array:
        """(B, T, H, W, 3) normalised float clips -> (B, feature_dim)."""
        return self.feature_map(clips, train, views).mean((1, 2, 3))
