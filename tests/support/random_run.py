"""Workdirs whose parameters are random: as training leaves them, without training."""

import jax
import jax.numpy as jnp

import run_lib
from experiments import experiment
from storage import workdirs
from tests.support import networks


def create(workdir, config, *steps):
    """Claims a workdir, and saves these steps; the same parameters every time."""
    workdirs.claim(workdir, config.to_dict())
    for step in steps:
        save(workdir, config, step)
    return workdir


def save(workdir, config, step):
    """Saves one more step, with parameters of its own."""
    made = experiment.create_experiment(config)
    state = jax.jit(lambda: run_lib.create_state(config, made, jax.random.key(0)))()
    params = networks.randomised(state.params)
    scaled = jax.tree.map(lambda a: a * (1 + step / 100), params)
    with run_lib.open_checkpoints(config, workdir) as checkpoints:
        checkpoints.save(state._replace(step=jnp.int32(step), params=params, ema_params=scaled))
