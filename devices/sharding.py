"""How arrays lie on devices: a mesh of `data` x `fsdp`, over all of which batches are split.

Parameters, their average and the optimiser's state are copied to all devices if fsdp is 1. If not,
each large array of them is split over the `fsdp` devices of a row, which takes so much less memory
on each; programs gather the parameters when they begin. Reductions over a batch are written as
plain means; under `jit` they become global.
"""

import collections
import functools
import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from choices import InputError

AXES = ('data', 'fsdp')
# Arrays of fewer elements are copied: all that is left of networks besides kernels of convolutions
# and matrices, for which a message of their own would take longer than it saves memory.
FEWEST_SPLIT = 2**12


# Devices


def use_cores(*batch_sizes: int, data: int = -1, fsdp: int = 1, num_processes: int = 1) -> None:
    """Makes devices of the cores of a CPU before JAX starts: those of a mesh whose sizes are both
    given, or as many as divide every batch.

    XLA runs much of a network on one core of a device; as devices, all of them work throughout.
    Other accelerators, and a number of devices that the environment gives, in JAX_NUM_CPU_DEVICES
    or XLA_FLAGS, stay as they are.
    """
    in_flags = '--xla_force_host_platform_device_count' in os.environ.get('XLA_FLAGS', '')
    if in_flags or 'JAX_NUM_CPU_DEVICES' in os.environ:
        return
    shares = [size // num_processes for size in batch_sizes]
    fitting = math.gcd(_num_cores(), *shares)
    asked = max(1, data * fsdp // num_processes) if min(data, fsdp) > 0 else fitting
    jax.config.update('jax_num_cpu_devices', asked)


def mesh_shape(num_devices: int, data: int = -1, fsdp: int = 1) -> tuple[int, int]:
    """The sizes of both axes, of which -1 stands for what the other leaves of the devices.

    Raises InputError for a mesh that these devices cannot make.
    """
    for name, size in (('data', data), ('fsdp', fsdp)):
        if size < 1 and size != -1:
            raise InputError(f'mesh.{name}: {size}; at least 1 needed, or -1 for the rest')
    if data == fsdp == -1:
        raise InputError('mesh.fsdp: -1, and mesh.data: -1; one of them is to be a number')
    if data != -1 != fsdp:
        if data * fsdp != num_devices:
            raise InputError(
                f'mesh.data: {data}, and mesh.fsdp: {fsdp}, are {data * fsdp} devices; their '
                f'product must be the number of devices, {num_devices}'
            )
        return data, fsdp
    name, size = ('fsdp', fsdp) if data == -1 else ('data', data)
    if num_devices % size:
        raise InputError(
            f'mesh.{name}: {size} does not divide the number of devices, {num_devices}'
        )
    rest = num_devices // size
    return (rest, fsdp) if data == -1 else (data, rest)


def create_mesh(data: int = -1, fsdp: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh of these devices; None: all of all processes."""
    devices = jax.devices() if devices is None else devices
    # Process by process, so that the rows of a batch that one reads lie one after another.
    ordered = sorted(devices, key=lambda device: (device.process_index, device.id))
    return Mesh(np.array(ordered).reshape(mesh_shape(len(ordered), data, fsdp)), AXES)


def described(mesh: Mesh) -> str:
    """How many devices of which kind there are, such as '8 x NVIDIA H100 80GB HBM3'."""
    kinds = collections.Counter(device.device_kind for device in mesh.devices.flat)
    return ', '.join(f'{count} x {kind}' for kind, count in kinds.items())


def check_divides(mesh: Mesh | AbstractMesh, field: str, batch_size: int) -> None:
    """Raises InputError if a batch size is not a multiple of the number of devices."""
    if batch_size < 1 or batch_size % mesh.size:
        raise InputError(
            f'{field}: {batch_size} is not a positive multiple of the number of devices, '
            f'{mesh.size}'
        )


# Layouts


def by_batch(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """Arrays whose `axis` is the batch."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, AXES))


def if_divided(mesh: Mesh, size: int) -> NamedSharding:
    """Arrays whose first axis has this size: split over the devices if they divide it."""
    return copied(mesh) if size % mesh.size else by_batch(mesh)


def copied(mesh: Mesh) -> NamedSharding:
    """Arrays that are whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


def by_size(mesh: Mesh, tree: Any) -> Any:
    """Where arrays lie that are no batch, for a tree of them or of their shapes.

    One of at least FEWEST_SPLIT elements is split along its largest axis that fsdp divides; one
    without such an axis, and all smaller ones, are copied.
    """
    return jax.tree.map(lambda array: NamedSharding(mesh, _split_by_size(mesh, array.shape)), tree)


def _split_by_size(mesh: Mesh, shape: tuple[int, ...]) -> PartitionSpec:
    fsdp = mesh.shape['fsdp']
    fitting = [axis for axis, size in enumerate(shape) if size % fsdp == 0]
    if fsdp == 1 or not fitting or math.prod(shape) < FEWEST_SPLIT:
        return PartitionSpec()
    # The last of equals: output channels.
    largest = max(fitting, key=lambda axis: (shape[axis], axis))
    return PartitionSpec(*[None] * largest, 'fsdp')


def laid_out(mesh: Mesh, shapes: Any) -> Any:
    """Shapes with the layout that `by_size` gives them."""

    def lay_out(shape, layout):
        return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=layout)

    return jax.tree.map(lay_out, shapes, by_size(mesh, shapes))


# Placement


def split(mesh: Mesh, tree: Any, axis: int = 0) -> Any:
    """Splits `axis` of every array over the devices; each process gives its own rows."""
    place = functools.partial(jax.make_array_from_process_local_data, by_batch(mesh, axis))
    return jax.tree.map(place, tree)


def put(tree: Any, layout: Any) -> Any:
    """Places arrays that every process has whole; `layout` is one for all, or a tree of them."""

    def place(array, layout):
        array = np.asarray(array)
        return jax.make_array_from_callback(array.shape, layout, lambda index: array[index])

    if isinstance(layout, NamedSharding):
        return jax.tree.map(lambda array: place(array, layout), tree)
    return jax.tree.map(place, tree, layout)


# Programs


def jit(mesh: Mesh | None, function: Callable, **options: Any) -> Callable:
    """`function(params, ...)` compiled, with `params` gathered by it."""
    return jax.jit(lambda params, *args: function(whole(mesh, params), *args), **options)


def whole(mesh: Mesh | None, tree: Any) -> Any:
    """Inside a program: gathers what `by_size` splits; gradients are summed over the whole mesh.
    Without a mesh arrays are whole already.

    Otherwise XLA is free to split the work as the parameters are, and to move activations, which
    are larger.
    """
    if mesh is None:
        return tree
    return jax.lax.with_sharding_constraint(tree, copied(mesh))


def _num_cores() -> int:
    """The cores that this process may use."""
    # Not on every platform.
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
