"""Where numbers stop being finite: the operation, and the line that asked for it."""

import functools

import jax
import jax.numpy as jnp
import pytest

import training
from analysis import nans
from training import MovingAverage, Update


def logarithm(x):
    return jnp.log(x)  # The line that is to be named.


def overflow(x):
    return jnp.exp(x * 1e4)


def root(x):
    """Of 0, where the root is finite and its slope is not."""
    return jnp.sqrt(x * 0.0)


def run(function):
    """A step of training by the mean of a function, and the state before the first one."""
    optimizer = training.create_adam(0.1, 0, 0, 0.9, 0.999, 1e-8, 0.0, 0.0)
    update = Update(optimizer, {training.EMA: MovingAverage(0.9)}, seed=0)

    def loss(params, key, batch):
        # As in networks: inside a loop, a recomputation and a program of its own.
        inner = jax.checkpoint(jax.jit(function))
        return jax.lax.map(inner, params * batch).sum()

    return functools.partial(update.step, loss), update.init(jnp.ones(2))


@pytest.mark.parametrize(
    ('function', 'batches', 'operation'),
    [
        (logarithm, [1.0, 1.0, -1.0, 1.0], 'step 3: invalid value (nan) encountered in log, at'),
        (overflow, [0.0, 1.0], 'step 2: invalid value (inf) encountered in exp, at'),
        (root, [1.0], 'step 1: invalid value (nan) encountered in mul, at'),
    ],
)
def test_the_first_operation_is_found_with_its_line(function, batches, operation):
    found = nans.locate(*run(function), jnp.array(batches))
    assert operation in found
    assert f'({function.__name__})' in found
    assert 'test_nans.py:' in found


def test_a_step_that_fails_only_within_several_is_said_to():
    """As compilers may round differently in a larger program."""
    found = nans.locate(*run(logarithm), jnp.array([1.0, 1.0]))
    assert found == 'step 2: none in a step by itself, only in several compiled together'
