"""The programs of an experiment: what is traced for them."""

import jax.numpy as jnp
import optax

from devices import sharding
from experiments import programs
from training import EMA, MovingAverage, Update


class Noting:
    """An experiment that keeps how often its first state was traced."""

    def __init__(self):
        self.num_traced = 0
        self._update = Update(optax.sgd(0.1), {EMA: MovingAverage(0.9)}, seed=0)

    def init(self, key):
        self.num_traced += 1
        return self._update.init({'w': jnp.zeros(3)})

    def step(self, state, batch):
        return state, None


def test_the_first_state_is_traced_once_for_its_shapes_and_once_to_be_made():
    """Of a large network each takes seconds."""
    experiment, mesh = Noting(), sharding.create_mesh()
    programs.training_steps(experiment, mesh)
    programs.abstract_state(experiment, mesh)
    state = programs.first_state(experiment, mesh, seed=0)
    assert state.params['w'].shape == (3,)
    assert experiment.num_traced == 2
