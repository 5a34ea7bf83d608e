"""The multi-layer perceptron of tanh layers: its formula, its start, its spectral norm."""

import jax
import jax.numpy as jnp
import numpy as np

from models.tanh_mlp import STATISTICS, TanhMLP

KEY = jax.random.key(0)
Z = jax.random.normal(KEY, (64, 2))


def test_its_formula():
    network = TanhMLP(5, 1, outputs=3)
    variables = network.init(KEY, Z)
    layers = [variables['params'][f'Dense_{i}'] for i in range(4)]
    first, inner, outer, last = (
        lambda x, layer=layer: x @ layer['kernel'] + layer['bias'] for layer in layers
    )
    h = jnp.tanh(first(Z))
    expected = last(jnp.tanh(outer(jnp.tanh(inner(h))) + h))
    np.testing.assert_allclose(network.apply(variables, Z), expected, rtol=1e-5, atol=1e-6)


def test_it_starts_as_linear_layers_of_pytorch_do():
    """Uniform between the reciprocal roots of the number of inputs: weights and biases."""
    params = TanhMLP(100, 1).init(KEY, Z)['params']
    for name, inputs in (('Dense_0', 2), ('Dense_1', 100)):
        for array in params[name].values():
            bound = inputs**-0.5
            assert 0.9 * bound < jnp.abs(array).max() <= bound
            # Of a uniform distribution 3^-1/2, with a relative standard error of 1 / sqrt(5 n).
            assert abs(array.std() / bound - 3**-0.5) < 4 * 3**-0.5 / np.sqrt(5 * array.size)


def norms(variables, applications):
    """The largest singular value of what each matrix is divided by, after so many applications."""
    network = TanhMLP(6, 1, spectral=True)
    for _ in range(applications):
        _, statistics = network.apply(variables, Z, mutable=[STATISTICS])
        variables = {**variables, **statistics}
    sigmas = {
        jax.tree_util.keystr(path).split('/')[0].split("'")[-1]: value
        for path, value in jax.tree_util.tree_leaves_with_path(variables[STATISTICS])
        if 'sigma' in jax.tree_util.keystr(path)
    }
    return [
        np.linalg.norm(variables['params'][name]['kernel'], 2) / sigma
        for name, sigma in sigmas.items()
    ]


def test_after_some_applications_every_matrix_has_norm_1():
    variables = TanhMLP(6, 1, spectral=True).init(KEY, Z)
    found = norms(variables, 40)
    assert len(found) == 4
    np.testing.assert_allclose(found, 1, atol=1e-5)


def test_a_spectral_network_is_lipschitz():
    """Of constant 1 for each plain layer, and 2 for the residual block."""
    network = TanhMLP(6, 1, spectral=True)
    variables = network.init(KEY, Z)
    for _ in range(40):
        _, statistics = network.apply(variables, Z, mutable=[STATISTICS])
        variables = {**variables, **statistics}
    found = network.apply(variables, Z, mutable=[STATISTICS])[0][:, 0]
    distances = np.linalg.norm(Z[:, None] - Z, axis=2)
    assert (np.abs(found[:, None] - found) <= 2 * distances + 1e-5).all()
