"""The training of networks that solve a problem: one step of one network, and of many at once.

    points -> noise -> residual -> objective -> its gradient by the residual -> Adam

Many networks, from seeds of their own, are one program: all arrays of a state have a leading axis.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from equations.objectives import Objective
from equations.problem import Function, Points, Problem, Values
from models.tanh_mlp import TanhMLP
from shapes import OneKey, Scalar

# Residual monitoring (Bullwinkel et al. 2022, appendix A.7): between these shares of all steps a
# network is given up if the mean |residual| of so many steps in a row has a larger variance.
MONITORED = 0.15, 0.25
WINDOW = 20
MOST_VARIANCE = 0.01
# Networks are computed together as far as they have so few points in all. A CPU multiplies small
# matrices one after another about twice as fast as a stack of them, and for very few points most
# of the time is spent between operations.
POINTS_AT_ONCE = 512


@dataclasses.dataclass(frozen=True)
class Rate:
    """Adam with a learning rate that falls by the factor `decay` every `decay_every` steps."""

    lr: float
    beta1: float
    beta2: float
    decay: float
    decay_every: int

    def optimizer(self) -> optax.GradientTransformation:
        """The optimiser."""
        schedule = optax.exponential_decay(self.lr, self.decay_every, self.decay, staircase=True)
        return optax.adam(schedule, self.beta1, self.beta2)


class State(NamedTuple):
    """One network under training: its parameters, those of its optimiser and of its objective.

    `window` has the mean |residual| of the last steps; `alarmed` says that monitoring has found it
    to scatter too much.
    """

    params: Any
    opt_state: optax.OptState
    objective: Any
    window: Float[Array, 'WINDOW']
    alarmed: Bool[Array, '']


class Report(NamedTuple):
    """Of one step: the objective, the mean squared residual, the norm of the gradient by the
    parameters, and whether it had any effect."""

    loss: Scalar
    residual: Scalar
    grad_norm: Scalar
    updated: Bool[Array, '']


@dataclasses.dataclass(frozen=True)
class Training:
    """How a network is trained, in `num_steps` steps on points around a grid of this `shape`.

    A step whose loss or gradient is not finite changes nothing; with `stop_alarmed` neither do any
    steps after an alarm.
    """

    problem: Problem
    network: TanhMLP
    objective: Objective
    rate: Rate
    shape: tuple[int, ...]
    num_steps: int
    stop_alarmed: bool = False

    def init(self, key: OneKey) -> State:
        """A network before its first step."""
        key_network, key_objective = jax.random.split(key)
        dtype = self.network.dtype
        params = self.network.init(key_network, jnp.zeros((1, self.problem.dim), dtype))['params']
        return State(
            params,
            self.rate.optimizer().init(params),
            self.objective.init(key_objective, self.problem.equations),
            jnp.zeros(WINDOW, dtype),
            jnp.zeros((), bool),
        )

    def step(
        self, key: OneKey, state: State, points: Points, index: Int[Array, '']
    ) -> tuple[State, Report]:
        """Step number `index`, on the points of the grid with noise."""
        key_points, key_objective = jax.random.split(key)
        noise = jax.random.normal(key_points, points.shape, points.dtype)
        z = points + jnp.asarray(self._noise(), points.dtype) * noise
        residual, pull_back = jax.vjp(lambda params: self.residual(params, z), state.params)
        value, slope, objective = self.objective(key_objective, state.objective, residual)
        [grads] = pull_back(slope)
        updates, opt_state = self.rate.optimizer().update(grads, state.opt_state)
        after = State(
            optax.apply_updates(state.params, updates),
            opt_state,
            objective,
            *self._monitored(state, residual, index),
        )
        grad_norm = optax.tree.norm(grads)
        updated = jnp.isfinite(value) & jnp.isfinite(grad_norm)
        if self.stop_alarmed:
            updated &= ~state.alarmed
        kept = jax.tree.map(lambda new, old: jnp.where(updated, new, old), after, state)
        return kept, Report(value, jnp.square(residual).mean(), grad_norm, updated)

    def _monitored(self, state: State, residual: Values, index: Int[Array, '']) -> tuple:
        """The window after a step, and whether there is alarm."""
        window = jnp.roll(state.window, 1).at[0].set(jnp.abs(residual).mean())
        first, last = (round(share * self.num_steps) for share in MONITORED)
        is_watched = (index >= max(first, WINDOW - 1)) & (index < last)
        return window, state.alarmed | is_watched & (window.var() > MOST_VARIANCE)

    def _noise(self) -> np.ndarray:
        """The standard deviation of the noise of points, along each axis."""
        return self.problem.jitter * self.problem.spacing(self.shape)

    # What a network says

    def solution(self, params: Any) -> Function:
        """The wrapped function x(z)."""
        return self.problem.solution(lambda z: self.network.apply({'params': params}, z))

    def residual(self, params: Any, z: Points) -> Values:
        """What is left over of the equation at points, of one network."""
        return self.problem.residual(self.solution(params), z)

    def train(self, key: OneKey) -> tuple[State, Report]:
        """A network from its first step to its last, on the whole grid; and the last report.

        Step i uses the key fold_in(key, i).
        """
        points = jnp.asarray(self.problem.grid(self.shape), self.network.dtype)

        def one(state, index):
            return self.step(jax.random.fold_in(key, index), state, points, index)

        # Only the steps that there are have numbers from 0 on.
        state = self.init(jax.random.fold_in(key, self.num_steps))
        state, reports = lax.scan(one, state, jnp.arange(self.num_steps))
        return state, jax.tree.map(lambda array: array[-1], reports)


def of_each(function: Callable, arguments: Any, points: int) -> Any:
    """`function(argument)` of networks on so many points each, some of them at once: arguments and
    results have a leading axis.
    """
    return lax.map(function, arguments, batch_size=max(1, POINTS_AT_ONCE // points))
