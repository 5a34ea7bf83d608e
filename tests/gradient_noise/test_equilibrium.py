"""Statistics of gradients, and what scale-invariance says about the length of parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradient_noise import equilibrium
from gradient_noise.chains import SGD, SVAG
from gradient_noise.equilibrium import Statistics
from models.normalised_mlp import NormalisedMLP
from tests.support import exact_steps, networks

NETWORK = NormalisedMLP(width=6, num_layers=1, num_classes=3)
IMAGES = jax.random.normal(jax.random.key(0), (8, 2, 2, 1))
LABELS = jnp.arange(8) % 3
PARAMS = NETWORK.init(jax.random.key(1), IMAGES)['params']


def loss(params, example):
    """The cross-entropy of an image."""
    image, label = example
    logits = NETWORK.apply({'params': params}, image[None])
    return -jax.nn.log_softmax(logits)[0, label]


def measured(batch_size, at_once=64):
    def of(params):
        return equilibrium.measured(loss, (IMAGES, LABELS), batch_size, params, at_once)

    return networks.quick_jit(of)(PARAMS)


def gradients():
    of_each = networks.quick_jit(jax.vmap(jax.grad(loss), (None, 0)))(PARAMS, (IMAGES, LABELS))
    rows = [leaf.reshape(8, -1) for leaf in jax.tree.leaves(of_each)]
    return np.asarray(jnp.concatenate(rows, 1), np.float64)


@pytest.mark.parametrize('at_once', [3, 8, 256])
def test_statistics_are_those_of_all_gradients(at_once):
    found = measured(4, at_once)
    rows = gradients()
    expected = [
        sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(PARAMS)),
        np.sum(rows.mean(0) ** 2),
        np.trace(np.cov(rows.T, bias=True)) / 4,
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_estimates_from_minibatches_are_unbiased():
    """Over all three batches of one of two examples, each as probable."""
    rows = np.array([[1.0, 0.0], [0.0, 2.0]])
    batches = np.stack(np.meshgrid([0, 1], [0, 1], [0, 1]), -1).reshape(-1, 3)
    chosen = rows[batches]
    squares, of_mean = (chosen**2).sum(-1).mean(-1), (chosen.mean(1) ** 2).sum(-1)
    found = equilibrium.estimated(1.0, squares, of_mean, 3)
    np.testing.assert_allclose(found.G.mean(), np.sum(rows.mean(0) ** 2), rtol=1e-12)
    np.testing.assert_allclose(found.N.mean(), np.trace(np.cov(rows.T, bias=True)), rtol=1e-12)


def test_the_gradient_of_a_scale_invariant_loss_is_orthogonal_to_the_parameters():
    x = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(PARAMS)])
    rows = gradients()
    size = np.linalg.norm(rows, axis=1) * np.linalg.norm(x)
    assert np.abs(rows @ x / size).max() < 1e-5
    longer = jax.tree.map(lambda a: 3 * a, PARAMS)
    example = IMAGES[0], LABELS[0]
    np.testing.assert_allclose(loss(longer, example), loss(PARAMS, example), rtol=1e-5)


@pytest.mark.parametrize('chain', [SGD(1), SVAG(1, 4)], ids=str)
def test_the_length_after_a_step_balances_decay_and_gradients(chain):
    """E|x'|^2 - |x|^2 = eta^2 (growth - drift), exactly, wherever x is; at rest both are equal."""
    rate, decay, substeps = 0.3, 0.05, chain.substeps
    examples = IMAGES, LABELS
    steps = exact_steps.after(chain, loss, examples, rate, decay, PARAMS)
    squares = sum((leaf**2).reshape(len(leaf), -1).sum(1) for leaf in jax.tree.leaves(steps))
    found = measured(1)
    grown = equilibrium.growth_of_length(found.G, found.N, substeps)
    drift = equilibrium.drift_of_length(found.R, rate, decay, substeps)
    np.testing.assert_allclose(
        squares.mean() - found.R, rate**2 / substeps * (grown - drift), rtol=2e-3
    )


def test_the_conditions_follow_from_the_balance():
    """A process and its SDE, or one of another batch, that are C apart: on the edge of the test."""
    C = np.sqrt(2)
    assert equilibrium.least_noise(C) == pytest.approx(1)
    G, N = 2.0, 2.0
    of_sgd = equilibrium.growth_of_length(G, N)
    of_sde = equilibrium.growth_of_length(G, N * C, np.inf)
    assert of_sgd / of_sde == pytest.approx(C)
    assert equilibrium.may_be_sde(G, N * 1.001, C)
    assert not equilibrium.may_be_sde(G, N * 0.999, C)
    k = equilibrium.largest_scaling(G, N, C)
    # The large batch has no noise left, and the least gradient that is close.
    at_k = Statistics(None, G / C, 0.0)
    assert k * (at_k.G + at_k.N) / (G + N) == pytest.approx(C)
