"""The ordinary differential equations of Bullwinkel et al. 2022 (appendix A.2), in t from 0 on.

All start at t = 0, and most are wrapped in powers of 1 - exp(-t), which is 0 there:

    x(0) given              x_0 + (1 - e^-t) u
    x(0) = 0, x'(0) given   (1 - e^-t) x'_0 + (1 - e^-t)^2 u
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from equations import truths
from equations.problem import Problem, Values, derivatives

# (t, y [..., outputs]) -> dy/dt
Velocity = Callable[[Array, Array], Array]


def first_order(velocity: Velocity, start: Sequence[float], end: float) -> Problem:
    """The system dy/dt = velocity(t, y), y(0) = start, up to t = end; the truth is by an adaptive
    solver. `velocity` is pointwise: t [..., 1], y [..., outputs].
    """

    def residual(y, t):
        value, slope = derivatives(y, t)
        return slope - velocity(t, value)

    return Problem(
        low=(0.0,),
        high=(end,),
        wrap=lambda t, u: jnp.array(start, u.dtype) - jnp.expm1(-t) * u,
        residual=residual,
        truth=lambda t: truths.by_dopri8(lambda t, y: velocity(t[None], y), start, t[:, 0]),
        outputs=len(start),
        equations=len(start),
    )


def _oscillator(force: Callable, start: float, end: float) -> Problem:
    """x'' = force(x, x'), x(0) = 0, x'(0) = start, up to t = end."""

    def wrap(t, u):
        grown = -jnp.expm1(-t)
        return grown * start + grown**2 * u

    def residual(x, t):
        value, slope, curvature = derivatives(x, t, order=2)
        return curvature - force(value, slope)

    def truth(t):
        def velocity(_, y):
            return jnp.stack([y[1], force(*y)])

        return truths.by_dopri8(velocity, (0.0, start), t[:, 0])[:, :1]

    return Problem((0.0,), (end,), wrap, residual, truth)


# EXP: x' = -x. At u = -1, a constant, the wrapped form is exact: one bias of the network is enough.
exponential = dataclasses.replace(
    first_order(lambda t, x: -x, (1.0,), 10.0), truth=lambda t: np.exp(-t)
)
# EXP in a form that no constant solves.
exponential_linear = dataclasses.replace(exponential, wrap=lambda t, u: 1 + t * u)

# SHO: x'' = -x.
harmonic = dataclasses.replace(_oscillator(lambda x, v: -x, 1.0, 2 * math.pi), truth=np.sin)

# NLO: x'' + 0.2 x' + x + x^2 + 0.1 x^3 = 0.
nonlinear = _oscillator(lambda x, v: -0.2 * v - x - x**2 - 0.1 * x**3, 0.5, 4 * math.pi)


# COO


def _coupled(t, y):
    """x' = -t y, y' = t x."""
    return jnp.concatenate([-t * y[..., 1:], t * y[..., :1]], axis=-1)


coupled = dataclasses.replace(
    first_order(_coupled, (1.0, 0.0), 2 * math.pi),
    truth=lambda t: np.concatenate([np.cos(t**2 / 2), np.sin(t**2 / 2)], axis=1),
)


# SIR


def _epidemic(t, y):
    """S' = -3 I S, I' = 3 I S - I, R' = I: susceptible, infected and removed shares."""
    susceptible, infected, _ = jnp.moveaxis(y, -1, 0)
    caught = 3 * infected * susceptible
    return jnp.stack([-caught, caught - infected, infected], axis=-1)


epidemic = first_order(_epidemic, (0.99, 0.01, 0.0), 10.0)


# HAM

DEPTH = WIDTH = 0.1
# Ten places, drawn once.
CENTRES = np.random.default_rng(0).uniform(size=(10, 2))


def potential(x: Float[Array, '... 2']) -> Float[Array, '...']:
    """Ten Gaussian wells, -(A / 2 pi s^2) sum_i exp(-|x - mu_i|^2 / 2 s^2), A = s = 0.1."""
    return -DEPTH / (2 * math.pi * WIDTH**2) * _wells(x).sum(-1)


def _wells(x):
    squares = ((x[..., None, :] - CENTRES.astype(x.dtype)) ** 2).sum(-1)
    return jnp.exp(-squares / (2 * WIDTH**2))


def _ray(t, y):
    """x' = p, p' = -grad V."""
    x, p = y[..., :2], y[..., 2:]
    away = (x[..., None, :] - CENTRES.astype(x.dtype)) / WIDTH**2
    gradient = DEPTH / (2 * math.pi * WIDTH**2) * (_wells(x)[..., None] * away).sum(-2)
    return jnp.concatenate([p, -gradient], axis=-1)


ray = first_order(_ray, (0.0, 0.3, 1.0, 0.0), 1.0)


# EIN

LAST_REDSHIFT = 10.0
MATTER, DEVIATION = 0.15, 5.0  # Omega_m today, and b


def _expansion(t, y):
    """Hu-Sawicki f(R) gravity in x, y, v, Omega, log r (Bullwinkel et al. 2022, eq. 21-23): the
    redshift is z = 10 (1 - t).
    """
    x, y, v, omega, log_r = jnp.moveaxis(y, -1, 0)
    r = jnp.exp(log_r)
    b = DEVIATION
    gamma = (r + b) * ((r + b) ** 2 - 2 * b) / (4 * r * b)
    rates = [
        -omega - 2 * v + x + 4 * y + x * v + x**2,
        -(v * x * gamma - x * y + 4 * y - 2 * y * v),
        -v * (x * gamma + 4 - 2 * v),
        omega * (-1 + 2 * v + x),
        -gamma * x,
    ]
    # d/dt = -10 d/dz, and the rates are by log(1 + z).
    return -LAST_REDSHIFT / (1 + LAST_REDSHIFT * (1 - t)) * jnp.stack(rates, axis=-1)


def _einstein() -> Problem:
    """From the values at redshift 10, where the model is that of a cosmological constant."""
    matter, rest = MATTER * (1 + LAST_REDSHIFT) ** 3, 1 - MATTER
    start = (
        0.0,
        (matter + 2 * rest) / (2 * (matter + rest)),
        (matter + 4 * rest) / (2 * (matter + rest)),
        matter / (matter + rest),
        math.log((matter + 4 * rest) / rest),
    )
    problem = first_order(_expansion, start, 1.0)
    # The published form has this factor; without deviation the start is the solution.
    factor = -math.expm1(-DEVIATION / 30)

    def wrap(t, u: Values) -> Values:
        return problem.wrap(t, factor * u)

    return dataclasses.replace(problem, wrap=wrap)


einstein = _einstein()
