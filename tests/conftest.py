"""How the programs of the tests are compiled: quickly, and the large ones once.

Most of the time of the tests is XLA's, for thousands of programs that run once on a few numbers. So
few optimisations are made; `JAX_DISABLE_MOST_OPTIMIZATIONS=0 make test` makes all. What one process
has compiled, the others load: pytest's workers, and main.py where tests start it.
"""

import gc
import importlib.metadata
import os
import shutil
import tempfile

# Fusion emitters take as long again as all the rest of an unoptimised compilation. From the version
# on that is named here XLA has no others, and a flag that it does not know ends the process, before
# pytest can show what it said.
WITHOUT_EMITTERS = '--xla_cpu_use_fusion_emitters=false'
HAS_ONLY_EMITTERS = (0, 11)
# Storing and loading a program of a few operations takes as long as compiling it.
STORED_SECONDS = '0.3'


def pytest_configure(config):
    """Before JAX is imported, which reads these once; workers inherit them from the first."""
    if 'JAX_DISABLE_MOST_OPTIMIZATIONS' not in os.environ:
        os.environ['JAX_DISABLE_MOST_OPTIMIZATIONS'] = '1'
        if jaxlib_version() < HAS_ONLY_EMITTERS:
            flags = os.environ.get('XLA_FLAGS', '')
            os.environ['XLA_FLAGS'] = f'{flags} {WITHOUT_EMITTERS}'.strip()
    if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
        directory = tempfile.mkdtemp(prefix='score_sde_tests_')
        config.add_cleanup(lambda: shutil.rmtree(directory, ignore_errors=True))
        os.environ['JAX_COMPILATION_CACHE_DIR'] = directory
        os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = STORED_SECONDS


def jaxlib_version():
    """Its first two numbers, without an import of it."""
    return tuple(map(int, importlib.metadata.version('jaxlib').split('.')[:2]))


def pytest_collection_finish():
    """What is imported stays, and what JAX traces is many small objects: look for garbage less
    often, which is a twentieth of the time."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
