"""Where compiled programs are kept: the second start of a command loads what the first compiled."""

import hashlib
import os
import pathlib
import platform

import jax


def keep_programs() -> None:
    """Keeps them in the user's cache, or where the environment variable JAX_COMPILATION_CACHE_DIR
    says; JAX_ENABLE_COMPILATION_CACHE=false keeps none, and neither does a user without a home.
    """
    # What it cannot find it leaves as it is.
    home = os.path.expanduser(os.environ.get('XDG_CACHE_HOME') or '~/.cache')
    if 'JAX_COMPILATION_CACHE_DIR' in os.environ or not os.path.isabs(home):
        return
    jax.config.update(
        'jax_compilation_cache_dir', str(pathlib.Path(home, 'score_sde', _instructions()))
    )
    # Small ones too: a start compiles some eighty of them, which takes two seconds.
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)


def _instructions() -> str:
    """A name for the instructions this processor has: programs with others would crash on it."""
    try:
        lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:  # There is no such file but on Linux.
        lines = [platform.processor()]
    flags = next((line for line in lines if line.startswith(('flags', 'Features'))), lines[0])
    return f'{platform.machine()}-{hashlib.sha256(flags.encode()).hexdigest()[:12]}'
