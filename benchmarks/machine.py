"""What the numbers were measured on."""

import pathlib
import platform
import resource
import sys

import jax


def name() -> str:
    """The accelerators, if there are any, the processor with its cores, and versions."""
    info = pathlib.Path('/proc/cpuinfo')
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(':')[1].strip() for line in lines if line.startswith('model name')]
    processor = f'{len(models)} cores of {models[0]}' if models else platform.processor()
    kinds = {device.device_kind for device in jax.devices() if device.platform != 'cpu'}
    machine = ', '.join([*sorted(kinds), processor])
    return f'{machine} (Python {platform.python_version()}, jax {jax.__version__})'


def peak_memory() -> int:
    """Bytes of physical memory that this process has held at most, that of compilation included."""
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found if sys.platform == 'darwin' else 1024 * found
