"""Processes of parameters that stand for SGD, each as a chain of gradient steps.

    process.batch(key, num_examples) -> which examples a step takes, and their weights

A time of 1 is one step of SGD: `substeps` steps of a process. Weight decay is part of the drift: it
enters with the rate of the step, as the gradient does.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Int

from gradient_noise import weights
from shapes import OneKey, Scalar
from training import Params

# (params, example) -> the loss of one example; all of them are a tree of arrays [examples, ...].
ExampleLoss = Callable[[Params, Any], Scalar]
Examples = Any


class Drawn(NamedTuple):
    """The examples of a step, and what their losses are multiplied by; None: all of them."""

    index: Int[Array, 'batch'] | None
    weights: Float[Array, 'batch']


@runtime_checkable
class Chain(Protocol):
    """What a process is: the batch of a step."""

    batch_size: int
    substeps: int

    def batch(self, key: OneKey, num_examples: int) -> Drawn:
        """The examples of a step, drawn with replacement, and their weights."""


@dataclasses.dataclass(frozen=True)
class SGD:
    """Batches of `batch_size`."""

    batch_size: int
    substeps: int = 1

    def batch(self, key: OneKey, num_examples: int) -> Drawn:
        """One batch."""
        index = jax.random.randint(key, (self.batch_size,), 0, num_examples)
        return Drawn(index, jnp.ones(self.batch_size))


@dataclasses.dataclass(frozen=True)
class SVAG:
    """Two batches of `batch_size` a step, and l = `substeps`."""

    batch_size: int
    substeps: int

    def batch(self, key: OneKey, num_examples: int) -> Drawn:
        """Both batches, one after the other."""
        num = 2 * self.batch_size
        index = jax.random.randint(key, (num,), 0, num_examples)
        return Drawn(index, weights.svag(num, self.substeps))


@dataclasses.dataclass(frozen=True)
class NoisyGradient:
    """The gradient of all examples, with Gaussian noise of the covariance of batches of
    `batch_size`. With `substeps` = 1 it is noisy gradient descent; with more, Euler-Maruyama's
    solution of the SDE in so many steps for one of SGD.
    """

    batch_size: int
    substeps: int = 1

    def batch(self, key: OneKey, num_examples: int) -> Drawn:
        """All examples."""
        z = jax.random.normal(key, (num_examples,))
        return Drawn(None, weights.noisy(z, self.batch_size, self.substeps))


def step(
    chain: Chain,
    loss: ExampleLoss,
    examples: Examples,
    rate: float | Scalar,
    weight_decay: float,
    params: Params,
    drawn: Drawn,
) -> Params:
    """x - rate / l (grad of the weighted loss + weight_decay x), l the chain's `substeps`."""
    taken = examples
    if drawn.index is not None:
        taken = jax.tree.map(lambda rows: rows[drawn.index], examples)

    def weighted(params):
        losses = jax.vmap(loss, (None, 0))(params, taken)
        return weights.weighted_mean(losses, drawn.weights)

    optimizer = optax.chain(
        optax.add_decayed_weights(weight_decay), optax.sgd(rate / chain.substeps)
    )
    updates, _ = optimizer.update(jax.grad(weighted)(params), optimizer.init(params), params)
    return optax.apply_updates(params, updates)


def run(
    chain: Chain,
    loss: ExampleLoss,
    examples: Examples,
    rate: float,
    weight_decay: float,
    params: Params,
    key: OneKey,
    num_records: int,
    every: int,
    measure: Callable[[Params], Any],
) -> tuple[Params, Any]:
    """The parameters after num_records * every steps of SGD, or what stands for them, and what
    `measure` says of them after each `every`, with a leading axis of records.
    """
    num_examples = len(jax.tree.leaves(examples)[0])

    def one(params, key):
        drawn = chain.batch(key, num_examples)
        return step(chain, loss, examples, rate, weight_decay, params, drawn), None

    def until_record(params, key):
        params, _ = lax.scan(one, params, jax.random.split(key, every * chain.substeps))
        return params, measure(params)

    return lax.scan(until_record, params, jax.random.split(key, num_records))
