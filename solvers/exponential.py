"""Exponential integrators: what DPM-Solver++ and UniPC share.

In half the log signal-to-noise ratio l = log(alpha / sigma), y = x / alpha and the data prediction
D = E[x_0 | x], the reverse-time SDE with diffusion eta g is, for every linear SDE,

    dy = (1 + eta^2) (D - y) dl + sqrt(2) eta exp(-l) dw.

Its linear part is solved exactly. From t to s, with h = l_s - l_t and H = (1 + eta^2) h,

    x_s = (alpha_s / alpha_t) exp(-H) x_t + alpha_s M + eta-noise of variance
    sigma_s^2 (1 - exp(-2 eta^2 h)),     M = integral_0^1 H exp(-H (1 - v)) D(l_t + v h) dv,

and solvers differ in the polynomial in v that stands for D: through which points, of how many. On
data that are a single point D is constant, and every step exact, however long.
"""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from parameterization import Process
from sde_lib import SDE, at
from shapes import Grid, Scalar, State, Time

# A polynomial is not trusted over a step so many times longer than that before.
LONGEST_GROWTH = 3.0
# Terms of the series below, for float64.
NUM_TERMS = 18


class Point(NamedTuple):
    """A data prediction, and half the log signal-to-noise ratio that it was made at."""

    at: Scalar
    denoised: State


def evaluate(process: Process, x: State, t: Scalar) -> Point:
    """The data prediction at x, t, for one evaluation."""
    return Point(half_log_snr(process.sde, t), process.denoise(x, at(t, x)))


def no_points(x: State, num: int) -> list[Point]:
    """Room for points, before there are any."""
    return [Point(jnp.zeros((), x.dtype), jnp.zeros_like(x))] * num


def half_log_snr(sde: SDE, t: Time) -> Time:
    """log(alpha / sigma)."""
    return 0.5 * sde.log_snr(t)


def advance(
    sde: SDE,
    x: State,
    t: Scalar,
    s: Scalar,
    points: list[Point],
    num: int | Int[Array, ''],
    eta: float = 0.0,
) -> State:
    """The mean of x_s, with D through the first `num` of `points`, of which the first is at t.

    sigma_s may be 0, if num is 1.
    """
    h = half_log_snr(sde, s) - half_log_snr(sde, t)
    nodes = [(point.at - points[0].at) / h for point in points]
    total = (1 + eta**2) * h
    mean = weighted_mean(total, nodes, [point.denoised for point in points], num)
    decay = jnp.exp(sde.log_alpha(s) - sde.log_alpha(t) - total)
    return decay * x + sde.alpha(s) * mean


def added_noise(sde: SDE, t: Scalar, s: Scalar, eta: float) -> Scalar:
    """The standard deviation of what the reverse-time SDE adds to the mean of x_s."""
    h = half_log_snr(sde, s) - half_log_snr(sde, t)
    return sde.sigma(s) * jnp.sqrt(-jnp.expm1(-2 * eta**2 * h))


def num_trusted(sde: SDE, i: Int[Array, ''], times: Grid) -> Int[Array, '']:
    """How many points there are at step i; only one counts if it is far longer than the step
    before.
    """
    before, now, then = (half_log_snr(sde, times[j]) for j in (i - 1, i, i + 1))
    too_long = (i > 0) & (then - now > LONGEST_GROWTH * (now - before))
    return jnp.where(too_long, 1, i + 1)


def weighted_mean(
    total: Scalar, nodes: list[Scalar], values: list[State], num: int | Int[Array, '']
) -> State:
    """integral_0^1 H exp(-H (1 - v)) P(v) dv, P(v) the polynomial through the first `num` values
    at their nodes, H = `total`.

    Newton's form, of which leaving out the last terms leaves out the last nodes. Through two nodes
    v is given the weight (1 - exp(-H)) / 2, equal to order 2, as in DPM-Solver++ (Lu et al. 2022b,
    algorithms 1 and 2) and UniPC with B(h) = exp(h) - 1 (Zhao et al. 2023, section 3.2).
    """
    moments = _moments(total, len(values))
    if len(values) > 1:
        moments[1] = jnp.where(jnp.asarray(num) == 2, 0.5 * moments[0], moments[1])
    mean = moments[0] * values[0]
    for degree in range(1, len(values)):
        spans = [b - a for a, b in zip(nodes, nodes[degree:], strict=False)]
        # Nodes that are left out may coincide.
        spans = [jnp.where(span == 0, 1.0, span) for span in spans]
        pairs = zip(values, values[1:], spans, strict=False)
        values = [(b - a) / span for a, b, span in pairs]
        # The integrals of (v - nodes[0]) ... (v - nodes[degree - 1]) v^k.
        last = nodes[degree - 1]
        moments = [b - last * a for a, b in zip(moments, moments[1:], strict=False)]
        mean = mean + jnp.where(degree < num, moments[0] * values[0], 0.0)
    return mean


def _moments(total: Scalar, num: int) -> list[Scalar]:
    """integral_0^1 H exp(-H (1 - v)) v^k dv for k < num: k! H phi_{k + 1}(-H).

    By parts they follow from each other; where H is small that would cancel, and a series serves.
    """
    small, large = jnp.minimum(total, 1.0), jnp.maximum(total, 1.0)
    moments = [-jnp.expm1(-total)]
    for k in range(1, num):
        factors = [math.factorial(k) / math.factorial(n + k + 1) for n in range(NUM_TERMS)]
        series = small * jnp.polyval(np.array(factors[::-1]), -small)
        by_parts = 1 - k / large * moments[k - 1]
        moments.append(jnp.where(total < 1, series, by_parts))
    return moments
