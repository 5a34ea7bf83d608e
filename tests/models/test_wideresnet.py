"""The noise-conditional wide ResNet against an implementation by JAX's own convolutions."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import models
from choices import InputError
from models import wideresnet
from tests.support import networks

SMALL = {'blocks_per_group': 2, 'channel_multiplier': 2, 'num_classes': 3, 'embedding_size': 2}


def create(**fields):
    return models.create('wideresnet', **{**SMALL, **fields})


def init(network, shape):
    """Random parameters. Scales are around 1, or images would hardly matter."""
    params = networks.flat(networks.init(network, shape))
    return networks.nested({path: value + path.endswith('scale') for path, value in params.items()})


def group(i, c, width, blocks):
    """Names and shapes of the parameters of a published group, of which `c` features come in."""
    shapes = {}
    for block in range(blocks):
        path = f'WideResnetGroup_{i}/WideResnetBlock_{block}'
        shapes |= {f'{path}/init_bn/{name}': (c,) for name in ('scale', 'bias')}
        shapes |= {f'{path}/bn_2/{name}': (width,) for name in ('scale', 'bias')}
        shapes |= {f'{path}/conv1/kernel': (3, 3, c, width)}
        shapes |= {f'{path}/conv2/kernel': (3, 3, width, width)}
        shapes |= {f'{path}/Dense_0/kernel': (512, width), f'{path}/Dense_0/bias': (width,)}
        c = width
    return shapes


def test_parameters_are_the_published_ones():
    """Of WRN-28-10 for CIFAR-10, as published: `models/wideresnet_noise_conditional.py`."""
    expected = {
        'GaussianFourierProjection_0/W': (128,),
        'Dense_0/kernel': (256, 512),
        'Dense_0/bias': (512,),
        'Dense_1/kernel': (512, 512),
        'Dense_1/bias': (512,),
        'init_conv/kernel': (3, 3, 3, 16),
        **group(0, 16, 160, 4),
        **group(1, 160, 320, 4),
        **group(2, 320, 640, 4),
        'pre-pool-bn/scale': (640,),
        'pre-pool-bn/bias': (640,),
        'Dense_2/kernel': (640, 10),
        'Dense_2/bias': (10,),
    }
    found = networks.abstract(models.create('wideresnet'), (1, 32, 32, 3))
    assert networks.shapes(networks.flat(found)) == expected
    # Wide ResNets of this size have 36.5 M, of which the shortcuts, that are not here, have 0.27;
    # the embedding and what it tells the blocks have more.
    embedding = 128 + 257 * 512 + 513 * 512 + 513 * 4 * (160 + 320 + 640)
    total = sum(math.prod(shape) for shape in expected.values())
    shortcuts = 16 * 160 + 160 * 320 + 320 * 640
    assert f'{(total - embedding + shortcuts) / 1e6:.1f}' == '36.5'


def reference(params, x, sigmas, blocks):
    """The network by flax and lax, from parameters by path."""

    def dense(path, h):
        return h @ params[f'{path}/kernel'] + params[f'{path}/bias']

    def conv(path, h, stride=1):
        return lax.conv_general_dilated(
            h,
            params[f'{path}/kernel'],
            (stride, stride),
            'SAME',
            dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
        )

    def norm_relu(path, h):
        norm = nn.GroupNorm(num_groups=min(h.shape[-1] // 4, 32), epsilon=1e-5)
        weights = {name: params[f'{path}/{name}'] for name in ('scale', 'bias')}
        return nn.relu(norm.apply({'params': weights}, h))

    axes = (1, 2, 3)
    std = jnp.maximum(x.std(axes, keepdims=True), 1 / math.sqrt(x[0].size))
    h = conv('init_conv', (x - x.mean(axes, keepdims=True)) / std)
    angles = jnp.log(sigmas)[:, None] * params['GaussianFourierProjection_0/W'] * 2 * jnp.pi
    temb = dense('Dense_0', jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1))
    temb = nn.swish(dense('Dense_1', nn.swish(temb)))
    for i in range(3):
        for block in range(blocks):
            path = f'WideResnetGroup_{i}/WideResnetBlock_{block}'
            stride = 2 if i > 0 and block == 0 else 1
            residual = norm_relu(f'{path}/init_bn', h)
            h = residual if i == block == 0 else h
            residual = conv(f'{path}/conv1', residual, stride)
            residual += dense(f'{path}/Dense_0', temb)[:, None, None, :]
            residual = conv(f'{path}/conv2', norm_relu(f'{path}/bn_2', residual))
            h = nn.avg_pool(h, (stride, stride), (stride, stride))
            h = residual + jnp.pad(h, [(0, 0)] * 3 + [(0, residual.shape[-1] - h.shape[-1])])
    return dense('Dense_2', norm_relu('pre-pool-bn', h).mean((1, 2)))


@pytest.fixture(scope='module')
def inputs():
    x = jax.random.normal(jax.random.key(1), (3, 8, 12, 3))
    return x * jnp.array([1e-3, 1.0, 100.0])[:, None, None, None], jnp.array([0.01, 1.0, 30.0])


def test_outputs_are_those_of_the_reference(inputs):
    network = create()
    params = init(network, inputs[0].shape)
    expected = networks.quick_jit(lambda *args: reference(*args, blocks=2))(
        networks.flat(params), *inputs
    )
    found = networks.quick_jit(network.apply)({'params': params}, *inputs)
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_a_constant_image_has_a_gradient():
    """Of the standard deviation, at zero, there is none."""
    gradient = jax.grad(lambda x: wideresnet.standardize(x)[0, 0, 0, 0])(jnp.ones((1, 4, 4, 1)))
    # d (x - mean) / dx over 1 / sqrt(16).
    np.testing.assert_allclose(gradient[0, 0, 0, 0], 4 * (1 - 1 / 16), rtol=1e-6)


def test_channels_are_normalised_before_images():
    mean, std = (0.2, 0.5, -0.1), (1.0, 2.0, 0.5)
    plain, normalising = create(), create(channel_mean=mean, channel_std=std)
    x = jax.random.normal(jax.random.key(2), (1, 8, 8, 3))
    params, sigmas = {'params': init(plain, x.shape)}, jnp.ones(1)
    expected = networks.quick_jit(plain.apply)(
        params, (x - jnp.array(mean)) / jnp.array(std), sigmas
    )
    found = networks.quick_jit(normalising.apply)(params, x, sigmas)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(networks.quick_jit(plain.apply)(params, x, sigmas) - expected).max() > 0.1


@pytest.mark.parametrize(
    ('shape', 'fields', 'message'),
    [
        ((30, 32), {}, 'image_size: 30x32.*multiples of 4'),
        ((32, 32), {'channel_multiplier': 0}, 'channel_multiplier: 0; a number of at least 1'),
        ((32, 32), {'dtype': 'half'}, "dtype: unknown name 'half'"),
    ],
)
def test_what_does_not_fit_is_refused(shape, fields, message):
    with pytest.raises(InputError, match=message):
        create(**fields).plan(*shape)
