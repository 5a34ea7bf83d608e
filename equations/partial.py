"""The partial differential equations of Bullwinkel et al. 2022 (appendix A.2), in (x, y) or (x, t).

Of a problem in x from low to high, and in t from 0 to T, with x~ = (x - low) / (high - low), the
wrapped form is that of the start plus x~ (1 - x~) (1 - exp(-t / T)) u, which keeps the values at
both ends as they are at t = 0.
"""

import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from equations.problem import Problem, derivatives
from equations.truths import Spectral

X, Y, T = 0, 1, 1  # axes
# The noise of points in these problems, in lengths over the number of points of an axis. A spacing
# is a little more than such a length.
JITTER = 1 / 4


def _columns(z):
    return z[:, :1], z[:, 1:]


def _evolution(
    low: float, high: float, end: float, start: Callable, residual: Callable, truth: Callable
) -> Problem:
    """An equation of first order in t."""

    def wrap(z, u):
        x, t = _columns(z)
        place = (x - low) / (high - low)
        return start(x, jnp) - place * (1 - place) * jnp.expm1(-t / end) * u

    return Problem((low, 0.0), (high, end), wrap, residual, truth, jitter=JITTER, names=('x', 't'))


# POS: u_xx + u_yy = f on the unit square, 0 on its edge.


def _poisson() -> Problem:
    def edge(z):
        x, y = _columns(z)
        return x * (1 - x) * y * (1 - y)

    def residual(u, z):
        x, y = _columns(z)
        source = 2 * x * (y - 1) * (y - 2 * x + x * y + 2) * jnp.exp(x - y)
        return derivatives(u, z, X, 2)[-1] + derivatives(u, z, Y, 2)[-1] - source

    return Problem(
        (0.0, 0.0),
        (1.0, 1.0),
        wrap=lambda z, u: edge(z) * u,
        residual=residual,
        truth=lambda z: edge(z) * np.exp(z[:, :1] - z[:, 1:]),
        jitter=JITTER,
        names=('x', 'y'),
    )


poisson = _poisson()


# HEA: u_t = u_xx, u(x, 0) = sin(pi x).

heat = _evolution(
    *(0.0, 1.0, 0.2),
    start=lambda x, xp: xp.sin(math.pi * x),
    residual=lambda u, z: derivatives(u, z, T)[-1] - derivatives(u, z, X, 2)[-1],
    truth=lambda z: np.exp(-(math.pi**2) * z[:, 1:]) * np.sin(math.pi * z[:, :1]),
)


# WAV: u_tt = u_xx, u(x, 0) = sin(pi x), u_t(x, 0) = 0.


def _wave() -> Problem:
    def wrap(z, u):
        x, t = _columns(z)
        return jnp.sin(math.pi * x) - x * (1 - x) * jnp.expm1(-(t**2)) * u

    return Problem(
        (0.0, 0.0),
        (1.0, 1.0),
        wrap=wrap,
        residual=lambda u, z: derivatives(u, z, T, 2)[-1] - derivatives(u, z, X, 2)[-1],
        truth=lambda z: np.cos(math.pi * z[:, 1:]) * np.sin(math.pi * z[:, :1]),
        jitter=JITTER,
        names=('x', 't'),
    )


wave = _wave()


# BUR: u_t + u u_x = 0.001 u_xx, u(x, 0) = 1 / cosh x. The truth is of period 10; the wrapped form
# keeps u = 0.013 at both ends, where the truth moves by 5e-4 until t = 2.5.

VISCOSITY = 1e-3


def _hill(x, xp):
    return 1 / xp.cosh(x)


def _burgers_residual(u, z):
    value, slope, curvature = derivatives(u, z, X, 2)
    return derivatives(u, z, T)[-1] + value * slope - VISCOSITY * curvature


burgers = _evolution(
    *(-5.0, 5.0, 2.5),
    start=_hill,
    residual=_burgers_residual,
    truth=Spectral(
        nu=VISCOSITY,
        nonlinear=lambda u, slope: -u * slope,
        start=lambda x: _hill(x, np),
        low=-5.0,
        high=5.0,
        modes=8192,  # A shock begins at t = 2, and is 0.01 wide.
        tolerance=1e-8,
    ),
)


# ACA: u_t = 0.001 u_xx + u - u^3, u(x, 0) = sin(x) / 4, u = 0 at 0 and 2 pi. The residual is
# weighted by exp(-t / 1.2), as published.

DIFFUSION = 1e-3
FADING = 1.2


def _allen_cahn_residual(u, z):
    value, _, curvature = derivatives(u, z, X, 2)
    left = derivatives(u, z, T)[-1] - DIFFUSION * curvature - value + value**3
    return left * jnp.exp(-z[:, 1:] / FADING)


allen_cahn = _evolution(
    *(0.0, 2 * math.pi, 5.0),
    start=lambda x, xp: xp.sin(x) / 4,
    residual=_allen_cahn_residual,
    truth=Spectral(
        nu=DIFFUSION,
        nonlinear=lambda u, slope: u - u**3,
        start=lambda x: np.sin(x) / 4,
        low=0.0,
        high=2 * math.pi,
        modes=1024,
        tolerance=1e-10,
    ),
)
