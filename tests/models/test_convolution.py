"""The convolution primitive against lax.conv: values, derivatives and vmap."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from models import convolution

X = jax.random.normal(jax.random.key(0), (3, 6, 5, 2))
W = jax.random.normal(jax.random.key(1), (3, 3, 2, 4))
PADDINGS = ['SAME', 'VALID', ((2, 0), (1, 3))]


def reference(x, w, padding='SAME', stride=1):
    # Padded by hand: JAX's own gradients pad negatively, which XLA's CPU backend gets wrong.
    if not isinstance(padding, str):
        x, padding = jnp.pad(x, ((0, 0), *padding, (0, 0))), 'VALID'
    dimensions = ('NHWC', 'HWIO', 'NHWC')
    return lax.conv_general_dilated(x, w, (stride, stride), padding, dimension_numbers=dimensions)


def assert_close(found, expected):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), found, expected
    )


@pytest.mark.parametrize('padding', PADDINGS)
@pytest.mark.parametrize('size', [1, 2, 3])
def test_values_and_derivatives_agree(padding, size):
    w = W[:size, :size]

    def loss(function):
        return lambda x, w: jnp.sum(jnp.sin(function(x, w, padding)))

    ours, theirs = loss(convolution.conv2d), loss(reference)
    assert_close(convolution.conv2d(X, w, padding), reference(X, w, padding))
    assert_close(jax.grad(ours, (0, 1))(X, w), jax.grad(theirs, (0, 1))(X, w))
    assert_close(jax.jvp(ours, (X, w), (X + 1, w - 1)), jax.jvp(theirs, (X, w), (X + 1, w - 1)))


@pytest.mark.parametrize('padding', PADDINGS)
@pytest.mark.parametrize('size', [1, 2, 3])
def test_gradients_of_large_kernels_agree(padding, size):
    """By products: there is no convolution in their programs."""
    channels = 64 if size > 1 else 512
    x = jax.random.normal(jax.random.key(5), (2, 3, 4, channels))
    w = jax.random.normal(jax.random.key(6), (size, size, channels, 48))
    y = jax.random.normal(jax.random.key(7), reference(x, w, padding).shape)
    pads = convolution._pads(x, w, 1, padding)
    _, gradients = jax.vjp(lambda x, w: reference(x, w, padding), x, w)
    for function, args, expected in zip(
        (convolution.input_gradient, convolution.weight_gradient),
        ((y, w), (x, y)),
        gradients(y),
        strict=True,
    ):
        program = jax.jit(functools.partial(function, padding=pads))
        assert 'stablehlo.convolution' not in program.lower(*args).as_text()
        assert_close(program(*args), expected)


def test_products_of_bfloat16_are_summed_in_float32():
    """Of an exact sum rounded once, nearly all values are the nearest."""
    x, w, y = (
        jax.random.normal(jax.random.key(i), shape, jnp.bfloat16)
        for i, shape in enumerate([(2, 3, 4, 64), (3, 3, 64, 48), (2, 3, 4, 48)])
    )
    pads = convolution._pads(x, w, 1, 'SAME')
    for function, args in zip(
        (convolution.input_gradient, convolution.weight_gradient), ((y, w), (x, y)), strict=True
    ):
        found = function(*args, pads)
        exact = function(*(a.astype(jnp.float32) for a in args), pads)
        assert found.dtype == jnp.bfloat16
        assert np.mean(found == exact.astype(jnp.bfloat16)) > 0.99


@pytest.mark.parametrize('first', [jax.grad, jax.jacfwd])
def test_second_derivatives_agree(first):
    def second(function):
        def loss(w):
            return jnp.sum(jnp.sin(function(X, w)))

        return jax.jvp(first(loss), (W,), (W + 1,))[1]

    assert_close(second(convolution.conv2d), second(reference))


@pytest.mark.parametrize('axes', [(0, None), (None, 0), (0, 0), (3, 1)])
def test_vmap_agrees(axes):
    x = X if axes[0] is None else jnp.stack([X, X + 1], axes[0])
    w = W if axes[1] is None else jnp.stack([W, W - 1], axes[1])

    def gradients(function):
        def loss(x, w):
            return jnp.sum(jnp.sin(function(x, w)))

        return jax.vmap(jax.grad(loss, (0, 1)), axes)(x, w)

    assert_close(jax.vmap(convolution.conv2d, axes)(x, w), jax.vmap(reference, axes)(x, w))
    assert_close(gradients(convolution.conv2d), gradients(reference))


def test_an_axis_of_vmap_joins_the_batch_without_parting_it():
    """Devices that share a batch would have to exchange it otherwise."""
    joined = jax.vmap(functools.partial(convolution.conv2d, w=W), 1, 1)
    jaxpr = jax.make_jaxpr(joined)(jnp.stack([X, X + 1], 1)).jaxpr
    names = [equation.primitive.name for equation in jaxpr.eqns]
    assert names.count('reshape') == 2
    assert 'transpose' not in names


@pytest.mark.parametrize('shape', [(2, 8, 8, 2), (2, 7, 6, 2)])
def test_stride_two_agrees(shape):
    x = jax.random.normal(jax.random.key(2), shape)

    def loss(function):
        return lambda x, w: jnp.sum(jnp.sin(function(x, w)))

    assert_close(convolution.conv2d_stride2(x, W), reference(x, W, stride=2))
    ours = jax.grad(loss(convolution.conv2d_stride2), (0, 1))(x, W)
    assert_close(ours, jax.grad(loss(lambda x, w: reference(x, w, stride=2)), (0, 1))(x, W))


def test_gradients_of_a_large_batch_are_summed_in_parts():
    """Where the output does not fit the cache, the weight gradient takes several parts."""
    x = jax.random.normal(jax.random.key(3), (12, 24, 24, 16))
    w = jax.random.normal(jax.random.key(4), (3, 3, 16, 64))

    def gradient(function):
        return jax.jit(jax.grad(lambda w: jnp.sum(jnp.sin(function(x, w)))))(w)

    np.testing.assert_allclose(
        gradient(convolution.conv2d), gradient(reference), rtol=1e-3, atol=1e-2
    )


def test_bfloat16_stays_bfloat16():
    x, w = X.astype(jnp.bfloat16), W.astype(jnp.bfloat16)
    y, gradients = jax.value_and_grad(
        lambda x, w: jnp.sum(convolution.conv2d(x, w).astype(jnp.float32)), (0, 1)
    )(x, w)
    assert [g.dtype for g in gradients] == [jnp.bfloat16] * 2
    np.testing.assert_allclose(y, jnp.sum(reference(X, W)), rtol=0.1, atol=5)


def test_gradients_in_a_loop_hold_no_convolution_but_forward_ones():
    """What the primitive is for: channels last in every convolution of the compiled gradient."""
    text = jax.jit(jax.grad(lambda w: jnp.sum(convolution.conv2d(X, w) ** 2))).lower(W).as_text()
    convolutions = [line for line in text.splitlines() if 'stablehlo.convolution' in line]
    assert convolutions
    assert all('[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]' in line for line in convolutions)


@pytest.mark.parametrize(('height', 'width', 'dilation'), [(7, 10, 2), (8, 4, 4), (2, 3, 4)])
def test_dilated_convolutions_and_their_gradients_are_those_of_jax(height, width, dilation):
    x = jax.random.normal(jax.random.key(2), (2, height, width, 2))

    def with_gradients(op):
        return jax.jit(lambda x, w: (op(x, w), jax.vjp(op, x, w)[1](jnp.sin(op(x, w)))))(x, W)

    def theirs(x, w):
        # The same taps, with zeros between them.
        spread = jnp.zeros((2 * dilation + 1, 2 * dilation + 1, *w.shape[2:]))
        return reference(x, spread.at[::dilation, ::dilation].set(w))

    ours = functools.partial(convolution.dilated_conv2d, dilation=dilation)
    assert_close(with_gradients(ours), with_gradients(theirs))


def test_gradients_have_the_precision_of_the_place_where_a_network_is_applied():
    def loss(x, w):
        with jax.default_matmul_precision('highest'):
            return jnp.sum(jnp.sin(convolution.conv2d(x, w)))

    w = jax.random.normal(jax.random.key(2), (3, 3, X.shape[-1], 5))
    traced = jax.jit(jax.grad(loss, (0, 1))).trace(X, w)
    text = traced.lower(lowering_platforms=('cuda',)).as_text()
    found = [line for line in text.splitlines() if 'stablehlo.convolution' in line]
    assert len(found) == 3
    assert all(line.count('HIGHEST') == 2 for line in found)
