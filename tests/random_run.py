"""Workdirs whose parameters are random: as training leaves them, without training."""

import jax
import jax.numpy as jnp

import experiment
import run_lib
import workdirs
from tests import networks


def create(workdir, config, *steps):
    """Claims a workdir, and saves these steps; the same parameters every time."""
    workdirs.claim(workdir, config.to_dict())
    for step in steps:
        save(workdir, config, step)
    return workdir


def save(workdir, config, step):
    """Saves one more step, with parameters of its own."""
    made = experiment.create_experiment(config)
    state = networks.randomised(
        jax.eval_shape(lambda: run_lib.create_state(config, made, jax.random.key(0)))
    )
    scaled = jax.tree.map(lambda a: a * (1 + step / 100), state.ema_params)
    with run_lib.open_checkpoints(config, workdir) as checkpoints:
        checkpoints.save(state._replace(step=jnp.int32(step), ema_params=scaled))
