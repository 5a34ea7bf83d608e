"""Runge-Kutta steps that evaluate less where a quadrature has no weight.

A quadrature is a part of the state on which no velocity depends, as the log-density gained along
the probability-flow ODE is. A stage whose weights are zero, in the solution and in the error
estimate, matters to later stages alone, and so not to it. The second of Dopri5 is one: there its
divergence need not be computed.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Bool


class Dopri5(diffrax.Dopri5):
    """Dopri5 for a `branching` velocity, which it tells where it is in its second stage."""

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
        telling = _Telling(terms, t0, t1)
        return super().step(telling, t0, t1, y0, args, solver_state, made_jump)


class _Told(NamedTuple):
    """The `args` of a velocity, and whether its quadratures have no weight."""

    args: Any
    is_light: Bool[Array, '']


class _Telling(diffrax.AbstractTerm):
    """A term of a step of Dopri5, of whose stages the second alone is at a fifth of it."""

    term: diffrax.AbstractTerm
    t0: Array
    t1: Array

    def vf(self, t, y, args):
        size = self.t1 - self.t0
        # In shorter steps a fifth is lost in rounding.
        is_second = (jnp.abs(t - self.t0 - size / 5) < 0.05 * size) & (size > 1e-3)
        return self.term.vf(t, y, _Told(args, is_second))

    def contr(self, t0, t1, **kwargs):
        return self.term.contr(t0, t1, **kwargs)

    def prod(self, vf, control):
        return self.term.prod(vf, control)


def branching(velocity: Callable, light: Callable) -> Callable:
    """`velocity`, or `light` where a solver tells that it will do.

    `light` is cheaper: it has the velocities of all but the quadratures, of which any will do.
    """

    def either(t, y, args):
        if not isinstance(args, _Told):
            return velocity(t, y, args)
        return lax.cond(_all(args.is_light), light, velocity, t, y, args.args)

    return either


@custom_vmap
def _all(flag: Bool[Array, '']) -> Bool[Array, '']:
    """Under vmap: for all members, since a condition for each would compute both branches."""
    return flag


@_all.def_vmap
def _(size, is_batched, flag):
    return _all(jnp.all(flag)), False
