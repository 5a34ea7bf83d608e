"""ADM: the network against its equations in float64, and its options."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import models
from choices import InputError
from published import edm_names, edm_networks
from tests.support import edm, networks

TINY = {'nf': 8, 'ch_mult': (1,), 'num_res_blocks': 1, 'attn_resolutions': (), 'dropout': 0.0}
TINY['channels_per_head'] = 4
X, LABELS = jax.random.normal(jax.random.key(1), (2, 8, 8, 3)), jnp.array([0.4, 2.0])


def create(**fields):
    return models.create('adm', **{**TINY, **fields})


def apply(network, params, *args):
    return networks.quick_jit(network.apply)({'params': params}, X, LABELS, *args)


ARGUMENTS = {
    'img_resolution': 8,
    'img_channels': 3,
    'model_type': 'DhariwalUNet',
    'model_channels': 64,
    'num_blocks': 1,
}


@pytest.mark.parametrize(
    'options',
    [
        # One and two heads of 64 features; classes; changes of width.
        {'channel_mult': [1, 2], 'attn_resolutions': [8, 4], 'label_dim': 5},
        # A first level that is wider than the embedding's unit, and no attention beside the middle.
        {'channel_mult': [2, 2], 'attn_resolutions': [], 'channel_mult_emb': 2},
    ],
    ids=['heads', 'wide'],
)
def test_the_network_is_what_the_equations_say(options):
    arguments = ARGUMENTS | options
    state = edm.random_state(edm.dhariwal(**arguments))
    fields = edm_networks.fields('EDMPrecond', arguments)
    params = networks.nested(edm_names.renamed(state, fields))
    own = {k.removeprefix('model.'): v for k, v in fields.items() if k.startswith('model.')}
    del own['parameterization']
    network = models.create(**own)
    classes = [0, 4] if 'label_dim' in arguments else None
    expected = edm.adm(
        state, arguments, np.float64(X).transpose(0, 3, 1, 2), np.log(LABELS), classes
    ).transpose(0, 2, 3, 1)
    given = () if classes is None else (jnp.array(classes),)
    y = apply(network, params, *given)
    # Random parameters make it large; float32 keeps six digits of the largest.
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_minus_one_is_no_class():
    network = create(num_classes=10)
    params = networks.init(network, X.shape)
    three, four, unknown, none = (
        apply(network, params, *given)
        for given in ((jnp.full(2, 3),), (jnp.full(2, 4),), (jnp.full(2, -1),), ())
    )
    assert np.abs(three - four).max() > 1e-4
    np.testing.assert_allclose(unknown, none, atol=1e-6)


def test_classes_are_refused_by_a_network_that_knows_none():
    with pytest.raises(InputError, match='num_classes: classes are given'):
        jax.eval_shape(create().init, jax.random.key(0), X, LABELS, jnp.zeros(2, jnp.int32))


def test_the_output_is_zero_at_first():
    network = create()
    y, _ = networks.quick_jit(network.init_with_output)(jax.random.key(0), X, LABELS)
    np.testing.assert_array_equal(y, 0)


def test_an_unconditional_network_does_not_see_the_label():
    network = create(conditional=False)
    params = networks.init(network, X.shape)
    assert not any('Dense' in path for path in networks.flat(params))
    other = networks.quick_jit(network.apply)({'params': params}, X, 5 * LABELS)
    np.testing.assert_array_equal(apply(network, params), other)


def test_the_embedding_is_of_the_logarithm_by_default():
    of_log, plain = create(), create(embedding_type='positional')
    params = networks.init(plain, X.shape)
    y = networks.quick_jit(plain.apply)({'params': params}, X, jnp.log(LABELS))
    np.testing.assert_allclose(apply(of_log, params), y, rtol=1e-4, atol=1e-4 * np.abs(y).max())


@pytest.mark.parametrize(
    ('embedding', 'labels', 'sigmas'),
    [
        ('log_positional', jnp.array([0.4, 2.0]), [0.4, 2.0]),
        ('positional', jnp.array([0, 999]), [50.0, 0.01]),
    ],
)
def test_the_output_is_over_the_sigma_of_the_label(embedding, labels, sigmas):
    plain, scaled = (
        create(embedding_type=embedding, scale_by_sigma=scale) for scale in (False, True)
    )
    params = networks.init(plain, X.shape)
    y, y_scaled = (
        networks.quick_jit(network.apply)({'params': params}, X, labels)
        for network in (plain, scaled)
    )
    np.testing.assert_allclose(
        y_scaled * np.array(sigmas).reshape(2, 1, 1, 1), y, rtol=1e-4, atol=1e-4 * np.abs(y).max()
    )


def test_the_shortcut_of_a_change_of_size_may_be_a_convolution():
    fields = {'ch_mult': (1, 1)}
    with_conv, without = (create(**fields, resamp_with_conv=value) for value in (True, False))
    params = networks.init(with_conv, X.shape)
    # Of the blocks that double and halve; those that others have change the width.
    resizing = ['ResnetBlockADM_1', 'ResnetBlockADM_7']
    plain = networks.flat(networks.abstract(without, X.shape))
    extra = networks.flat(params).keys() - plain.keys()
    assert extra == {f'{block}/Conv_2/{leaf}' for block in resizing for leaf in ('kernel', 'bias')}
    for block in resizing:
        params[block]['Conv_2'] = {'kernel': jnp.eye(8)[None, None], 'bias': jnp.zeros(8)}
    kept = networks.nested({k: v for k, v in networks.flat(params).items() if k in plain})
    y = apply(without, kept)
    np.testing.assert_allclose(apply(with_conv, params), y, rtol=1e-4, atol=1e-4 * np.abs(y).max())


@pytest.mark.parametrize(
    ('nf', 'size', 'heads'), [(8, 64, 'any'), (28, 9, '3')], ids=['none', 'some']
)
def test_features_that_make_no_heads_are_refused(nf, size, heads):
    said = f'channels_per_head: {size}, and attention is over {nf} features.* {heads} heads'
    with pytest.raises(InputError, match=said):
        create(nf=nf, channels_per_head=size).plan(8, 8)


def test_features_that_are_left_over_are_shared_among_the_heads():
    assert create(nf=20, channels_per_head=7).plan(8, 8)[0].features == 20
