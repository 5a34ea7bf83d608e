"""Devices, and how arrays lie on them."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
COUNT = 'import jax, sharding; sharding.use_cores(*{sizes}); print(jax.device_count())'


def count_devices(*sizes, flags=''):
    """The devices of a new process."""
    environment = {**os.environ, 'XLA_FLAGS': flags}
    command = [sys.executable, '-c', COUNT.format(sizes=sizes)]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    )
    return int(done.stdout)


@pytest.mark.parametrize('sizes', [(32, 48), (32, 7), (1,)])
def test_cores_are_devices_as_far_as_they_divide_every_batch(sizes):
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    fitting = [n for n in range(1, cores + 1) if not any(m % n for m in (cores, *sizes))]
    assert count_devices(*sizes) == max(fitting)


def test_a_number_of_devices_that_was_asked_for_stays():
    assert count_devices(32, flags='--xla_force_host_platform_device_count=3') == 3
