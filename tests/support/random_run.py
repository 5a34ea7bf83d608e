"""Workdirs whose parameters are random: as training leaves them, without training."""

import jax
import jax.numpy as jnp

import training
from experiments import kinds, run_files
from tests.support import networks


def create(workdir, config, *steps):
    """Claims a workdir, and saves these steps; every time with equal parameters."""
    run_files.claim(workdir, config)
    for step in steps:
        save(workdir, config, step)
    return workdir


def save(workdir, config, step):
    """Saves one more step, with parameters of its own."""
    abstract = jax.eval_shape(kinds.create(config).init, jax.random.key(0))
    # Without compiling `init`: all else in a state begins as zeros.
    state = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), abstract)
    params = networks.randomised(state.params)
    averages = {training.EMA: jax.tree.map(lambda a: a * (1 + step / 100), params)}
    with run_files.open_checkpoints(config, workdir) as checkpoints:
        checkpoints.save(state._replace(step=jnp.int32(step), params=params, averages=averages))
