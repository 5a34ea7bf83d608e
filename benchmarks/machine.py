"""What the numbers were measured on."""

import pathlib
import platform

import jax


def name() -> str:
    """The processor, its cores that are used, and versions."""
    info = pathlib.Path('/proc/cpuinfo')
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(':')[1].strip() for line in lines if line.startswith('model name')]
    processor = f'{len(models)} cores of {models[0]}' if models else platform.processor()
    return f'{processor} (Python {platform.python_version()}, jax {jax.__version__})'
