"""Devices: a mesh of one axis, 'data', over which batches are split and everything else is replicated."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vididi_jax.errors import UserError


def make_mesh() -> Mesh:
    """All devices of all processes along the axis 'data'."""
    return Mesh(np.asarray(jax.devices()), ('data',))


def first_device(mesh: Mesh) -> jax.Device:
    """What all of its devices are like, which need not be what this machine has."""
    return mesh.devices.flat[0]


def platform(mesh: Mesh) -> str:
    """'cpu', 'gpu' or 'tpu'."""
    return first_device(mesh).platform


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of the state: a whole copy on each device."""
    return NamedSharding(mesh, PartitionSpec())


def split_over_batch(mesh: Mesh) -> NamedSharding:
    """The sharding of batches: the leading axis split over the devices."""
    return NamedSharding(mesh, PartitionSpec('data'))


def rows_here(mesh: Mesh, batch_size: int) -> np.ndarray:
    """Which rows of a global batch are those of this process's devices, ascending."""
    slices = split_over_batch(mesh).addressable_devices_indices_map((batch_size,)).values()
    return np.sort(np.concatenate([np.arange(batch_size)[rows] for rows, in slices]))


def to_devices(mesh: Mesh, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """This process's rows of a global batch, see `rows_here` -> global arrays, split over all devices."""
    sharding = split_over_batch(mesh)
    return {name: jax.make_array_from_process_local_data(sharding, value) for name, value in batch.items()}


def replicate(mesh: Mesh, tree: Any) -> Any:
    """A tree of host or device arrays, equal in every process -> replicated global arrays."""
    sharding = replicated(mesh)
    # Through the host, once a run: of several processes `jax.device_put` gathers every array from all, to compare them,
    # and on one device it may give back the array itself, which whoever donates the copy would take away.
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), tree)


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Raises `UserError` unless every device gets the same number of videos."""
    if batch_size < 2 or batch_size % mesh.size:
        raise UserError(
            f'batch_size is {batch_size} and there are {mesh.size} devices: '
            f'set config.batch_size to a multiple of {mesh.size} of at least 2.'
        )
