"""NCSN and NCSNv2: the recorded networks, their pieces, and what their depths are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import models
from choices import InputError
from models.ncsn import NCSN
from models.ncsnv2 import NCSNv2For64
from published import formats, torch_names
from tests.support import golden, networks

X, LABELS = jax.random.normal(jax.random.key(1), (2, 8, 8, 3)), jnp.array([3, 7])


def apply(network, params, x=X, labels=LABELS):
    return networks.quick_jit(network.apply)({'params': params}, x, labels)


# The recorded networks


def test_output_and_parameters_of_ncsnv2_are_the_published_ones():
    network, params, x, labels, y = networks.recorded('ncsnv2')
    found = networks.abstract(network, x.shape)
    assert networks.shapes(networks.flat(found)) == networks.shapes(params)
    found = apply(network, networks.nested(params), x, labels)
    # Tighter than golden.RTOL: 1e-5 of the largest output.
    np.testing.assert_allclose(found, y, atol=1e-5 * np.abs(y).max(), rtol=golden.RTOL)


def test_output_and_parameters_of_ncsn_are_the_original_ones():
    data = golden.load('model_ncsn_torch')
    theirs = {k.removeprefix('params/'): v for k, v in data.items() if k.startswith('params/')}
    network = models.create('ncsn', nf=8, num_classes=10, centered=False)
    inputs = jnp.asarray(data['x']), jnp.asarray(data['labels'])
    parts = formats.outline(lambda key: network.init(key, *inputs)['params']).parts
    params = torch_names.renamed(theirs, parts)
    found = networks.abstract(network, data['x'].shape)
    assert networks.shapes(networks.flat(found)) == networks.shapes(params)
    y = data['y']
    found = apply(network, networks.nested(params), data['x'], data['labels'])
    np.testing.assert_allclose(found, y, atol=1e-5 * np.abs(y).max(), rtol=golden.RTOL)


# Depths


def outputs(network):
    """Features of every residual block and, by its pooling, refine block, in units of nf."""
    params = networks.flat(networks.abstract(network, (1, 16, 16, 3)))
    kernels = {path: p.shape[-1] // network.nf for path, p in params.items() if p.ndim == 4}

    def of(block, part):
        name = f'{block}_{{}}/{part}'.format
        return tuple(kernels[name(i)] for i in range(20) if name(i) in kernels)

    last = {'Residual': 'Conv_1/kernel', 'Refine': 'CRPBlock_0/Conv_0/kernel'}
    blocks = of('ResidualBlock', last['Residual'])
    pooled = of('ResidualBlock', 'ConvMeanPool_1/Conv_0/kernel')
    return blocks, pooled, of('RefineBlock', last['Refine'])


@pytest.mark.parametrize(
    ('name', 'blocks', 'pooled', 'refined'),
    [
        ('ncsnv2_64', (1, 1, 2, 2, 2, 2, 2), (2,), (2, 2, 2, 1)),
        ('ncsnv2_128', (1, 1, 2, 2, 4, 4, 4, 4), (2, 2), (4, 2, 2, 1, 1)),
        ('ncsnv2_256', (1, 1, 2, 2, 2, 4, 4, 4, 4), (2, 2, 2), (4, 2, 2, 2, 1, 1)),
    ],
)
def test_depths_are_the_published_ones(name, blocks, pooled, refined):
    """Blocks that pool have one plain convolution, and so are not among `blocks`."""
    assert outputs(models.create(name, nf=4)) == (blocks, pooled, refined)


@pytest.mark.parametrize(
    ('name', 'multiple'),
    [('ncsn', 2), ('ncsnv2_64', 2), ('ncsnv2_128', 4), ('ncsnv2_256', 8)],
)
def test_sizes_that_the_stages_do_not_divide_are_refused(name, multiple):
    network = models.create(name)
    assert len(network.plan(3 * multiple, multiple)) == len(network.stages)
    for height, width in ((3 * multiple, multiple + 1), (3 * multiple // 2, multiple)):
        with pytest.raises(InputError, match=f'multiples of {multiple}, and images are {height}x'):
            network.plan(height, width)


# Options


@pytest.mark.parametrize('normalization', ['InstanceNorm', 'VarianceNorm', 'GroupNorm'])
@pytest.mark.parametrize('interpolation', ['bilinear', 'nearest_neighbor'])
@pytest.mark.parametrize('nonlinearity', ['elu', 'relu', 'lrelu', 'swish'])
def test_every_combination_of_options_keeps_the_shape(normalization, interpolation, nonlinearity):
    network = models.create(
        'ncsnv2_64',
        nf=32,
        normalization=normalization,
        interpolation=interpolation,
        nonlinearity=nonlinearity,
    )
    found = jax.eval_shape(network.init_with_output, jax.random.key(0), X, LABELS)[0]
    assert (found.shape, found.dtype) == (X.shape, jnp.float32)


def test_images_between_0_and_1_are_mapped_and_the_output_is_over_sigma():
    params = networks.init(models.create('ncsnv2_64', nf=4), X.shape)
    fields = {'sigma_min': 0.01, 'sigma_max': 10.0, 'num_scales': 8}
    y = apply(models.create('ncsnv2_64', nf=4, scale_by_sigma=False), params)
    network = models.create('ncsnv2_64', nf=4, centered=False, **fields)
    sigma = (10.0 * (0.01 / 10.0) ** (np.array(LABELS) / 7)).reshape(2, 1, 1, 1)
    np.testing.assert_allclose(
        apply(network, params, (X + 1) / 2) * sigma, y, rtol=1e-4, atol=1e-4 * np.abs(y).max()
    )


@pytest.mark.parametrize(
    ('name', 'fields', 'message'),
    [
        (
            'ncsn',
            {'normalization': 'GroupNorm'},
            "unknown name 'GroupNorm'",
        ),
        ('ncsnv2_64', {'interpolation': 'cubic'}, "interpolation: unknown name 'cubic'"),
        ('ncsnv2_128', {'normalization': 'BatchNorm'}, "unknown name 'BatchNorm'"),
        ('ncsnv2_256', {'nonlinearity': 'gelu'}, "unknown name 'gelu'"),
        ('ncsnv2_64', {'num_classes': 10}, "num_classes: 'ncsnv2_64' has no such field"),
        ('ncsn', {'dtype': 'float16'}, "dtype: unknown name 'float16'"),
    ],
)
def test_unknown_options_are_refused(name, fields, message):
    with pytest.raises(InputError, match=message):
        models.create(name, **fields)


def test_interpolations_of_the_two_networks_differ_in_what_a_pixel_is():
    """A ramp of 4 pixels at 7: corners aligned, it is a ramp; as squares, its ends are flat."""
    ramp = jnp.arange(4.0).reshape(1, 1, 4, 1)
    aligned = NCSN.interpolations['bilinear'](ramp, 1, 7).ravel()
    np.testing.assert_allclose(aligned, np.arange(7) / 2, atol=1e-6)
    squares = NCSNv2For64.interpolations['bilinear'](ramp, 1, 7).ravel()
    expected = np.clip((np.arange(7) + 0.5) * 4 / 7 - 0.5, 0, 3)
    np.testing.assert_allclose(squares, expected, atol=1e-6)
