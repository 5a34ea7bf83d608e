"""What a network is trained by to make residuals vanish: a fixed function of the residual, or a
discriminator that learns to tell it from zero.

    objective(key, state, residual) -> its value, its gradient by the residual, the next state

A step of the network needs no more of an objective than this gradient. Fixed functions have no
state; that of the discriminator is all that it has learned.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Float

from models.tanh_mlp import STATISTICS
from shapes import OneKey, Scalar

Residual = Float[Array, 'points equations']


class Outcome(NamedTuple):
    """The objective of a residual, its gradient by the residual, and the state after it."""

    value: Scalar
    gradient: Residual
    state: Any


@runtime_checkable
class Objective(Protocol):
    """Anything that a network is trained by."""

    def init(self, key: OneKey, equations: int) -> Any:
        """The state before the first step, for residuals of so many numbers a point."""

    def __call__(self, key: OneKey, state: Any, residual: Residual) -> Outcome:
        """One step."""


# Fixed functions


@dataclasses.dataclass(frozen=True)
class Mean:
    """The mean of `function` over all numbers of the residual."""

    function: Callable[[Array], Array]

    def init(self, key: OneKey, equations: int) -> tuple[()]:
        """There is nothing to remember."""
        return ()

    def __call__(self, key: OneKey, state: tuple[()], residual: Residual) -> Outcome:
        """The mean, and its gradient."""
        value, gradient = jax.value_and_grad(lambda r: self.function(r).mean())(residual)
        return Outcome(value, gradient, state)


def huber(r: Array) -> Array:
    """r^2 / 2 up to |r| = 1, and |r| - 1/2 beyond."""
    return optax.losses.huber_loss(r)


def log_cosh(r: Array) -> Array:
    """log cosh r: r^2 / 2 near 0, |r| far from it."""
    return optax.losses.log_cosh(r)


# The discriminator


class Adversary(NamedTuple):
    """The state of a discriminator: flax variables, of its optimiser, and max(L_G - L_D, 0) of the
    step before."""

    variables: Any
    opt_state: optax.OptState
    noise: Scalar


@dataclasses.dataclass(frozen=True)
class Adversarial:
    """A discriminator D, a TanhMLP with spectral normalisation, that is shown residuals as what is
    false, and zeros as what is true (Bullwinkel et al. 2022, section 3; the generator's loss is the
    one that does not saturate).

        L_G = mean -log D(false),  L_D = (mean -log D(true) + mean -log(1 - D(false))) / 2

    With `instance_noise` both get normal noise, fresh each step, with max(L_G - L_D, 0) of the step
    before as its standard deviation: none as long as D loses.
    """

    network: nn.Module
    optimizer: optax.GradientTransformation
    instance_noise: bool = True

    def init(self, key: OneKey, equations: int) -> Adversary:
        """A discriminator that knows nothing."""
        dtype = self.network.dtype
        variables = self.network.init(key, jnp.zeros((1, equations), dtype))
        opt_state = self.optimizer.init(variables['params'])
        return Adversary(variables, opt_state, jnp.zeros((), dtype))

    def __call__(self, key: OneKey, state: Adversary, residual: Residual) -> Outcome:
        """L_G and its gradient by the discriminator as it is; it then learns from this residual."""
        false, true = residual, jnp.zeros_like(residual)
        if self.instance_noise:
            key_false, key_true = jax.random.split(key)
            dtype = residual.dtype
            false += state.noise * jax.random.normal(key_false, false.shape, dtype)
            true += state.noise * jax.random.normal(key_true, true.shape, dtype)
        on_false, of_false, statistics = jax.vjp(
            lambda params, z: self._logits(state, params, z),
            *(state.variables['params'], false),
            has_aux=True,
        )
        on_true, of_true = jax.vjp(
            lambda params: self._logits(state, params, true)[0], state.variables['params']
        )
        value, slope = jax.value_and_grad(generator_loss)(on_false)
        value_d, slopes = jax.value_and_grad(discriminator_loss, (0, 1))(on_true, on_false)
        _, gradient = of_false(slope)
        grads = jax.tree.map(jnp.add, of_true(slopes[0])[0], of_false(slopes[1])[0])
        updates, opt_state = self.optimizer.update(grads, state.opt_state)
        params = optax.apply_updates(state.variables['params'], updates)
        variables = {**statistics, 'params': params}
        noise = jnp.maximum(value - value_d, 0)
        return Outcome(value, gradient, Adversary(variables, opt_state, noise))

    def losses(self, variables: Any, residual: Residual) -> Float[Array, 'points']:
        """L_G + L_D of each point, without noise, by a discriminator with these variables."""
        state = Adversary(variables, (), jnp.zeros(()))
        on_false, on_true = (
            self._logits(state, variables['params'], z)[0]
            for z in (residual, jnp.zeros_like(residual))
        )
        per_point = jax.vmap(lambda true, false: discriminator_loss(true[None], false[None]))
        return jax.nn.softplus(-on_false) + per_point(on_true, on_false)

    def _logits(self, state: Adversary, params: Any, z: Residual) -> tuple[Array, Any]:
        """The logit of each point, and the singular vectors after that.

        Both calls of a step begin with the same vectors, so that their matrices are the same.
        """
        variables = {**state.variables, 'params': params}
        logits, statistics = self.network.apply(variables, z, mutable=[STATISTICS])
        return logits[:, 0], statistics


def generator_loss(on_false: Float[Array, 'points']) -> Scalar:
    """mean -log D, of logits."""
    return jax.nn.softplus(-on_false).mean()


def discriminator_loss(on_true: Float[Array, 'points'], on_false: Float[Array, 'points']) -> Scalar:
    """(mean -log D + mean -log(1 - D)) / 2, of logits."""
    return (jax.nn.softplus(-on_true).mean() + jax.nn.softplus(on_false).mean()) / 2


FIXED = {
    'l2': Mean(jnp.square),
    'l1': Mean(jnp.abs),
    'huber': Mean(huber),
    'logcosh': Mean(log_cosh),
}
GAN = 'gan'
LOSSES = (GAN, *FIXED)
