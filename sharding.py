"""How arrays lie on devices: batches are split over the mesh's `data` axis, everything else is
copied to all.

Reductions over a batch are written as plain means; under `jit` they become global.
"""

import functools
import math
import os
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from choices import InputError


def use_cores(*batch_sizes: int) -> None:
    """Makes devices of the cores of a CPU, as many as divide every batch, before JAX starts.

    XLA runs much of a network on one core of a device; as devices, all of them work throughout.
    Other accelerators, and a number of devices given in XLA_FLAGS, stay as they are.
    """
    if '--xla_force_host_platform_device_count' not in os.environ.get('XLA_FLAGS', ''):
        jax.config.update('jax_num_cpu_devices', math.gcd(_num_cores(), *batch_sizes))


def create_mesh() -> Mesh:
    """All devices of all processes, along one axis."""
    return Mesh(np.array(jax.devices()), ('data',))


def check_divides(mesh: Mesh | AbstractMesh, field: str, batch_size: int) -> None:
    """Raises InputError if a batch size is not a multiple of the number of devices."""
    devices = mesh.shape['data']
    if batch_size < 1 or batch_size % devices:
        raise InputError(
            f'{field}: {batch_size} is not a positive multiple of the number of devices, {devices}'
        )


def by_batch(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """Arrays whose `axis` is the batch."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, 'data'))


def if_divided(mesh: Mesh, size: int) -> NamedSharding:
    """Arrays whose first axis has this size: split over the devices if they divide it."""
    return copied(mesh) if size % mesh.shape['data'] else by_batch(mesh)


def copied(mesh: Mesh) -> NamedSharding:
    """Arrays that are whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh, tree: Any, axis: int = 0) -> Any:
    """Splits `axis` of every array over the devices; each process gives its own rows."""
    place = functools.partial(jax.make_array_from_process_local_data, by_batch(mesh, axis))
    return jax.tree.map(place, tree)


def _num_cores() -> int:
    """The cores that this process may use."""
    # Not on every platform.
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
