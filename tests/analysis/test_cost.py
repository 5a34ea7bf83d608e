"""Operations and memory against closed forms, XLA's own count, and published figures."""

import functools
import importlib

import jax
import jax.numpy as jnp
import pytest
from jax import lax

import models
import training
from analysis import cost
from devices import sharding
from experiments import kinds
from models import blocks, resampling
from models.convolution import conv2d
from models.dropout import Dropout
from tests import tiny_config
from tests.support import networks

X = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)
W = jax.ShapeDtypeStruct((3, 3, 3, 16), jnp.float32)
MATRIX = jax.ShapeDtypeStruct((4, 4), jnp.float32)
MATRIX_FLOPS = 2 * 4**3
SCALAR = jax.ShapeDtypeStruct((), jnp.float32)


@functools.cache
def estimate(batch_size=8, **fields):
    """The cost of the tiny experiment with these fields of its network."""
    config = tiny_config.get_config()
    config.training.batch_size = batch_size
    config.model.update(fields)
    experiment = kinds.create(config)
    of = experiment.init, experiment.loss, experiment.batch_shapes
    return cost.of_training(*of, batch_size, num_devices=2)


def published(name):
    return importlib.import_module(f'configs.{name}').get_config()


# Operations


@pytest.mark.parametrize(('padding', 'pixels'), [('SAME', 8 * 8), ('VALID', 6 * 6)])
def test_a_convolution_has_two_operations_for_each_output_and_weight(padding, pixels):
    convolve = functools.partial(conv2d, padding=padding)
    assert cost.flops(convolve, X, W) == 2 * 2 * pixels * 16 * (3 * 3 * 3)


@pytest.mark.parametrize(('padding', 'pixels'), [('SAME', 8 * 8), ('VALID', 6 * 6)])
def test_gradients_of_a_convolution(padding, pixels):
    """Each weight meets each pixel of the output once, and each pixel of the input once."""

    def loss(x, w):
        return conv2d(x, w, padding).sum()

    by_w, by_x = (cost.flops(jax.grad(loss, i), X, W) for i in (1, 0))
    forward = cost.flops(loss, X, W)
    taps = 2 * 2 * 16 * (3 * 3 * 3)
    assert (by_w - forward, by_x - forward) == (taps * pixels, taps * 8 * 8)


@pytest.mark.parametrize(
    'function',
    [
        lambda x, w: conv2d(x, w, 'VALID'),
        lambda x, w: conv2d(x[:, :5], w, ((0, 0), (0, 0))),
        lambda x, w: lax.conv_general_dilated(
            x, w, (2, 1), 'VALID', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
        ),
        lambda x, w: jnp.einsum('bhwc,uvcf->bhwuvf', x, w),
        lambda x, w: jnp.einsum('bhwc,bgec->bhwge', x, x),
    ],
    ids=['conv', 'cropped', 'lax', 'product', 'batched product'],
)
def test_xla_counts_the_same(function):
    """Where there is neither padding, which XLA does not count, nor anything else."""
    found = jax.jit(function).lower(X, W).cost_analysis()['flops']
    assert cost.flops(function, X, W) == found


def test_attention_by_hand():
    x = jax.ShapeDtypeStruct((2, 4, 6, 8), jnp.float32)
    block = blocks.AttnBlockpp()
    variables = jax.eval_shape(block.init, jax.random.key(0), x)
    tokens, channels = 4 * 6, 8
    projections, products = 4 * tokens * channels**2, 2 * tokens**2 * channels
    multiply_adds = projections + products + norm(channels)
    assert cost.flops(block.apply, variables, x) == 2 * 2 * multiply_adds


def norm(channels):
    """The multiply-adds of a GroupNorm: a product with averages over groups for either moment."""
    return 2 * channels**2


def test_a_network_by_hand():
    network = models.create(
        'ncsnpp',
        nf=8,
        ch_mult=(1,),
        num_res_blocks=1,
        attn_resolutions=(),
        resblock_type='ddpm',
    )
    shape = (1, 8, 8, 3)
    params = networks.abstract(network, shape)
    found = cost.flops(
        lambda params, x, labels: network.apply({'params': params}, x, labels),
        params,
        jax.ShapeDtypeStruct(shape, jnp.float32),
        jnp.ones(1),
    )

    def conv(before, after):
        return 8 * 8 * 9 * before * after

    def block(before, after):
        shortcut = 8 * 8 * before * after if before != after else 0
        convs = conv(before, after) + conv(after, after)
        return convs + 32 * after + norm(before) + norm(after) + shortcut

    embedding = 8 * 32 + 32 * 32
    attention = 4 * 64 * 8**2 + 2 * 64**2 * 8 + norm(8)
    down, middle = conv(3, 8) + block(8, 8), 2 * block(8, 8) + attention
    up = 2 * block(16, 8) + norm(8) + conv(8, 3)
    assert found == 2 * (embedding + down + middle + up)


def test_all_that_a_program_calls_is_counted():
    def product(a):
        return a @ a

    @jax.custom_vjp
    def custom(a):
        return a @ a

    custom.defvjp(lambda a: (a @ a, a), lambda a, g: (g @ a,))
    nested = jax.jit(lambda a: jax.checkpoint(product)(custom(a)))
    assert cost.flops(nested, MATRIX) == 2 * MATRIX_FLOPS
    looped = functools.partial(lax.scan, lambda a, _: (a @ a, None), length=5)
    assert cost.flops(looped, MATRIX) == 5 * MATRIX_FLOPS
    assert cost.flops(lambda a: lax.fori_loop(0, 3, lambda i, a: a @ a, a), MATRIX) == (
        3 * MATRIX_FLOPS
    )
    branches = [lambda a: a, product, lambda a: a @ a @ a]
    assert cost.flops(lambda i, a: lax.switch(i, branches, a), 1, MATRIX) == 2 * MATRIX_FLOPS


def test_loops_of_unknown_length_are_refused_if_they_have_products():
    def halve(a):
        return lax.while_loop(lambda a: a.sum() > 1, lambda a: a / 2, a)

    assert cost.flops(halve, MATRIX) == 0
    with pytest.raises(ValueError, match='loop of unknown length'):
        cost.flops(lambda a: lax.while_loop(lambda a: a.sum() > 1, lambda a: a @ a, a), MATRIX)


def test_xla_counts_nearly_the_same_of_a_published_network():
    """It adds what is neither convolution nor product, and leaves out what meets padding."""
    network = kinds.create(published('vp.cifar10_ddpmpp_continuous')).model.network
    x, labels = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32), jnp.ones(1)
    variables = jax.eval_shape(network.init, jax.random.key(0), x, labels)
    found = cost.flops(network.apply, variables, x, labels)
    xla = jax.jit(network.apply).lower(variables, x, labels).cost_analysis()['flops']
    assert found == pytest.approx(xla, rel=0.1)


@pytest.mark.parametrize(
    ('name', 'giga_multiply_adds'), [('vp.ddpm.cifar10', 6.1), ('vp.ddpm.church', 248.7)]
)
def test_published_networks_take_the_published_operations(name, giga_multiply_adds, monkeypatch):
    """Those that Fang et al. 2023 (arXiv:2305.10924) measured of DDPM in PyTorch, where no change
    of size is fused with its convolution. Their network has two attention blocks more, which are 1
    % of it, and attention's products were not counted.
    """

    def strided(x, w, padding='SAME'):
        dimensions = ('NHWC', 'HWIO', 'NHWC')
        return lax.conv_general_dilated(x, w, (2, 2), padding, dimension_numbers=dimensions)

    def upsampled(x, w):
        return conv2d(resampling.naive_upsample_2d(x), w)

    monkeypatch.setattr(blocks, 'conv2d_stride2', strided)
    monkeypatch.setattr(resampling, 'naive_upsample_conv_2d', upsampled)
    model = kinds.create(published(name)).model
    found = cost.flops(model.init_params, jax.random.key(0))
    assert found / 2e9 == pytest.approx(giga_multiply_adds, rel=0.02)


# Training steps


def test_a_step_is_linear_in_the_batch_and_takes_three_forward_passes():
    small, large = estimate(), estimate(32)
    assert large.step.flops == 4 * small.step.flops
    # The keys of a step do not become more.
    assert large.step.activations == pytest.approx(4 * small.step.activations, rel=1e-3)
    # But for the first convolution, which needs no gradient of its input.
    assert small.step.flops == pytest.approx(3 * 8 * small.forward_flops, rel=0.05)


def test_what_a_gradient_keeps_by_hand():
    """The hidden layer; of the last layer the weights, and of the first one the input."""

    def loss(params, x):
        return ((x @ params[0]) @ params[1]).sum()

    params = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((6, 10), (10, 4))]
    step = cost.training_step(loss, params, jax.ShapeDtypeStruct((5, 6), jnp.float32))
    assert step.activations == 4 * 5 * 10
    # Backwards, two products for the last layer, and one for the first.
    assert step.flops == 2 * (2 * 5 * 6 * 10 + 3 * 5 * 10 * 4)


def test_an_array_kept_twice_is_counted_once():
    def loss(w, x):
        hidden = x @ w
        return (hidden @ hidden.T).sum()

    x = jax.ShapeDtypeStruct((5, 6), jnp.float32)
    found = cost.training_step(loss, jax.ShapeDtypeStruct((6, 10), jnp.float32), x)
    assert found.activations in (4 * 5 * 10, 2 * 4 * 5 * 10)  # With its transpose, or without.


def test_dropout_keeps_its_mask_alone():
    """A byte a value."""

    def loss(x, key):
        return Dropout(0.1).apply({}, x, True, rngs={'dropout': key}).sum()

    x = jax.ShapeDtypeStruct((2, 4, 4, 8), jnp.float32)
    found = cost.training_step(loss, x, jax.eval_shape(jax.random.key, 0))
    assert found.activations == x.size


def test_rematerialisation_takes_operations_for_memory():
    plain, again = estimate(), estimate(remat=True)
    assert again.forward_flops == plain.forward_flops
    # At most one forward pass more, to three.
    assert 1.1 < again.step.flops / plain.step.flops < 4 / 3
    assert again.step.activations < 0.5 * plain.step.activations


def test_a_compiled_step_takes_as_much_memory():
    """All temporary buffers of XLA on a CPU: about what the gradient keeps."""
    config = tiny_config.get_config()
    config.data.image_size = (16, 16)
    experiment, key = kinds.create(config), jax.eval_shape(jax.random.key, 0)
    params, batch = jax.eval_shape(experiment.init, key).params, experiment.batch_shapes(8)

    def mean_loss(params, key, batch):
        return experiment.loss(params, key, batch, True).mean()

    step = cost.training_step(mean_loss, params, key, batch)
    compiled = jax.jit(jax.value_and_grad(mean_loss)).lower(params, key, batch).compile()
    found = compiled.memory_analysis().temp_size_in_bytes
    assert 0.5 < found / step.activations < 2


def test_half_of_the_digits_take_less_memory():
    plain, half = estimate(), estimate(dtype='bfloat16')
    assert half.step.flops == plain.step.flops
    assert half.step.activations < 0.95 * plain.step.activations
    assert cost.num_bytes(half.state) == cost.num_bytes(plain.state)


def test_the_state_is_four_times_the_parameters():
    found = estimate()
    numbers = cost.num_params(found.state.params)
    # Two moments, and counters.
    assert 0 <= cost.num_bytes(found.state.opt_state) - 2 * 4 * numbers < 100
    assert cost.num_bytes(found.state.params) == 4 * numbers
    parts = cost.parts(found.state.params)
    assert sum(size for _, size in parts) == numbers
    assert [size for _, size in parts] == sorted((size for _, size in parts), reverse=True)
    assert any(name.endswith(' ResnetBlockDDPMpp') for name, _ in parts)


# Reports


def test_activations_are_split_over_devices_and_the_state_is_not():
    found = estimate()._replace(num_devices=4)
    state, kept = cost.num_bytes(found.state), found.step.activations
    gradient = cost.num_bytes(found.state.params)
    lines = cost.report(found).splitlines()
    assert any(line.endswith(cost.memory(kept // 4)) for line in lines)
    total = next(line for line in lines if 'all of these' in line)
    assert total.endswith(cost.memory(state + gradient + kept // 4))


def test_a_mesh_that_splits_the_state_is_counted_so():
    """Split four ways, one device holds a quarter; a step gathers the parameters besides."""
    leaves = {'kernel': jax.ShapeDtypeStruct((8, 1024), jnp.float32), 'bias': SCALAR}
    mesh = jax.sharding.AbstractMesh((2, 4), sharding.AXES)
    laid_out = sharding.laid_out(mesh, leaves)
    assert cost.num_bytes_of_each(laid_out) == 8 * 1024 * 4 // 4 + 4
    assert cost.num_bytes_of_each(leaves) == cost.num_bytes(leaves) == 8 * 1024 * 4 + 4

    state = training.TrainState(SCALAR, SCALAR, laid_out, laid_out, laid_out)
    report = cost.report(cost.Cost(state, 1, cost.Step(1, 800), batch_size=8, num_devices=8))
    held, whole = 3 * (8 * 1024 + 4), 8 * 1024 * 4 + 4
    (line,) = [line for line in report.splitlines() if 'of the first three' in line]
    assert line.endswith(cost.memory(held))
    (line,) = [line for line in report.splitlines() if 'all of these' in line]
    assert line.endswith(cost.memory(held + 2 * whole + 100))


def test_units():
    assert cost.memory(0) == '0 B'
    assert cost.memory(1536) == '1.5 KiB'
    assert cost.operations(12_200_000_000) == '12.2 GFLOP'
    assert cost.operations(3 * 10**18) == '3000 PFLOP'
