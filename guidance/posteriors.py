"""Samples of p(x | y) for measurements y = A x + noise (measurements.py), from the score of p(x).

p(y | x_t) is not known, and there are three ways around it:

* `Projected`: before each step the state is made to agree with a noisy y_t ~ p(y_t | y);
* `PosteriorSampling`: p(y | x_t) is replaced by p(y | E[x_0 | x_t]);
* `pseudo_inverse_guidance`: p(x_0 | x_t) is replaced by a Gaussian around E[x_0 | x_t].

The last is exact for data that are a Gaussian of equal variances, the others for none; the errors
of each are in docs/conditional.md. Two are wrapped around a solver on a grid, the last around a
process: the loop, the predictors and the correctors are those of unconditional sampling.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from guidance.measurements import Measurement
from parameterization import Process
from sde_lib import at, expand
from shapes import Measured, State
from solvers.grid_solver import GridSolver
from solvers.sampler import Draw

# Keeps the gradient of a distance finite where it vanishes.
LEAST_DISTANCE = 1e-6


def match(measurement: Measurement, y: Measured, x: State) -> State:
    """The nearest image to `x` whose measurement is `y`: what A does not see stays as it is."""
    return x + measurement.pseudo_inverse(y - measurement.measure(x))


@dataclasses.dataclass(frozen=True)
class _Wrapped(GridSolver):
    """A solver whose steps are those of another, of a state or a score that knows of `y`."""

    solver: GridSolver
    measurement: Measurement
    y: Measured

    @property
    def evaluations(self) -> int:
        """Those of the solver."""
        return self.solver.evaluations

    @property
    def further(self) -> int:
        """Those of the solver."""
        return self.solver.further

    @property
    def stochastic(self) -> bool:
        """As the solver is."""
        return self.solver.stochastic

    @property
    def may_end_at_data(self) -> bool:
        """As the solver may."""
        return self.solver.may_end_at_data

    def init(self, process, x, times) -> Any:
        return self.solver.init(process, x, times)


@dataclasses.dataclass(frozen=True)
class Projected(_Wrapped):
    """A solver whose state agrees with a noisy version of `y` before each step (Song et al. 2021,
    appendix I.2-I.3; Song et al. 2022, arXiv:2111.08005, for any A).

    `y` counts as exact. `draw(i)` is the noise of images that y gets at times[i]; nothing else may
    be drawn from its key. Only the state is changed, and before the step, so the last step ends as
    it does without a measurement: what A does not see is denoised. `match` the result to `y`.
    """

    draw: Draw

    def step(self, process, draw, x, i, times, memory):
        t = at(times[i], x)
        noise = self.measurement.measure(self.draw(i))
        x = match(self.measurement, process.sde.perturb(self.y, t, noise), x)
        return self.solver.step(process, draw, x, i, times, memory)


@dataclasses.dataclass(frozen=True)
class PosteriorSampling(_Wrapped):
    """DPS: a solver whose steps go down the slope of |y - A E[x_0 | x_t]| besides (Chung et al.
    2023, arXiv:2209.14687, algorithm 1).

    An ancestral step of a variance-preserving SDE goes `scale` times the gradient, whatever its
    length in time, so that the pull grows with the number of steps: published are 0.3 to 1 for
    1000. Here that is a term of the score, in proportion for other predictors and correctors, and
    for other SDEs in units of x_t / sqrt(alpha_t^2 + sigma_t^2).
    """

    scale: float = 1.0

    def step(self, process, draw, x, i, times, memory):
        sde = process.sde
        t, s = at(times[i], x), at(times[i + 1], x)
        alpha_ts, sigma_ts = sde.transition(s, t)
        weight = self.scale * (sde.alpha(t) ** 2 + sde.sigma(t) ** 2) * alpha_ts / sigma_ts**2

        def score(x, t):
            def distance(x):
                score = process.score(x, t)
                residual = self.y - self.measurement.measure(sde.denoise(x, t, score))
                squares = jnp.sum(residual.reshape(len(x), -1) ** 2, axis=1)
                return jnp.sqrt(squares + LEAST_DISTANCE**2).sum(), score

            slope, score = jax.grad(distance, has_aux=True)(x)
            return score - expand(weight, x) * slope

        return self.solver.step(process.with_score(score), draw, x, i, times, memory)


def pseudo_inverse_guidance(
    process: Process,
    measurement: Measurement,
    y: Measured,
    *,
    noise_std: float,
    data_std: float,
    scale: float = 1.0,
) -> Process:
    """PiGDM: p(x_0 | x_t) taken for N(E[x_0 | x_t], r_t^2 I) (Song et al. 2023, eq. 7-8).

    1 / r_t^2 = 1 / data_std^2 + alpha_t^2 / sigma_t^2, which is exact for data N(mean, data_std^2
    I); the paper has data_std = 1. `y` has noise of standard deviation `noise_std`. One evaluation,
    and its gradient.
    """
    sde = process.sde

    def guided(x, t):
        def denoise(x):
            score = process.score(x, t)
            return sde.denoise(x, t, score), score

        denoised, pull_back, score = jax.vjp(denoise, x, has_aux=True)
        variance = 1 / (data_std**-2 + jnp.exp(sde.log_snr(t)))
        residual = y - measurement.measure(denoised)
        towards_y = measurement.adjoint(measurement.solve(residual, variance, noise_std**2))
        return score + scale * pull_back(towards_y)[0]

    return process.with_score(guided)
