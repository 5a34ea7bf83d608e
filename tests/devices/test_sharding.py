"""Devices, meshes, and how arrays lie on them."""

import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from choices import InputError
from devices import sharding

ROOT = pathlib.Path(__file__).parents[2]
COUNT = """
import jax
from devices import sharding
sharding.use_cores(*{sizes}, **{mesh})
print(jax.device_count())
"""
# Variables that may say how many devices there are.
SAYING = ('JAX_NUM_CPU_DEVICES', 'XLA_FLAGS')


def count_devices(*sizes, given=None, **mesh):
    """The devices of a new process, whose environment says of them what is given, and no more."""
    environment = {name: value for name, value in os.environ.items() if name not in SAYING}
    environment.update(given or {})
    command = [sys.executable, '-c', COUNT.format(sizes=sizes, mesh=mesh)]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    )
    return int(done.stdout)


def num_cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()


# Devices


@pytest.mark.parametrize(('sizes', 'processes'), [((32, 48), 1), ((32, 7), 1), ((32, 48), 16)])
def test_cores_are_devices_as_far_as_they_divide_every_batch(sizes, processes):
    cores = num_cores()
    fitting = [
        n
        for n in range(1, cores + 1)
        if cores % n == 0 and all(m % (n * processes) == 0 for m in sizes)
    ]
    assert count_devices(*sizes, num_processes=processes) == max(fitting)


@pytest.mark.parametrize(
    ('variable', 'value'),
    [('JAX_NUM_CPU_DEVICES', '3'), ('XLA_FLAGS', '--xla_force_host_platform_device_count=3')],
)
def test_a_number_of_devices_that_was_asked_for_stays(variable, value):
    assert count_devices(32, given={variable: value}) == 3


def test_a_mesh_of_given_sizes_gets_its_devices():
    assert count_devices(32, data=2, fsdp=3, num_processes=2) == 3


@pytest.mark.parametrize(
    ('data', 'fsdp', 'shape'),
    [(-1, 1, (8, 1)), (-1, 2, (4, 2)), (2, -1, (2, 4)), (4, 2, (4, 2)), (-1, 8, (1, 8))],
)
def test_one_axis_takes_the_devices_that_are_left(data, fsdp, shape):
    assert sharding.mesh_shape(8, data, fsdp) == shape


@pytest.mark.parametrize(
    ('data', 'fsdp', 'why'),
    [
        (-1, 3, 'mesh.fsdp: 3 does not divide the number of devices, 8'),
        (5, -1, 'mesh.data: 5 does not divide'),
        (2, 2, 'mesh.data: 2, and mesh.fsdp: 2, are 4 devices; .* 8'),
        (0, 1, 'mesh.data: 0; at least 1 needed, or -1 for the rest'),
        (-1, -2, 'mesh.fsdp: -2; at least 1'),
        (-1, -1, 'mesh.fsdp: -1, and mesh.data: -1; one of them'),
    ],
)
def test_a_mesh_that_the_devices_cannot_make_is_refused(data, fsdp, why):
    with pytest.raises(InputError, match=why):
        sharding.mesh_shape(8, data, fsdp)


@pytest.mark.parametrize('batch_size', [0, 12, -8])
def test_batches_that_the_devices_do_not_divide_are_refused(batch_size):
    with pytest.raises(InputError, match=f'eval.batch_size: {batch_size} is not a positive'):
        sharding.check_divides(MESH, 'eval.batch_size', batch_size)


# Layouts


MESH = AbstractMesh((4, 2), sharding.AXES)


@pytest.mark.parametrize(
    ('shape', 'layout'),
    [
        ((3, 3, 64, 128), (None, None, None, 'fsdp')),
        ((3, 3, 128, 64), (None, None, 'fsdp')),
        ((64, 64), (None, 'fsdp')),
        ((101, 64), (None, 'fsdp')),  # The largest that is even.
        ((101, 63), ()),
        ((64, 63), ()),  # Too few.
        ((), ()),
    ],
)
def test_large_arrays_are_split_along_their_largest_axis_that_fits(shape, layout):
    array = jax.ShapeDtypeStruct(shape, jnp.float32)
    assert sharding.by_size(MESH, {'a': array})['a'].spec == PartitionSpec(*layout)
    alone = AbstractMesh((8, 1), sharding.AXES)
    assert sharding.by_size(alone, array).spec == PartitionSpec()


def test_batches_are_split_over_both_axes():
    assert sharding.by_batch(MESH, axis=1).shard_shape((5, 16, 3)) == (5, 2, 3)
    assert sharding.if_divided(MESH, 12).shard_shape((12, 3)) == (12, 3)


def test_what_is_put_on_devices_is_what_it_was():
    mesh = sharding.create_mesh()
    tree = {'a': np.arange(6.0).reshape(2, 3), 'b': jnp.int32(4)}
    for layout in (sharding.copied(mesh), sharding.by_size(mesh, tree)):
        found = sharding.put(tree, layout)
        jax.tree.map(np.testing.assert_array_equal, found, tree)


def test_devices_are_said_by_their_kinds():
    assert sharding.described(sharding.create_mesh()) == f'{jax.device_count()} x cpu'
