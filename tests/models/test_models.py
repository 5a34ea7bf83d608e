"""NCSN++ and DDPM++ against the published networks, in every combination of options."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import models
from choices import InputError
from models import blocks
from tests.support import golden, networks

SMALL = {
    'nf': 8,
    'ch_mult': (1, 2),
    'num_res_blocks': 1,
    'attn_resolutions': (8,),
    'dropout': 0.0,
    'init_scale': 1.0,  # So that the untrained network does something.
}
TINY = {**SMALL, 'ch_mult': (1,), 'attn_resolutions': ()}  # Compiles in a second.
CIFAR = {'nf': 128, 'ch_mult': (1, 2, 2, 2), 'num_res_blocks': 4, 'attn_resolutions': (16,)}


def abstract(network, shape=(1, 32, 32, 3)):
    """The parameters' shapes, without computing."""
    return networks.abstract(network, shape, jnp.ones(shape[0]))


def init(network, shape=(2, 16, 16, 3)):
    """Random parameters, biases too."""
    return {'params': networks.randomised(abstract(network, shape))}


def count(params):
    return sum(p.size for p in jax.tree.leaves(params))


# The published networks


@pytest.mark.parametrize('name', ['ncsnpp_ve', 'ddpmpp_vp', 'ncsnpp_skips', 'ncsnpp_vp_discrete'])
def test_outputs_and_parameters_are_the_published_ones(name):
    network, params, x, labels, y = networks.recorded(name)
    found = networks.abstract(network, x.shape)
    assert networks.shapes(networks.flat(found)) == networks.shapes(params)
    found = networks.quick_jit(network.apply)({'params': networks.nested(params)}, x, labels)
    np.testing.assert_allclose(found, y, rtol=golden.RTOL, atol=golden.ATOL)


@pytest.mark.parametrize(
    ('millions', 'fields'),
    [
        (
            62.76,
            {'fir': True, 'progressive_input': 'residual', 'embedding_type': 'fourier'},
        ),
        (61.80, {}),
    ],
    ids=['ncsnpp', 'ddpmpp'],
)
def test_cifar_networks_have_the_published_size(millions, fields):
    params = abstract(models.create('ncsnpp', **CIFAR, **fields))
    fixed = 128 if 'embedding_type' in fields else 0  # Frequencies are not counted as parameters.
    assert (count(params) - fixed) / 1e6 == pytest.approx(millions, abs=0.005)


# Options


OPTIONS = list(
    itertools.product(
        ('ddpm', 'biggan'),
        ('none', 'output_skip', 'residual'),
        ('none', 'input_skip', 'residual'),
        ('sum', 'cat'),
        (False, True),
    )
)


@pytest.mark.parametrize(('block', 'out', 'into', 'combine', 'fir'), OPTIONS)
def test_every_combination_of_options_keeps_the_shape(block, out, into, combine, fir):
    network = models.create(
        'ncsnpp',
        **SMALL,
        resblock_type=block,
        progressive=out,
        progressive_input=into,
        progressive_combine=combine,
        fir=fir,
    )
    y = jax.eval_shape(
        lambda: network.init_with_output(jax.random.key(0), jnp.zeros((2, 16, 16, 3)), jnp.ones(2))[
            0
        ]
    )
    assert (y.shape, y.dtype) == ((2, 16, 16, 3), jnp.float32)


@pytest.mark.parametrize(
    ('shape', 'ch_mult', 'rows'),
    [((1, 28, 28, 1), (1, 1, 1), 14), ((1, 8, 24, 3), (1, 2), 8), ((1, 7, 5, 1), (1,), 7)],
)
def test_any_size_that_the_depth_divides_works(shape, ch_mult, rows):
    fields = {**SMALL, 'ch_mult': ch_mult, 'attn_resolutions': (rows,)}
    network = models.create('ncsnpp', **fields)
    y = networks.quick_jit(network.apply)(init(network, shape), jnp.ones(shape), jnp.ones(1))
    assert y.shape == shape
    assert np.isfinite(y).all()


def test_the_output_is_zero_at_first_by_default():
    network = models.create('ncsnpp', **{**TINY, 'init_scale': 0.0})
    x = jax.random.normal(jax.random.key(1), (2, 16, 16, 3))
    # init_scale 0 means variance 1e-10, as published.
    y, _ = networks.quick_jit(network.init_with_output)(jax.random.key(0), x, jnp.ones(2))
    assert np.abs(y).max() < 1e-3


def test_dropout_acts_in_training_alone():
    network = models.create('ncsnpp', **{**TINY, 'dropout': 0.5})
    variables, x = init(network), jax.random.normal(jax.random.key(1), (2, 16, 16, 3))

    def apply(train, seed):
        apply = networks.quick_jit(functools.partial(network.apply, train=train))
        return apply(variables, x, jnp.ones(2), rngs={'dropout': jax.random.key(seed)})

    assert np.abs(apply(True, 0) - apply(True, 1)).max() > 1e-3
    np.testing.assert_array_equal(apply(False, 0), apply(False, 1))


def test_classes_change_the_output_and_minus_one_is_none():
    network = models.create('ncsnpp', **TINY, num_classes=10)
    x, labels = jax.random.normal(jax.random.key(1), (2, 16, 16, 3)), jnp.ones(2)
    variables = init(network)

    def apply(classes):
        return networks.quick_jit(network.apply)(variables, x, labels, classes)

    three, four, unknown = (apply(jnp.full(2, i)) for i in (3, 4, -1))
    assert np.abs(three - four).max() > 1e-4
    np.testing.assert_allclose(unknown, apply(None), atol=1e-6)


def test_classes_may_enter_with_the_noise_level():
    """As in EDM: -1 leaves the bias of their layer."""
    network = models.create('ncsnpp', **TINY, num_classes=10, class_input='features')
    x, labels = jax.random.normal(jax.random.key(1), (2, 16, 16, 3)), jnp.ones(2)
    variables = init(network)
    assert variables['params']['class_embedding']['kernel'].shape == (10, 8)

    def apply(classes):
        return networks.quick_jit(network.apply)(variables, x, labels, classes)

    three, four, unknown = (apply(jnp.full(2, i)) for i in (3, 4, -1))
    assert np.abs(three - four).max() > 1e-4
    np.testing.assert_allclose(unknown, apply(None), atol=1e-6)


def test_the_embedding_may_be_of_the_logarithm_of_the_label():
    plain, of_log = (
        models.create('ncsnpp', **TINY, embedding_type=name)
        for name in ('positional', 'log_positional')
    )
    variables, x = init(plain), jax.random.normal(jax.random.key(1), (2, 16, 16, 3))
    labels = jnp.array([0.3, 2.0])
    y = networks.quick_jit(plain.apply)(variables, x, jnp.log(labels))
    found = networks.quick_jit(of_log.apply)(variables, x, labels)
    np.testing.assert_allclose(found, y, rtol=1e-4, atol=1e-4 * np.abs(y).max())


def test_the_output_is_over_the_sigma_of_the_label():
    """Which is the label if its logarithm is taken, else number `label` of the falling sigmas."""
    x, options = jax.random.normal(jax.random.key(1), (2, 16, 16, 3)), {'sigma_max': 10.0}
    for embedding, labels, sigmas in (
        ('fourier', jnp.array([0.5, 2.0]), [0.5, 2.0]),
        ('log_positional', jnp.array([0.5, 2.0]), [0.5, 2.0]),
        ('positional', jnp.array([0, 999]), [10.0, 0.01]),
    ):
        plain, scaled = (
            models.create(
                'ncsnpp', **TINY, **options, embedding_type=embedding, scale_by_sigma=scale
            )
            for scale in (False, True)
        )
        variables = init(plain)
        y, y_scaled = (networks.quick_jit(f.apply)(variables, x, labels) for f in (plain, scaled))
        sigmas = np.array(sigmas).reshape(2, 1, 1, 1)
        np.testing.assert_allclose(y_scaled * sigmas, y, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    'block',
    [
        blocks.ResnetBlockBigGANpp(8, init_scale=1.0, resample=blocks.downsampling((1, 3, 3, 1))),
        blocks.ResnetBlockDDPMpp(4, init_scale=1.0),
        blocks.AttnBlockpp(init_scale=1.0),
    ],
    ids=lambda block: type(block).__name__,
)
def test_forward_and_reverse_derivatives_agree(block):
    """What likelihoods and guidance ask for; and second derivatives are symmetric."""
    x, v, w = jax.random.normal(jax.random.key(1), (3, 1, 4, 4, 8))
    variables = networks.quick_jit(block.init)(jax.random.key(0), x)

    @networks.quick_jit
    def products(v, w):
        def loss(x):
            return jnp.sum(jnp.sin(block.apply(variables, x)))

        forward = jax.jvp(loss, (x,), (v,))[1]
        second = [jax.jvp(jax.grad(loss), (x,), (u,))[1] for u in (v, w)]
        return (
            forward,
            jnp.vdot(jax.grad(loss)(x), v),
            jnp.vdot(second[0], w),
            jnp.vdot(second[1], v),
        )

    forward, reverse, one, other = products(v, w)
    np.testing.assert_allclose(forward, reverse, rtol=1e-3)
    np.testing.assert_allclose(one, other, rtol=1e-3)


def test_an_unconditional_network_does_not_see_the_label():
    network = models.create('ncsnpp', **TINY, conditional=False)
    variables, x = init(network), jax.random.normal(jax.random.key(1), (2, 16, 16, 3))
    apply = networks.quick_jit(network.apply)
    np.testing.assert_array_equal(
        apply(variables, x, jnp.ones(2)), apply(variables, x, 5 * jnp.ones(2))
    )


# Input


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'resblock_type': 'resnet'}, "unknown name 'resnet'.*known: ddpm, biggan"),
        ({'nonlinearity': 'gelu'}, "unknown name 'gelu'"),
        (
            {'num_blocks': 2},
            "num_blocks: 'ncsnpp' has no such field .did you mean 'num_res_blocks'",
        ),
    ],
)
def test_unknown_options_are_refused(fields, message):
    with pytest.raises(InputError, match=message):
        models.create('ncsnpp', **fields)


def test_sizes_that_the_depth_does_not_divide_are_refused():
    with pytest.raises(InputError, match='multiples of 8, and images are 28x28'):
        abstract(models.create('ncsnpp', **{**SMALL, 'ch_mult': (1, 1, 1, 1)}), (1, 28, 28, 1))
