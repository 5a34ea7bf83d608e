"""The Inception network that FID is defined by: TensorFlow's graph of 2015-12-05.

It is Inception v3 (Szegedy et al. 2016) but for this: images of any size are resized to 299x299 as
TensorFlow 1 did, without half a pixel's offset, and scaled by (x - 128) / 128; its average pools
divide by the pixels they cover, padding not counted; its last block has a maximum in place of an
average; and there are 1,008 classes. Numbers by any other Inception are not FIDs.

Names of layers are those of PyTorch's ports (mseitzer/pytorch-fid, toshas/torch-fidelity), by which
`from_torch` finds the weights. Batch norms, whose statistics never change, are part of the
convolutions.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from choices import InputError

GRAPH = '2015-12-05, pool_3'  # what cached features are told apart by
SIZE = 299
CLASSES = 1008
NORM_EPS = 1e-3

Activations = Float[Array, 'batch height width channels']
# Of another size and with other channels.
Resized = Float[Array, 'batch _ _ _']
# (name, features, kernel) of a convolution that keeps height and width.
Layer = tuple[str, int, int | tuple[int, int]]


class Outputs(NamedTuple):
    """What FID and KID, and what the Inception score look at."""

    features: Float[Array, 'batch features']  # pool_3
    logits_unbiased: Float[Array, 'batch classes']  # without the bias: as the Inception score is
    logits: Float[Array, 'batch classes']


class Inception(nn.Module):
    """`Inception().apply({'params': params}, images)` are the Outputs for uint8 images, RGB."""

    @nn.compact
    def __call__(self, images: UInt8[Array, 'batch height width 3']) -> Outputs:
        x = (resize(jnp.float32(images), SIZE) - 128) / 128
        x = conv(x, ('Conv2d_1a_3x3', 32, 3), stride=2, padding='VALID')
        x = conv(x, ('Conv2d_2a_3x3', 32, 3), padding='VALID')
        x = conv(x, ('Conv2d_2b_3x3', 64, 3))
        x = halving_max_pool(x)
        x = conv(x, ('Conv2d_3b_1x1', 80, 1))
        x = conv(x, ('Conv2d_4a_3x3', 192, 3), padding='VALID')
        x = halving_max_pool(x)
        for name, pool_features in (('Mixed_5b', 32), ('Mixed_5c', 64), ('Mixed_5d', 64)):
            x = MixedA(pool_features, name=name)(x)
        x = HalvingB(name='Mixed_6a')(x)
        for name, features in zip('bcde', (128, 160, 160, 192), strict=True):
            x = MixedC(features, name=f'Mixed_6{name}')(x)
        x = HalvingD(name='Mixed_7a')(x)
        x = MixedE(average_pool, name='Mixed_7b')(x)
        x = MixedE(max_pool, name='Mixed_7c')(x)
        features = x.mean((1, 2))
        head = nn.Dense(CLASSES, precision='highest', name='fc')
        logits = head(features)
        return Outputs(features, logits - head.variables['params']['bias'], logits)


def resize(images: Activations, size: int) -> Float[Array, 'batch size size channels']:
    """TensorFlow 1's bilinear resize: pixel i of the result is at i * old / new of the image."""
    rows, columns = (_weights(old, size) for old in images.shape[1:3])
    return jnp.einsum('ih,bhwc,jw->bijc', rows, images, columns, precision='highest')


def _weights(old: int, new: int) -> np.ndarray:
    """[new, old]: how much of each pixel is in each new one; beyond the last are its copies."""
    place = np.arange(new, dtype=np.float32) * np.float32(old / new)
    low = place.astype(int)
    weights = np.zeros((new, old), np.float32)
    np.add.at(weights, (np.arange(new), low), 1 - (place - low))
    np.add.at(weights, (np.arange(new), np.minimum(low + 1, old - 1)), place - low)
    return weights


# Layers


def conv(x: Activations, layer: Layer, stride: int = 1, padding: str = 'SAME') -> Resized:
    """Convolution, batch norm and ReLU."""
    name, features, kernel = layer
    kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
    return nn.relu(nn.Conv(features, kernel, stride, padding, precision='highest', name=name)(x))


def chain(x: Activations, *layers: Layer) -> Resized:
    """Convolutions one after another."""
    for layer in layers:
        x = conv(x, layer)
    return x


def average_pool(x: Activations) -> Resized:
    """Means over 3x3 pixels, of those inside the image."""
    return nn.avg_pool(x, (3, 3), padding='SAME', count_include_pad=False)


def max_pool(x: Activations) -> Resized:
    """Maxima over 3x3 pixels."""
    return nn.max_pool(x, (3, 3), padding='SAME')


def halving_max_pool(x: Activations) -> Resized:
    """Maxima over every second 3x3 pixels."""
    return nn.max_pool(x, (3, 3), (2, 2))


def join(*branches: Resized) -> Resized:
    """The features of all branches."""
    return jnp.concatenate(branches, -1)


class MixedA(nn.Module):
    """Kernels of 1, 5, and twice 3."""

    pool_features: int

    @nn.compact
    def __call__(self, x: Activations) -> Resized:
        return join(
            conv(x, ('branch1x1', 64, 1)),
            chain(x, ('branch5x5_1', 48, 1), ('branch5x5_2', 64, 5)),
            chain(
                x,
                ('branch3x3dbl_1', 64, 1),
                ('branch3x3dbl_2', 96, 3),
                ('branch3x3dbl_3', 96, 3),
            ),
            conv(average_pool(x), ('branch_pool', self.pool_features, 1)),
        )


class HalvingB(nn.Module):
    """To half the size."""

    @nn.compact
    def __call__(self, x: Activations) -> Resized:
        h = chain(x, ('branch3x3dbl_1', 64, 1), ('branch3x3dbl_2', 96, 3))
        return join(
            conv(x, ('branch3x3', 384, 3), 2, 'VALID'),
            conv(h, ('branch3x3dbl_3', 96, 3), 2, 'VALID'),
            halving_max_pool(x),
        )


class MixedC(nn.Module):
    """Kernels of 7, one axis after the other."""

    features: int

    @nn.compact
    def __call__(self, x: Activations) -> Resized:
        n = self.features
        return join(
            conv(x, ('branch1x1', 192, 1)),
            chain(
                x,
                ('branch7x7_1', n, 1),
                ('branch7x7_2', n, (1, 7)),
                ('branch7x7_3', 192, (7, 1)),
            ),
            chain(
                x,
                ('branch7x7dbl_1', n, 1),
                ('branch7x7dbl_2', n, (7, 1)),
                ('branch7x7dbl_3', n, (1, 7)),
                ('branch7x7dbl_4', n, (7, 1)),
                ('branch7x7dbl_5', 192, (1, 7)),
            ),
            conv(average_pool(x), ('branch_pool', 192, 1)),
        )


class HalvingD(nn.Module):
    """To half the size."""

    @nn.compact
    def __call__(self, x: Activations) -> Resized:
        h = chain(
            x,
            ('branch7x7x3_1', 192, 1),
            ('branch7x7x3_2', 192, (1, 7)),
            ('branch7x7x3_3', 192, (7, 1)),
        )
        return join(
            conv(conv(x, ('branch3x3_1', 192, 1)), ('branch3x3_2', 320, 3), 2, 'VALID'),
            conv(h, ('branch7x7x3_4', 192, 3), 2, 'VALID'),
            halving_max_pool(x),
        )


class MixedE(nn.Module):
    """Branches that end in two, for rows and for columns."""

    pool: Any

    @nn.compact
    def __call__(self, x: Activations) -> Resized:
        h = conv(x, ('branch3x3_1', 384, 1))
        g = chain(x, ('branch3x3dbl_1', 448, 1), ('branch3x3dbl_2', 384, 3))
        return join(
            conv(x, ('branch1x1', 320, 1)),
            conv(h, ('branch3x3_2a', 384, (1, 3))),
            conv(h, ('branch3x3_2b', 384, (3, 1))),
            conv(g, ('branch3x3dbl_3a', 384, (1, 3))),
            conv(g, ('branch3x3dbl_3b', 384, (3, 1))),
            conv(self.pool(x), ('branch_pool', 192, 1)),
        )


# Weights


def from_torch(state: Mapping[str, np.ndarray]) -> dict:
    """The parameters in arrays named and laid out as by PyTorch's ports.

    Raises InputError for the first that is missing or has another shape.
    """
    abstract = _abstract_params()
    paths = jax.tree_util.tree_flatten_with_path(abstract)[0]
    params: dict = {}
    for path in dict.fromkeys(tuple(key.key for key in path[:-1]) for path, _ in paths):
        *parents, name = path
        node = params
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = _layer(state, '.'.join(path))
    _check_shapes(params, abstract)
    return params


@functools.cache
def _abstract_params():
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.uint8)
    return jax.eval_shape(Inception().init, jax.eval_shape(jax.random.key, 0), images)['params']


def _layer(state, name):
    """A convolution with its batch norm, or the last matrix."""

    def array(part):
        if f'{name}.{part}' not in state:
            raise InputError(f'{name}.{part} is missing')
        return np.asarray(state[f'{name}.{part}'])

    if name == 'fc':
        return {'kernel': np.float32(array('weight').T), 'bias': np.float32(array('bias'))}
    scale = array('bn.weight') / np.sqrt(np.float64(array('bn.running_var')) + NORM_EPS)
    return {
        'kernel': np.float32(array('conv.weight')).transpose(2, 3, 1, 0) * np.float32(scale),
        'bias': np.float32(array('bn.bias') - array('bn.running_mean') * scale),
    }


def _check_shapes(params, abstract):
    def check(path, found, expected):
        if found.shape != expected.shape:
            name = '.'.join(key.key for key in path)
            raise InputError(f'{name} has shape {found.shape}, not {expected.shape}')

    jax.tree_util.tree_map_with_path(check, params, abstract)
