"""Names and layouts of torchvision.models.video's weights: state dicts into variables of these encoders, and back.

A state dict is {key: numpy array} with torchvision's keys and axes: convolutions (out, in, kt, kh, kw), where the
encoders here have (kt, kh, kw, in, out). The classification head (`fc.*`, `classifier.*`) and BatchNorm's
`num_batches_tracked` are no part of an encoder: reading passes them over, writing leaves them out.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vididi_jax.errors import UserError
from vididi_jax.models import create_encoder

Shape = tuple[int, ...]

SHOWN = 3  # keys of a kind in a message
DTYPES = 'float16', 'bfloat16', 'float32', 'float64'
OUTSIDE = ('fc.', 'classifier.')

# What torchvision's own weights (KINETICS400_V1) were trained on: RGB in [0, 1], and the side of the square clips.
MEAN, STD = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)
SIZES = {'r3d_18': 112, 'r2plus1d_18': 112, 'mc3_18': 112, 's3d': 224}

# Our names -> parts of torchvision's keys; '' where torchvision has no level of its own.
LEAVES = {'kernel': 'weight', 'scale': 'weight', 'bias': 'bias', 'mean': 'running_mean', 'var': 'running_var'}
STEM = {'conv': '0', 'norm': '1', 'spatial': '0', 'spatial_norm': '1', 'temporal': '3', 'temporal_norm': '4'}
BLOCK = {'conv1': 'conv1.0', 'norm1': 'conv1.1', 'conv2': 'conv2.0', 'norm2': 'conv2.1', 'shortcut': 'downsample.0',
         'shortcut_norm': 'downsample.1', 'conv': '', 'spatial': '0', 'norm': '1', 'temporal': '3'}
S3D_LAYERS = ('stem', None, 'conv2', 'conv3', None, 'mixed3b', 'mixed3c', None, 'mixed4b', 'mixed4c', 'mixed4d',
              'mixed4e', 'mixed4f', None, 'mixed5b', 'mixed5c')  # None: a max-pool
S3D = {'spatial': '0', 'temporal': '1', 'conv': '0', 'norm': '1', 'branch0': 'branch0', 'branch1_reduce': 'branch1.0',
       'branch1': 'branch1.1', 'branch2_reduce': 'branch2.0', 'branch2': 'branch2.1', 'branch3': 'branch3.1'}


def _key(name: str, path: tuple[str, ...]) -> str:
    """torchvision's key for a variable, whose path below 'params' or 'batch_stats' is (layer, ..., leaf)."""
    layer, *modules, leaf = path
    if name == 's3d':
        parts = [f'features.{S3D_LAYERS.index(layer)}', *(S3D[module] for module in modules)]
    elif layer == 'stem':
        parts = ['stem', *(STEM[module] for module in modules)]
    else:
        stage, block = layer.removeprefix('stage').split('_block')
        parts = [f'layer{stage}.{block}', *(BLOCK[module] for module in modules)]
    return '.'.join(part for part in (*parts, LEAVES[leaf]) if part)


def _key_of(name: str, path) -> str:
    return _key(name, tuple(entry.key for entry in path[1:]))


@cache
def _abstract_variables(name: str, width: int) -> Any:
    """Shapes of an encoder's variables, without computing any."""
    encoder = create_encoder(name, width=width)
    return jax.eval_shape(encoder.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 8, 32, 32, 3), jnp.float32))


def _torch_shape(shape: Shape) -> Shape:
    return (shape[4], shape[3], *shape[:3]) if len(shape) == 5 else tuple(shape)


def _last_of_stem(name: str) -> str:
    return {'s3d': 'features.0.1.0.weight', 'r2plus1d_18': 'stem.3.weight'}.get(name, 'stem.0.weight')


def width_of(name: str, state_dict: Mapping[str, np.ndarray]) -> int:
    """Width of the encoder that a state dict is of, from the last convolution of its stem; 64 if that is missing."""
    shape = np.shape(state_dict.get(_last_of_stem(name), ()))
    return shape[0] if len(shape) == 5 and shape[0] else 64


def _problems(name: str, state_dict: Mapping[str, np.ndarray]) -> dict[str, list[str]]:
    """What keeps weights from being those of an encoder: {kind of problem: keys}, empty if nothing does."""
    abstract = _abstract_variables(name, width_of(name, state_dict))
    inside = {key: value for key, value in state_dict.items()
              if not key.startswith(OUTSIDE) and not key.endswith('num_batches_tracked')}
    given = {key: np.shape(value) for key, value in inside.items()}
    dtypes = {key: str(getattr(value, 'dtype', 'float64')).rpartition('.')[2] for key, value in inside.items()}
    shapes = {_key_of(name, path): _torch_shape(leaf.shape)
              for path, leaf in jax.tree_util.tree_leaves_with_path(abstract)}
    problems = {
        'missing': [key for key in shapes if key not in given],
        'unexpected': [key for key in given if key not in shapes],
        'of the wrong shape': [f'{key} {given[key]} instead of {shape}' for key, shape in shapes.items()
                               if key in given and given[key] != shape],
        'of no floating-point dtype': [f'{key} {dtype}' for key, dtype in dtypes.items() if dtype not in DTYPES],
    }
    return {what: keys for what, keys in problems.items() if keys}


def _prefix(state_dict: Mapping[str, np.ndarray]) -> str:
    """What all keys of some encoder's weights start with, such as 'module.'; '' if it is no encoder's or nothing."""
    for name in SIZES:
        for key in state_dict:
            prefix = key.removesuffix(_last_of_stem(name))
            inside = {key.removeprefix(prefix): value for key, value in state_dict.items() if key.startswith(prefix)}
            if prefix.endswith('.') and prefix != key and not _problems(name, inside):
                return prefix
    return ''


def from_state_dict(name: str, state_dict: Mapping[str, np.ndarray]) -> dict:
    """Variables of an encoder, from torchvision's weights.

    `kernel[d, u, v, c, o] = weight[o, c, d, u, v]`; everything else is renamed only. The width is read off the
    stem's weights.

    Args:
      name: 'r3d_18', 'r2plus1d_18', 'mc3_18' or 's3d'.
      state_dict: {torchvision's key: array}; head and `num_batches_tracked` may be there or not.

    Returns:
      {'params', 'batch_stats'} of numpy arrays in the dtypes of `state_dict`, for
      `create_encoder(name, width=...).apply`.

    Raises:
      UserError: keys are missing, unexpected, of the wrong shape or of no floating-point dtype (the message lists the
        first ones, or names the encoder that the weights fit, or a prefix of all keys), or there is no encoder `name`.

    Source: the module structure of torchvision.models.video, version 0.29.1.
    """
    if name not in SIZES:
        raise UserError(f'torchvision has no encoder {name!r}: choose one of {", ".join(SIZES)}.')
    width = width_of(name, state_dict)
    if problems := _problems(name, state_dict):
        fitting = [other for other in SIZES if other != name and not _problems(other, state_dict)]
        if fitting:
            raise UserError(f'these weights are those of {fitting[0]}, not those of {name}: give name={fitting[0]}.')
        if prefix := _prefix(state_dict):
            raise UserError(f'the keys of these weights start with {prefix!r}: write them without it, as {name} of '
                            'torchvision has them.')
        told = '; '.join(f'{len(keys)} {what}: {", ".join(keys[:SHOWN])}' + (', ...' if len(keys) > SHOWN else '')
                         for what, keys in problems.items())
        raise UserError(f'these weights are not those of {name} of width {width}: {told}.')

    def take(path, _):
        value = np.asarray(state_dict[_key_of(name, path)])
        return np.ascontiguousarray(value.transpose(2, 3, 4, 1, 0) if value.ndim == 5 else value)

    return jax.tree_util.tree_map_with_path(take, _abstract_variables(name, width))


def to_state_dict(name: str, variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """torchvision's weights, from the variables of an encoder: the inverse of `from_state_dict`.

    `weight[o, c, d, u, v] = kernel[d, u, v, c, o]`; everything else is renamed only.

    Args:
      name: 'r3d_18', 'r2plus1d_18', 'mc3_18' or 's3d'.
      variables: {'params', 'batch_stats'} of an encoder of any width.

    Returns:
      {torchvision's key: numpy array} in the dtypes of `variables`. PyTorch's `load_state_dict(strict=True)` takes it
      for a model whose head is `torch.nn.Identity()` (it adds `num_batches_tracked` by itself).

    Raises:
      UserError: the variables are not those of an encoder `name`.

    Source: the module structure of torchvision.models.video, version 0.29.1.
    """
    state_dict = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(dict(variables)):
        kind, *names = (entry.key for entry in path)
        try:
            key = _key(name, tuple(names))
        except (KeyError, ValueError) as error:
            raise UserError(f'{kind}/{"/".join(names)} is no variable of an encoder {name}.') from error
        value = np.asarray(leaf)
        state_dict[key] = np.ascontiguousarray(value.transpose(4, 3, 0, 1, 2) if value.ndim == 5 else value)
    from_state_dict(name, state_dict)  # raises if any is missing
    return state_dict
