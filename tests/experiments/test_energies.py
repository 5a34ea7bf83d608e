"""Energies as score models: from a config to a process with a density, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from applications.conditional import conditioning
from choices import InputError
from configs import base
from experiments import image_drawing, kinds, score_model
from tests import tiny_config
from tests.support import networks

T = jnp.array([0.05, 0.4, 0.9])
X = jax.random.normal(jax.random.key(0), (3, 8, 8, 1))


def config_of(energy):
    """The tiny experiment with an energy of its network, or with a network that is one."""
    config = tiny_config.get_config()
    if energy in ('inner', 'norm'):
        config.model.energy = energy
        return config
    parameterization, fourier = config.model.parameterization, config.model.input_fourier
    config.model = getattr(base, energy)()
    if energy == 'energy_conv':
        config.model.nf, config.model.ch_mult = 4, (1, 2)
    config.model.parameterization, config.model.input_fourier = parameterization, fourier
    return config


def randomised(model):
    """Random parameters: at first some of the energies are flat."""
    return networks.randomised(jax.eval_shape(model.init_params, jax.random.key(0)))


@pytest.mark.parametrize('energy', ['norm', 'energy_mlp', 'energy_conv'])
def test_a_config_makes_an_energy_that_can_be_trained(energy):
    experiment = kinds.create(config_of(energy))
    params = randomised(experiment.model)
    process = experiment.model.process(params)
    v = jax.random.normal(jax.random.key(1), X.shape)

    @jax.jit
    def slopes(params):
        process = experiment.model.process(params)
        along = jax.jvp(lambda x: process.log_density(x, T), (X,), (v,))[1]
        return along, (v * process.score(X, T)).sum((1, 2, 3))

    along, expected = slopes(params)
    np.testing.assert_allclose(along, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
    assert process.log_density is not None

    @jax.jit
    def loss_and_gradient(params):
        batch = {'image': jnp.zeros((2, 8, 8, 1), jnp.uint8), 'label': jnp.zeros(2, jnp.int32)}
        loss = experiment.loss(params, jax.random.key(2), batch, True).mean()
        return loss

    gradient = jax.jit(jax.grad(loss_and_gradient))(params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        # A constant in the last layer is one in the density.
        assert np.isfinite(leaf).all(), path
        assert np.abs(leaf).max() > 0, path


def test_score_networks_have_no_density():
    model = score_model.create(tiny_config.get_config())
    assert model.process(randomised(model)).log_density is None


def test_metropolis_steps_of_scores_are_refused():
    config = tiny_config.get_config()
    config.sampling.corrector = 'mala'
    with pytest.raises(InputError, match="^sampling.corrector: 'mala' compares densities, and a s"):
        kinds.create(config).drawing()
    kinds.create(config_of('energy_mlp')).drawing()  # And of others they are not looked at.
    image_drawing.create_drawing(config, score_model.create(config), 'heun')


def test_metropolis_steps_of_tasks_are_refused():
    config = config_of('norm')
    config.sampling.corrector, config.task.name = 'mala', 'colourise'
    with pytest.raises(InputError, match="^sampling.corrector: 'mala' compares densities, and wh"):
        conditioning.check_fields(config, score_model.create(config))


def test_activations_without_curvature_are_refused():
    config = config_of('norm')
    config.model.nonlinearity = 'relu'
    with pytest.raises(InputError, match="^model.nonlinearity: 'relu' has no second derivative"):
        kinds.create(config)


def test_mixed_scores_are_no_energies():
    config = config_of('inner')
    config.model.mixing_logit = 0.0
    with pytest.raises(InputError, match='^model.mixing_logit: 0.0 mixes scores'):
        kinds.create(config)
