"""The networks as their published JAX code formulates them: the yardstick of benchmarks.networks.

    with published_network.formulation():
        ...  # networks that are traced here are the published ones, with the same parameters

FIR filters are convolutions with one channel over batch x channels, after zeros are inserted;
GroupNorm is flax's, then the activation, and so is dropout; convolutions are JAX's own, with the
gradients it derives, at stride 2 and transposed where ours are rearranged; 1x1 ones are
contractions. Attention is the same: two einsums with all weights in between.
"""

import contextlib
import types
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from models import blocks, convolution, layers, ncsnpp, resampling

NHWC = ('NHWC', 'HWIO', 'NHWC')


@contextlib.contextmanager
def formulation() -> Iterator[None]:
    """Networks traced in this context are formulated as published."""
    with contextlib.ExitStack() as stack:
        for module, name, value in REPLACED:
            stack.enter_context(mock.patch.object(module, name, value))
        stack.enter_context(mock.patch.dict(layers.ACTIVATIONS, swish=jax.nn.swish))
        yield


def bind_conv2d(x, w, *, padding, precision):
    """In place of our primitive, whose gradients are ours too; JAX knows the precision itself."""
    return conv2d(x, w, padding)


def conv2d(x, w, padding='SAME', stride=1):
    """JAX's convolution."""
    return lax.conv_general_dilated(x, w, (stride, stride), padding, dimension_numbers=NHWC)


def conv2d_stride2(x, w, padding='SAME'):
    """JAX's convolution at stride 2."""
    return conv2d(x, w, padding, stride=2)


def contraction(x, w):
    """A 1x1 convolution."""
    return jnp.tensordot(x, w[0, 0], 1)


class GroupNorm(nn.Module):
    """flax's GroupNorm with our parameters, then the activation."""

    act: Callable = lambda x: x
    epsilon: float = 1e-6
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x):
        num_groups = min(x.shape[-1] // 4, 32)
        norm = nn.GroupNorm(num_groups=num_groups, epsilon=self.epsilon, dtype=self.dtype)
        nn.share_scope(self, norm)
        return self.act(norm(x))


class Dropout(nn.Module):
    """flax's, with JAX's random bits."""

    rate: float

    @nn.compact
    def __call__(self, x, train):
        return nn.Dropout(self.rate, deterministic=not train)(x)


def upfirdn_2d(x, kernel, up=1, down=1, pad=(0, 0)):
    """Zeros between pixels, one convolution with the two-dimensional kernel, every `down`-th pixel.

    `kernel` is along one axis. Images of all channels are images of one.
    """
    b, h, w, c = x.shape
    x = x.transpose(0, 3, 1, 2).reshape(b * c, h, 1, w, 1, 1)
    x = jnp.pad(x, ((0, 0), (0, 0), (0, up - 1), (0, 0), (0, up - 1), (0, 0)))
    x = x.reshape(b * c, h * up, w * up, 1)
    x = jnp.pad(x, ((0, 0), pad, pad, (0, 0)))
    taps = np.asarray(kernel, np.float32)[::-1]
    y = conv2d(x, jnp.asarray(np.outer(taps, taps), x.dtype)[:, :, None, None], 'VALID')
    y = y[:, ::down, ::down]
    return y.reshape(b, c, *y.shape[1:3]).transpose(0, 2, 3, 1)


def zero_inserted_conv(x, w):
    """The transposed convolution at stride 2, with `w` not flipped."""
    pads = [(size - 1, size - 1) for size in w.shape[:2]]
    return lax.conv_general_dilated(x, w, (1, 1), pads, lhs_dilation=(2, 2), dimension_numbers=NHWC)


def naive_upsample_conv_2d(x, w):
    """Pixels repeated, then convolved."""
    return conv2d(resampling.naive_upsample_2d(x), w)


# Modules of ours, names in them, and what these stand for.
REPLACED = [
    (blocks, 'conv2d_stride2', conv2d_stride2),
    (blocks, 'GroupNorm', GroupNorm),
    (blocks, 'Dropout', Dropout),
    (layers, 'conv2d', contraction),
    (ncsnpp, 'GroupNorm', GroupNorm),
    (convolution, 'conv2d_p', types.SimpleNamespace(bind=bind_conv2d)),
    (resampling, 'conv2d_stride2', conv2d_stride2),
    (resampling, '_upfirdn_2d', upfirdn_2d),
    (resampling, '_zero_inserted_conv', zero_inserted_conv),
    (resampling, 'naive_upsample_conv_2d', naive_upsample_conv_2d),
]
