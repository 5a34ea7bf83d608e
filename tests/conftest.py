"""How the programs of the tests are compiled: quickly, and the large ones once.

Most of the time of the tests is XLA's, for thousands of programs that run once on a few numbers. So
few optimisations are made, unless XLA_FLAGS says otherwise: `XLA_FLAGS= make test` makes all. What
one process has compiled, the others load: pytest's workers, and main.py where tests start it.
"""

import gc
import os
import shutil
import tempfile

# Fusion emitters take as long again as all the rest of an unoptimised compilation.
QUICK = '--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false'
# Storing and loading a program of a few operations takes as long as compiling it.
STORED_SECONDS = '0.3'


def pytest_configure(config):
    """Before JAX is imported, which reads these once; workers inherit them from the first."""
    os.environ.setdefault('XLA_FLAGS', QUICK)
    if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
        directory = tempfile.mkdtemp(prefix='score_sde_tests_')
        config.add_cleanup(lambda: shutil.rmtree(directory, ignore_errors=True))
        os.environ['JAX_COMPILATION_CACHE_DIR'] = directory
        os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = STORED_SECONDS


def pytest_collection_finish():
    """What is imported stays, and what JAX traces is many small objects: look for garbage less
    often, which is a twentieth of the time."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
