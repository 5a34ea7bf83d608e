"""DDPM: the recorded network, and options that equal others for known parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import models
from choices import InputError
from tests.support import golden, networks

TINY = {'nf': 4, 'ch_mult': (1, 1), 'num_res_blocks': 1, 'attn_resolutions': (), 'dropout': 0.0}
TINY['normalization'] = 'InstanceNorm++'  # Takes any number of channels.
X, LABELS = jax.random.normal(jax.random.key(1), (2, 8, 8, 3)), jnp.array([3, 700])


def create(**fields):
    return models.create('ddpm', **{**TINY, **fields})


def apply(network, params, x=X, labels=LABELS):
    return networks.quick_jit(network.apply)({'params': params}, x, labels)


def changed(params, **groups):
    """The parameters whose path ends so, set to a value."""
    flat = networks.flat(params)
    for path, value in groups.items():
        ending = path.replace('__', '/')
        matching = [name for name in flat if ending in name]
        assert matching
        for name in matching:
            flat[name] = jnp.broadcast_to(value, flat[name].shape)
    return networks.nested(flat)


def test_output_and_parameters_are_the_published_ones():
    network, params, x, labels, y = networks.recorded('ddpm_vp')
    assert networks.shapes(networks.flat(networks.abstract(network, x.shape))) == networks.shapes(
        params
    )
    found = apply(network, networks.nested(params), x, labels)
    # Tighter than golden.RTOL: 1e-5 of the largest output.
    np.testing.assert_allclose(found, y, atol=1e-5 * np.abs(y).max(), rtol=golden.RTOL)


def test_the_cifar_network_has_the_published_size():
    """Ho et al. 2020 count 35.7 million, with attention after each of the three blocks of the way
    up at 16x16; score_sde has it after the last one alone."""
    fields = {'nf': 128, 'ch_mult': (1, 2, 2, 2), 'num_res_blocks': 2, 'attn_resolutions': (16,)}
    params = networks.abstract(models.create('ddpm', **fields), (1, 32, 32, 3))

    def count(tree):
        return sum(p.size for p in jax.tree.leaves(tree))

    assert (count(params) + 2 * count(params['AttnBlock_0'])) / 1e6 == pytest.approx(35.7, abs=0.05)


def test_changes_of_size_without_convolution_are_means_and_repeated_pixels():
    """Which convolutions are for these kernels."""
    network = create()
    params = networks.init(network, X.shape)
    identity = jnp.eye(4)
    mean = jnp.zeros((3, 3, 4, 4)).at[:2, :2].set(identity / 4)
    same = jnp.zeros((3, 3, 4, 4)).at[1, 1].set(identity)
    params = changed(
        params,
        Downsample_0__Conv_0__kernel=mean,
        Downsample_0__Conv_0__bias=0.0,
        Upsample_0__Conv_0__kernel=same,
        Upsample_0__Conv_0__bias=0.0,
    )
    plain = create(resamp_with_conv=False)
    kept = {k: v for k, v in params.items() if 'sample' not in k}
    assert networks.flat(networks.abstract(plain, X.shape)).keys() == networks.flat(kept).keys()
    y = apply(network, params)
    np.testing.assert_allclose(apply(plain, kept), y, rtol=1e-4, atol=1e-4 * np.abs(y).max())


def test_an_unconditional_network_is_one_that_ignores_the_embedding():
    network = create(ch_mult=(1,))
    params = changed(networks.init(network, X.shape), ResnetBlockDDPM=0.1, __Dense_0__=0.0)
    plain = create(ch_mult=(1,), conditional=False)
    kept = {
        block: {k: v for k, v in parts.items() if k != 'Dense_0'} if 'Resnet' in block else parts
        for block, parts in params.items()
        if 'Dense' not in block
    }
    assert networks.flat(networks.abstract(plain, X.shape)).keys() == networks.flat(kept).keys()
    y = apply(network, params)
    np.testing.assert_allclose(apply(plain, kept), y, rtol=1e-5, atol=1e-6)


def test_images_between_0_and_1_are_mapped_and_the_output_is_over_sigma():
    params = networks.init(create(ch_mult=(1,)), X.shape)
    fields = {'sigma_min': 0.01, 'sigma_max': 10.0, 'num_scales': 1000}
    network = create(ch_mult=(1,), centered=False, scale_by_sigma=True, **fields)
    y = apply(create(ch_mult=(1,)), params)
    sigma = (10.0 * (0.01 / 10.0) ** (np.array(LABELS) / 999)).reshape(2, 1, 1, 1)
    np.testing.assert_allclose(
        apply(network, params, (X + 1) / 2) * sigma, y, rtol=1e-4, atol=1e-4 * np.abs(y).max()
    )


@pytest.mark.parametrize('normalization', ['InstanceNorm', 'VarianceNorm', 'GroupNorm'])
@pytest.mark.parametrize('resamp_with_conv', [False, True])
@pytest.mark.parametrize('conditional', [False, True])
def test_every_combination_of_options_keeps_the_shape(normalization, resamp_with_conv, conditional):
    network = create(
        nf=32,
        attn_resolutions=(8,),
        normalization=normalization,
        resamp_with_conv=resamp_with_conv,
        conditional=conditional,
        nonlinearity='elu',
    )
    found = jax.eval_shape(network.init_with_output, jax.random.key(0), X, LABELS)[0]
    assert (found.shape, found.dtype) == (X.shape, jnp.float32)


def test_attention_is_at_the_levels_of_the_named_heights():
    def blocks(*heights):
        names = networks.abstract(create(ch_mult=(1, 1, 1), attn_resolutions=heights), X.shape)
        return sum(name.startswith('AttnBlock') for name in names)

    # One in the middle; at each level one for its block and one on the way up.
    assert [blocks(), blocks(8), blocks(4, 2)] == [1, 3, 5]
    with pytest.raises(InputError, match=r'no level has 16 rows.* levels have \[8, 4, 2\]'):
        blocks(4, 16)


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'normalization': 'BatchNorm'}, "normalization: unknown name 'BatchNorm'.*InstanceNorm"),
        ({'nonlinearity': 'gelu'}, "nonlinearity: unknown name 'gelu'"),
        ({'dtype': 'float16'}, "dtype: unknown name 'float16'.*known: float32, bfloat16"),
        ({'fir': True}, "fir: 'ddpm' has no such field"),
    ],
)
def test_unknown_options_are_refused(fields, message):
    with pytest.raises(InputError, match=message):
        create(**fields)


def test_sizes_that_the_depth_does_not_divide_are_refused():
    with pytest.raises(InputError, match='multiples of 4, and images are 8x6'):
        create(ch_mult=(1, 1, 1)).plan(8, 6)
