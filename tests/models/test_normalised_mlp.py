"""The normalised classifier: logits, its fixed vectors, what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from choices import ArgumentError
from models.normalised_mlp import NormalisedMLP, class_vectors


def test_it_makes_logits_by_layers_without_bias_alone():
    network = NormalisedMLP(width=8, num_layers=3, num_classes=5)
    logits, variables = network.init_with_output(
        jax.random.key(0), jnp.ones((2, 3, 5, 2)), jnp.ones(2)
    )
    assert logits.shape == (2, 5)
    shapes = [leaf.shape for leaf in jax.tree.leaves(variables['params'])]
    assert shapes == [(30, 8), (8, 8), (8, 8)]


def test_the_vectors_of_classes_are_orthonormal_and_have_mean_zero():
    vectors = np.asarray(class_vectors(32, 31))
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(31), atol=1e-5)
    np.testing.assert_allclose(vectors.mean(0), 0, atol=1e-6)


def test_more_classes_than_vectors_are_refused():
    with pytest.raises(ArgumentError, match='^width: 10; more than the 10 classes needed'):
        NormalisedMLP(width=10).plan(8, 8)
