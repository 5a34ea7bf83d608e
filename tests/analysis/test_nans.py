"""Where numbers stop being finite: the operation, and the line that asked for it."""

import jax
import jax.numpy as jnp
import pytest

import training
from analysis import nans


def logarithm(x):
    return jnp.log(x)  # The line that is to be named.


def overflow(x):
    return jnp.exp(x * 1e4)


def root(x):
    """Of 0, where the root is finite and its slope is not."""
    return jnp.sqrt(x * 0.0)


def steps(function):
    optimizer = training.create_optimizer(0.1, 0, 0, 0.9, 0.999, 1e-8, 0.0, 0.0)

    def loss_fn(params, key, batch):
        # As in networks: inside a loop, a recomputation and a program of its own.
        inner = jax.checkpoint(jax.jit(function))
        return jax.lax.map(inner, params * batch).sum()

    gradient = training.make_gradient(loss_fn, seed=0)
    step = training.make_step(gradient, optimizer, ema_rate=0.9, ema_warmup=False)
    return step, gradient, training.create_state(jnp.ones(2), optimizer)


@pytest.mark.parametrize(
    ('function', 'batches', 'operation'),
    [
        (logarithm, [1.0, 1.0, -1.0, 1.0], 'step 3: invalid value (nan) encountered in log, at'),
        (overflow, [0.0, 1.0], 'step 2: invalid value (inf) encountered in exp, at'),
        (root, [1.0], 'step 1: invalid value (nan) encountered in mul, at'),
    ],
)
def test_the_first_operation_is_found_with_its_line(function, batches, operation):
    found = nans.locate(*steps(function), jnp.array(batches))
    assert operation in found
    assert f'({function.__name__})' in found
    assert 'test_nans.py:' in found
