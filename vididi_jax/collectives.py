"""What the devices of a mesh tell each other inside of `jax.shard_map`, where each has its own part of the batch.

Outside of it, as on a single device, a part is the whole, and these functions do nothing. Inside, JAX knows of each
array whether it varies over the devices or is the same on each; below, N devices have parts of B rows.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def axes() -> tuple[str, ...]:
    """Axes of the mesh over which the program that is being traced is split by hand; () outside of `shard_map`."""
    return tuple(jax.sharding.get_abstract_mesh().manual_axes)


def devices() -> int:
    """Over how many devices that is."""
    return lax.axis_size(axes()) if axes() else 1


def gather(part: jax.Array, axis: int = 0) -> jax.Array:
    """The parts of all devices, one after the other along `axis`, the same on each.

    One exchange; the gradient takes none, since each device has the whole cotangent. It is a sum, as all exchanges of a
    step are, so that the compiler may join them; `lax.all_gather(..., to='invarying')` would move half of the bytes.

    Args:
      part: (..., B, ...), B of `axis`; varies over the devices.

    Returns:
      (..., N B, ...), the same on each.
    """
    if not axes():
        return part
    if part.dtype == bool:
        return gather(part.astype(jnp.int8), axis).astype(bool)
    length = part.shape[axis]
    shape = (*part.shape[:axis], length * devices(), *part.shape[axis + 1 :])
    start = lax.axis_index(axes()) * length
    return lax.psum(lax.dynamic_update_slice_in_dim(jnp.zeros(shape, part.dtype), part, start, axis), axes())


def mean_over_devices(tree: Any) -> Any:
    """The mean of what each device has, entry by entry.

    Args:
      tree: arrays of any shape, that varies over the devices.

    Returns:
      The same shapes, the same on each device.
    """
    return lax.pmean(tree, axes()) if axes() else tree


def own_rows(whole: jax.Array) -> jax.Array:
    """A device's part of the rows of an array: those that `gather` would put back.

    Args:
      whole: (N B, ...), the same on each device; N must divide its rows.

    Returns:
      (B, ...), which varies over the devices.
    """
    if not axes():
        return whole
    count = len(whole) // devices()
    return lax.dynamic_slice_in_dim(whole, lax.axis_index(axes()) * count, count)


def as_varying(tree: Any) -> Any:
    """Parameters, for use with a device's part of the batch.

    The gradient is summed over the devices here, once, in the dtype of the tree, whatever it was used for.

    Args:
      tree: arrays of any shape, the same on each device.

    Returns:
      The same values, that count as varying over the devices.
    """
    return jax.tree.map(lambda x: lax.pcast(x, axes(), to='varying'), tree) if axes() else tree
