"""Energies: one number for each state, of which derivatives of every order exist."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import models
from choices import ArgumentError
from tests.support import networks

LABELS = jnp.array([0.0, 10.0, 999.0])
X = jax.random.normal(jax.random.key(1), (3, 4, 4, 1))
SMALL = {
    'energy_mlp': {'width': 8, 'num_layers': 2, 'embedding_size': 4},
    'energy_conv': {'nf': 4, 'ch_mult': (1, 2), 'embedding_size': 4},
}


def energy(name, **fields):
    """A network with random parameters, as a function of state and label of one image."""
    network = models.create(name, **SMALL[name], **fields)
    params = networks.init(network, X.shape)
    return jax.jit(lambda x, label: network.apply({'params': params}, x[None], label[None])[0])


@pytest.mark.parametrize('name', SMALL)
def test_an_energy_is_a_number_that_depends_on_the_whole_state_and_on_its_noise(name):
    network = models.create(name, **SMALL[name])
    params = networks.init(network, X.shape)
    of_all = network.apply({'params': params}, X, LABELS)
    assert of_all.shape == (3,)
    of_one = energy(name)
    of_each = jnp.stack([of_one(x, label) for x, label in zip(X, LABELS, strict=True)])
    np.testing.assert_allclose(of_all, of_each, rtol=1e-4)
    assert (np.abs(jax.grad(of_one)(X[0], LABELS[0])) > 1e-6).all()
    assert abs(of_one(X[0], LABELS[1]) - of_all[0]) > 1e-4


@pytest.mark.parametrize('name', SMALL)
def test_an_energy_is_zero_at_first_and_can_leave_it(name):
    network = models.create(name, **SMALL[name])
    y, variables = network.init_with_output(jax.random.key(0), X, LABELS)
    np.testing.assert_array_equal(y, jnp.zeros(3))

    def loss(params):
        score = jax.grad(lambda x: network.apply({'params': params}, x, LABELS).sum())(X)
        return jnp.mean((score - 1) ** 2)

    gradient = jax.grad(loss)(variables['params'])
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradient)) > 1e-3


@pytest.mark.parametrize('nonlinearity', models.energy.SMOOTH_ACTIVATIONS)
@pytest.mark.parametrize('name', SMALL)
def test_second_derivatives_are_those_of_differences(name, nonlinearity):
    """As training takes them: of a convolutional one through models/convolution.py."""
    value = energy(name, nonlinearity=nonlinearity)
    v = jax.random.normal(jax.random.key(2), X.shape[1:])
    v /= jnp.linalg.norm(v)

    def slope(x):
        return jnp.vdot(v, jax.grad(value)(x, LABELS[1]))

    curvature = jnp.vdot(v, jax.grad(slope)(X[0]))
    step = 1e-2
    expected = (slope(X[0] + step * v) - slope(X[0] - step * v)) / (2 * step)
    # Differences of float32 numbers lose their last digits, and their error is of second order.
    np.testing.assert_allclose(curvature, expected, rtol=5e-3, atol=5e-3 * abs(slope(X[0])))
    assert abs(curvature) > 1e-4


def test_images_that_cannot_be_halved_are_refused():
    network = models.create('energy_conv', ch_mult=(1, 2, 2))
    with pytest.raises(ArgumentError, match='^ch_mult: 3 levels need height and width'):
        network.plan(6, 8)
