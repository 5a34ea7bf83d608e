"""main.py, as a program and as a function.

The function is for claims about what the program does and says. Those about processes, which are
signals, devices, and what else is written to stderr, take one, which costs the imports again.
"""

import os
import pathlib
import subprocess
import sys
import time

import jax
import orbax.checkpoint as ocp
import pytest
from absl.testing import flagsaver

import main
import run_lib

ROOT = pathlib.Path(__file__).parents[2]


def command(*flags):
    """The command line; the directory is ROOT."""
    return [sys.executable, 'main.py', *map(str, flags)]


def training(workdir, *flags):
    """A process that trains in a workdir, once its first checkpoint, that of step 10, is there."""
    process = subprocess.Popen(
        command(*flags, '--mode=train', f'--workdir={workdir}'),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not (workdir / 'checkpoints' / '10').exists():
        assert process.poll() is None
        time.sleep(0.01)
    return process


def run(*flags, devices=None):
    """Exit status, stdout and stderr of a process, with as many devices if it is told."""
    environment = dict(os.environ)
    if devices:
        environment['JAX_NUM_CPU_DEVICES'] = str(devices)
    return subprocess.run(
        command(*flags), cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )


def succeed(*flags, devices=None):
    """Stdout of a process."""
    done = run(*flags, devices=devices)
    assert done.returncode == 0, done.stderr
    return done.stdout


def call(*flags):
    """Runs main.py in this process, on its devices."""
    with pytest.MonkeyPatch.context() as patch, flagsaver.flagsaver():
        patch.chdir(ROOT)
        patch.setattr(run_lib, 'use_cores', lambda config, num_processes: None)  # JAX has started.
        argv = ['main.py', *map(str, flags)]
        patch.setattr(sys, 'argv', argv)  # Where config_flags looks for --config.a.b.
        main.main(main.parse(argv))


def refusal(*flags):
    """The line by which the program ends."""
    with pytest.raises(SystemExit) as ended:
        call(*flags)
    # Of a string, Python makes a line on stderr and exit status 1.
    assert isinstance(ended.value.code, str)
    assert len(ended.value.code.splitlines()) == 1
    return ended.value.code


def arrays(workdir, step):
    """The arrays of a checkpoint, by name."""
    checkpointer = ocp.StandardCheckpointer()
    path = workdir.absolute() / 'checkpoints' / str(step) / 'default'
    # The run had a device for every core; this process has one.
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    like = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=here),
        checkpointer.metadata(path).item_metadata.tree,
    )
    state = checkpointer.restore(path, like)
    return {jax.tree_util.keystr(k): v for k, v in jax.tree_util.tree_leaves_with_path(state)}
