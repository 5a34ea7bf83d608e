"""Fields that all networks have: `dtype`, `precision` and `remat`."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import models
from models import layers, ncsn, normalization, resampling
from tests.support import networks

UNET = {'nf': 8, 'ch_mult': (1,), 'num_res_blocks': 1, 'attn_resolutions': (), 'dropout': 0.5}
FIELDS = {
    'ncsnpp': UNET,
    'ddpm': {**UNET, 'normalization': 'InstanceNorm++'},
    'adm': {**UNET, 'channels_per_head': 4},
    'residual_mlp': {'width': 8},
    'energy_mlp': {'width': 8},
    'normalised_mlp': {'width': 12, 'num_layers': 4},
    'wideresnet': {'blocks_per_group': 1, 'channel_multiplier': 1},
}
X, LABELS = jax.random.normal(jax.random.key(1), (2, 8, 8, 3)), jnp.array([3, 7])


def labels_of(network):
    """A classifier is told how noisy images are, by numbers that are no levels."""
    is_classifier = isinstance(network, tuple(models.CLASSIFIERS.values()))
    return LABELS.astype(jnp.float32) if is_classifier else LABELS


def create(name, **fields):
    return models.create(name, **FIELDS.get(name, {'nf': 4}), **fields)


def traced(network):
    """The shapes of the output and the variables, and the program that makes both, as text."""
    jaxpr, shapes = jax.make_jaxpr(network.init_with_output, return_shape=True)(
        jax.random.key(0), X, labels_of(network)
    )
    return shapes, str(jaxpr)


def check_equal_gradients(plain, again, params, *args, **kwargs):
    """Outputs and gradients of two modules, of which the second alone computes twice."""

    def loss(module, params):
        y = module.apply({'params': params}, *args, **kwargs)
        return jnp.mean(y**2), y

    def run(module):
        gradient = jax.value_and_grad(lambda params: loss(module, params), has_aux=True)
        traced = networks.quick_jit(gradient).trace(params)
        return str(traced.jaxpr), traced.lower().compile()(params)

    (jaxpr, ((_, y), gradient)), (other, ((_, y_again), gradient_again)) = map(run, (plain, again))
    assert 'remat' in other
    assert 'remat' not in jaxpr
    np.testing.assert_allclose(y_again, y, rtol=1e-5, atol=1e-5 * np.abs(y).max())
    for a, b in zip(*map(jax.tree.leaves, (gradient_again, gradient)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5 * np.abs(b).max() + 1e-7)


@pytest.mark.parametrize('name', FIELDS)
def test_rematerialisation_changes_nothing_but_memory(name):
    """Dropout neither."""
    plain, again = (create(name, remat=remat) for remat in (False, True))
    params = networks.init(plain, X.shape)
    rngs = {'dropout': jax.random.key(2)}
    check_equal_gradients(plain, again, params, X, labels_of(plain), train=True, rngs=rngs)


def test_rematerialisation_of_the_blocks_of_ncsn_changes_nothing_but_memory():
    def norm(**fields):
        return normalization.ConditionalInstanceNorm2dPlus(10, **fields)

    fields = {'norm': norm, 'act': layers.ACTIVATIONS['elu']}
    fine, coarse = jax.random.normal(jax.random.key(3), (2, 2, 4, 4, 4))
    for block, options, x in (
        (ncsn.ConditionalResidualBlock, {'down': True}, fine),
        (
            ncsn.CondRefineBlock,
            {'num_units': 1, 'resize': resampling.resize_bilinear},
            (fine, coarse[:, :2, :2]),
        ),
    ):
        plain, again = (
            layers.recomputing(block, remat)(features=4, **options, **fields)
            for remat in (False, True)
        )
        variables = jax.eval_shape(plain.init, jax.random.key(0), x, LABELS)
        params = networks.randomised(variables['params'])
        check_equal_gradients(plain, again, params, x, LABELS)


@pytest.mark.parametrize('name', models.MODELS)
def test_rematerialisation_keeps_the_names_of_parameters_and_is_asked_for(name):
    (plain, program), (again, other) = (
        traced(create(name, remat=remat)) for remat in (False, True)
    )
    assert again == plain
    assert 'remat' in other
    assert 'remat' not in program


@pytest.mark.parametrize('name', models.MODELS)
def test_parameters_and_outputs_are_float32_and_the_rest_is_not(name):
    shapes, program = traced(create(name, dtype='bfloat16'))
    assert {a.dtype for a in jax.tree.leaves(shapes)} == {jnp.dtype('float32')}
    # Of a network without convolutions, all products.
    is_mlp = name in ('residual_mlp', 'energy_mlp', 'normalised_mlp')
    product = ' dot_general[' if is_mlp else ' conv2d['
    products = [line for line in program.splitlines() if product in line]
    assert products
    assert all(':bf16[' in line for line in products)


def test_bfloat16_computes_close_to_float32():
    exact, coarse = (create('ddpm', dtype=dtype) for dtype in ('float32', 'bfloat16'))
    params = networks.init(exact, X.shape)
    y, y_coarse = (
        networks.quick_jit(network.apply)({'params': params}, X, LABELS)
        for network in (exact, coarse)
    )
    # bfloat16 has 8 bits; dozens of layers add up.
    difference = np.abs(y_coarse - y).mean() / np.abs(y).mean()
    assert 1e-4 < difference < 0.1


@pytest.mark.parametrize('name', models.MODELS)
def test_every_product_of_a_network_and_of_its_gradient_is_as_precise_as_asked_for(name):
    network = create(name, precision='highest')
    x, labels = jnp.ones((1, 32, 32, 3)), labels_of(network)[:1]
    params = networks.abstract(network, x.shape, labels)

    def loss(params, x):
        return network.apply({'params': params}, x, labels).sum()

    lowered = jax.jit(jax.grad(loss, (0, 1))).trace(params, x).lower(lowering_platforms=('cuda',))
    lines = lowered.as_text().splitlines()
    found = [line for line in lines if re.search(r'stablehlo\.(convolution|dot)', line)]
    assert len(found) > 10
    assert all(line.count('HIGHEST') == 2 for line in found)
