"""S3D, the separable Inception network (Xie et al., ECCV 2018), as torchvision builds it."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from vididi_jax.errors import UserError
from vididi_jax.models import LEAST_FRAMES
from vididi_jax.models.norm import BatchNorm, relu
from vididi_jax.models.resnet3d import Conv3D, recomputing

Triple = tuple[int, int, int]

uniform_fan_in = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')  # within 1 / sqrt(fan_in): PyTorch's

# Channels at width 64 of each block: branch 0; branch 1 reduced, out; branch 2 reduced, out; branch 3.
STAGES = (
    {'mixed3b': (64, 96, 128, 16, 32, 32), 'mixed3c': (128, 128, 192, 32, 96, 64)},
    {'mixed4b': (192, 96, 208, 16, 48, 64), 'mixed4c': (160, 112, 224, 24, 64, 64),
     'mixed4d': (128, 128, 256, 24, 64, 64), 'mixed4e': (112, 144, 288, 32, 64, 64),
     'mixed4f': (256, 160, 320, 32, 128, 128)},
    {'mixed5b': (256, 160, 320, 32, 128, 128), 'mixed5c': (384, 192, 384, 48, 128, 128)},
)


def max_pool(x: jax.Array, kernel: Triple, stride: Triple, padding: Triple) -> jax.Array:
    """Maximum over windows of time, height and width; the padding never wins.

    `y[b, t, i, j, c] = max_{d, u, v} x[b, t s_t + d - p_t, i s_h + u - p_h, j s_w + v - p_w, c]`

    One axis after the other, as maxima of shifted slices: XLA's windowed maximum has a slow gradient. Where several
    elements share the maximum, they share the gradient.

    Args:
      x: (B, T, H, W, C), floating point.
      kernel, stride, padding: of (time, height, width).

    Returns:
      (B, T', H', W', C), dtype of `x`; empty if a window is larger than the padded input.
    """
    for axis, (k, s, p) in enumerate(zip(kernel, stride, padding, strict=True), start=1):
        if k == 1 and s == 1:
            continue
        size = max((x.shape[axis] + 2 * p - k) // s + 1, 0)
        edges = [(p if i == axis else 0,) * 2 for i in range(x.ndim)]
        padded = jnp.pad(x, edges, constant_values=-jnp.inf)
        if not size:
            x = lax.slice_in_dim(padded, 0, 0, axis=axis)
            continue
        x = lax.slice_in_dim(padded, 0, (size - 1) * s + 1, s, axis)
        for shift in range(1, k):
            x = jnp.maximum(x, lax.slice_in_dim(padded, shift, shift + (size - 1) * s + 1, s, axis))
    return x


class ConvNorm(nn.Module):
    """Convolution, BatchNorm, ReLU.

    Attributes:
      features: output channels.
      kernel, stride: of (time, height, width); padded by half the kernel.
      dtype, impl: see `Conv3D`.
    """

    features: int
    kernel: Triple
    stride: Triple
    dtype: jnp.dtype
    impl: str

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, views: int = 1) -> jax.Array:
        x = Conv3D(self.features, self.kernel, self.stride, self.dtype, self.impl, uniform_fan_in, name='conv')(x)
        return relu(BatchNorm(epsilon=1e-3, momentum=0.999, name='norm')(x, train=train, views=views))


class SeparableConv(nn.Module):
    """A convolution over space, then one over time, each with BatchNorm and ReLU.

    Attributes:
      features: output channels of both.
      size, stride: of either kernel.
    """

    features: int
    size: int
    stride: int
    dtype: jnp.dtype
    impl: str

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, views: int = 1) -> jax.Array:
        k, s, rest = self.size, self.stride, (self.dtype, self.impl)
        x = ConvNorm(self.features, (1, k, k), (1, s, s), *rest, name='spatial')(x, train=train, views=views)
        return ConvNorm(self.features, (k, 1, 1), (s, 1, 1), *rest, name='temporal')(x, train=train, views=views)


class InceptionBlock(nn.Module):
    """Four branches, their channels joined: 1x1x1; 1x1x1 then separable 3x3x3, twice; max-pool then 1x1x1.

    Attributes:
      channels: of the branches, in the order of `STAGES`.
    """

    channels: tuple[int, ...]
    dtype: jnp.dtype
    impl: str

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, views: int = 1) -> jax.Array:
        rest = (self.dtype, self.impl)

        def pointwise(features, name, inputs):
            return ConvNorm(features, (1, 1, 1), (1, 1, 1), *rest, name=name)(inputs, train=train, views=views)

        direct, reduce1, out1, reduce2, out2, pooled = self.channels
        branches = [pointwise(direct, 'branch0', x)]
        for number, reduced, out in ((1, reduce1, out1), (2, reduce2, out2)):
            y = pointwise(reduced, f'branch{number}_reduce', x)
            branches.append(SeparableConv(out, 3, 1, *rest, name=f'branch{number}')(y, train=train, views=views))
        y = checkpoint_name(max_pool(x, (3, 3, 3), (1, 1, 1), (1, 1, 1)), 'pool')
        branches.append(pointwise(pooled, 'branch3', y))
        return jnp.concatenate(branches, axis=-1)


class S3D(nn.Module):
    """Separable stem, nine Inception blocks in three stages, global average (torchvision's head pools 2x7x7 instead).

    Attributes:
      width: channels of the stem; scales all channels, rounded down. 64 is the published network.
      dtype: of the computation.
      conv_impl: see `conv3d`.
      remat: see `recomputing`.
      last_stride: of space, and height and width of the window, in the last max-pool.

    Variables: params `stem/...`, `conv2/...`, `conv3/...`, `mixed{3b..5c}/branch{0..3}/...` with kernels
    (kt, kh, kw, in, out) and BatchNorm's `scale`, `bias`; batch_stats the same paths with `mean`, `var`.
    """

    width: int = 64
    dtype: jnp.dtype = jnp.float32
    conv_impl: str = 'auto'
    remat: bool = False
    last_stride: int = 2

    @property
    def feature_dim(self) -> int:
        """Length of the feature."""
        return 16 * self.width

    @property
    def spatial_stride(self) -> int:
        """Input pixels from a cell of the feature map to the next."""
        return 16 * self.last_stride

    @nn.compact
    def feature_map(self, clips: jax.Array, train: bool = False, views: int = 1) -> jax.Array:
        """(B, T, H, W, 3) -> (B, T', H', W', feature_dim), before pooling; `train` and `views` as of `BatchNorm`.

        Raises:
          UserError: clips of fewer than 5 frames or smaller than 17 x 17, of which the pools leave nothing.
        """
        if clips.shape[1] < LEAST_FRAMES['s3d'] or min(clips.shape[2:4]) < 17:
            raise UserError(f's3d got clips of {clips.shape[1]} frames of {clips.shape[2]} x {clips.shape[3]}: '
                            f'it needs at least {LEAST_FRAMES["s3d"]} frames of 17 x 17.')
        rest = (self.dtype, self.conv_impl)
        block = recomputing(InceptionBlock, self.remat)

        def scaled(channels: int) -> int:
            return max(channels * self.width // 64, 1)

        x = SeparableConv(scaled(64), 7, 2, *rest, name='stem')(clips.astype(self.dtype), train=train, views=views)
        x = max_pool(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))
        x = ConvNorm(scaled(64), (1, 1, 1), (1, 1, 1), *rest, name='conv2')(x, train=train, views=views)
        x = SeparableConv(scaled(192), 3, 1, *rest, name='conv3')(x, train=train, views=views)
        last = (2, self.last_stride, self.last_stride)
        pools = (((1, 3, 3), (1, 2, 2), (0, 1, 1)), ((3, 3, 3), (2, 2, 2), (1, 1, 1)), (last, last, (0, 0, 0)))
        for pool, stage in zip(pools, STAGES, strict=True):
            x = max_pool(x, *pool)
            for name, channels in stage.items():
                x = block(tuple(map(scaled, channels)), *rest, name=name)(x, train, views)
        return x

    def __call__(self, clips: jax.Array, train: bool = False, views: int = 1) -> jax.Array:
        """(B, T, H, W, 3) normalised float clips -> (B, feature_dim)."""
        return self.feature_map(clips, train, views).mean((1, 2, 3))
