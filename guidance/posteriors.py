"""Conditional generation: samplers of p(x | y) made from the score of p(x).

Guidance is a score of p(x_t | y) = p(x_t) p(y | x_t) / p(y) in place of that of p(x_t). Where y is
the class, a classifier knows p(y | x_t), or the network both scores. Where y = A x + noise
(measurements.py), it is not known, and there are three ways around it:

* `projected`: before each step the state is made to agree with a noisy y_t ~ p(y_t | y);
* `diffusion_posterior_sampling`: p(y | x_t) is replaced by p(y | E[x_0 | x_t]);
* `pseudo_inverse_guidance`: p(x_0 | x_t) is replaced by a Gaussian around E[x_0 | x_t].

The last is exact for data that are a Gaussian of equal variances, the others for none; the errors
of each are in docs/architecture.md. All are wrapped around a score or a step: the loop, the
predictors and the correctors are those of unconditional sampling.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from guidance.measurements import Measurement
from parameterization import ScoreFn
from sde_lib import SDE, State, at, expand
from solvers.grid_solver import GridSolver

# Keeps the gradient of a distance finite where it vanishes.
LEAST_DISTANCE = 1e-6


# Classes


# Measurements


def match(measurement: Measurement, y: State, x: State) -> State:
    """The nearest image to `x` whose measurement is `y`: what A does not see stays as it is."""
    return x + measurement.pseudo_inverse(y - measurement.measure(x))


def projected(
    solver: GridSolver, measurement: Measurement, y: State, draw: Callable[[Array], State]
) -> GridSolver:
    """A solver whose state agrees with a noisy version of `y` before each step (Song et al. 2021,
    appendix I.2-I.3; Song et al. 2022, arXiv:2111.08005, for any A).

    `y` counts as exact. `draw(i)` is the noise of images that y gets at times[i]; nothing else may
    be drawn from its key. Only the state is changed, and before the step, so the last step ends as
    it does without a measurement: what A does not see is denoised. `match` the result to `y`.
    """

    def step(sde, score_fn, draw_step, x, i, times, memory):
        t = at(times[i], x)
        noise = measurement.measure(draw(i))
        x = match(measurement, sde.perturb(y, t, noise), x)
        return solver.step(sde, score_fn, draw_step, x, i, times, memory)

    return solver._replace(step=step)


def diffusion_posterior_sampling(
    solver: GridSolver, measurement: Measurement, y: State, scale: float = 1.0
) -> GridSolver:
    """A solver whose steps go down the slope of |y - A E[x_0 | x_t]| besides (Chung et al. 2023,
    arXiv:2209.14687, algorithm 1).

    An ancestral step of a variance-preserving SDE goes `scale` times the gradient, whatever its
    length in time, so that the pull grows with the number of steps: published are 0.3 to 1 for
    1000. Here that is a term of the score, in proportion for other predictors and correctors, and
    for other SDEs in units of x_t / sqrt(alpha_t^2 + sigma_t^2).
    """

    def step(sde, score_fn, draw, x, i, times, memory):
        t, s = at(times[i], x), at(times[i + 1], x)
        alpha_ts, sigma_ts = sde.transition(s, t)
        weight = scale * (sde.alpha(t) ** 2 + sde.sigma(t) ** 2) * alpha_ts / sigma_ts**2

        def guided(x, t):
            def distance(x):
                score = score_fn(x, t)
                residual = y - measurement.measure(sde.denoise(x, t, score))
                squares = jnp.sum(residual.reshape(len(x), -1) ** 2, axis=1)
                return jnp.sqrt(squares + LEAST_DISTANCE**2).sum(), score

            slope, score = jax.grad(distance, has_aux=True)(x)
            return score - expand(weight, x) * slope

        return solver.step(sde, guided, draw, x, i, times, memory)

    return solver._replace(step=step)


def pseudo_inverse_guidance(
    score_fn: ScoreFn,
    measurement: Measurement,
    y: State,
    *,
    sde: SDE,
    noise_std: float,
    data_std: float,
    scale: float = 1.0,
) -> ScoreFn:
    """PiGDM: p(x_0 | x_t) taken for N(E[x_0 | x_t], r_t^2 I) (Song et al. 2023, eq. 7-8).

    1 / r_t^2 = 1 / data_std^2 + alpha_t^2 / sigma_t^2, which is exact for data N(mean, data_std^2
    I); the paper has data_std = 1. `y` has noise of standard deviation `noise_std`. One evaluation,
    and its gradient.
    """

    def guided(x, t):
        def denoise(x):
            score = score_fn(x, t)
            return sde.denoise(x, t, score), score

        denoised, pull_back, score = jax.vjp(denoise, x, has_aux=True)
        variance = 1 / (data_std**-2 + jnp.exp(sde.log_snr(t)))
        residual = y - measurement.measure(denoised)
        towards_y = measurement.adjoint(measurement.solve(residual, variance, noise_std**2))
        return score + scale * pull_back(towards_y)[0]

    return guided
