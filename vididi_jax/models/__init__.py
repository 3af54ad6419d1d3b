"""Encoders: 3-D convolutional networks from clips to features."""

ENCODERS = ('r3d_18', 'r2plus1d_18', 'mc3_18', 's3d')
LEAST_FRAMES = {'s3d': 5}  # of a clip, where pools leave nothing of a shorter one; 1 for others


def create_encoder(
    name: str, *, width: int = 64, dtype=None, conv_impl: str = 'auto', remat: bool = False, last_stride: int = 2,
    platform: str | None = None,
):
    """An encoder with torchvision's architecture.

    Args:
      name: 'r3d_18', 'r2plus1d_18', 'mc3_18' or 's3d'.
      width: channels of the first stage; scales all channels. 64 is the published network.
      dtype: of the computation, float32 if None; parameters and BatchNorm statistics have at least float32.
      conv_impl: formulation of the convolutions, see `vididi_jax.models.conv3d.conv3d`.
      remat: recompute all activations of a block in the backward pass, to save memory, not only the normalised ones.
      last_stride: spatial stride of the last stage; 1 gives maps of twice the height and width, for detection, with the
        same variables.
      platform: of the devices that it will run on, 'cpu', 'gpu' or 'tpu'; None is JAX's default here.

    Returns:
      A flax.linen module. `variables = encoder.init(key, clips)`, with clips (B, T, H, W, 3);
      `encoder.apply(variables, clips, train=False)` -> features (B, D), with D = `encoder.feature_dim` = 8 * width,
      16 * width for S3D; `method='feature_map'` -> (B, T', H', W', D), whose cells are `encoder.spatial_stride` input
      pixels apart. With `train=True` and `mutable=['batch_stats']` BatchNorm uses and updates the statistics of the
      batch; with `views=2` as well those of each half of it by itself, as of two views.

    Raises:
      UserError: unknown name, a width below 1, another last stride, or a formulation that the platform has not; and by
        `init` and `apply` of S3D, clips of fewer than 5 frames or smaller than 17 x 17.

    Reference: Tran et al., "A Closer Look at Spatiotemporal Convolutions for Action Recognition", CVPR 2018; Xie et
    al., "Rethinking Spatiotemporal Feature Learning", ECCV 2018.
    """
    import jax.numpy as jnp

    from vididi_jax.errors import UserError
    from vididi_jax.models.conv3d import choose_implementation
    from vididi_jax.models.resnet3d import VideoResNet
    from vididi_jax.models.s3d import S3D

    if name not in ENCODERS:
        raise UserError(f'there is no encoder {name!r}: choose one of {", ".join(ENCODERS)}.')
    if width < 1:
        raise UserError(f'model.width is {width}: it must be at least 1.')
    if last_stride not in (1, 2):
        raise UserError(f'last_stride is {last_stride}: it must be 1 or 2.')
    options = (width, jnp.dtype(dtype or jnp.float32), choose_implementation(conv_impl, platform), remat, last_stride)
    if name == 's3d':
        return S3D(*options)
    kinds = {'r3d_18': ('3d',) * 4, 'r2plus1d_18': ('2plus1d',) * 4, 'mc3_18': ('3d', '2d', '2d', '2d')}
    return VideoResNet(kinds[name], *options)
