"""The residual multi-layer perceptron."""

import jax
import jax.numpy as jnp
import numpy as np

from models.residual_mlp import ResidualMLP
from tests.support import networks

SMALL = ResidualMLP(width=8, num_blocks=2, embedding_size=4)
X, LABELS = jax.random.normal(jax.random.key(1), (3, 1, 1, 5)), jnp.array([0.0, 10.0, 999.0])


def test_it_starts_at_zero():
    y, _ = SMALL.init_with_output(jax.random.key(0), X, LABELS)
    np.testing.assert_array_equal(y, jnp.zeros_like(X))


def test_it_keeps_the_shape_and_sees_the_noise_level():
    params = networks.init(SMALL, X.shape)
    y, other = (SMALL.apply({'params': params}, X, labels) for labels in (LABELS, LABELS + 1))
    assert y.shape == X.shape
    assert (np.abs(y - other).max(axis=(1, 2, 3)) > 1e-4).all()


def test_every_number_sees_every_other():
    params = networks.init(SMALL, (1, 2, 2, 1))
    x = jax.random.normal(jax.random.key(2), (1, 2, 2, 1))
    jacobian = jax.jacobian(lambda x: SMALL.apply({'params': params}, x, LABELS[:1]))(x)
    assert (np.abs(jacobian) > 1e-6).all()
