"""The reverse-time SDE by diffrax's solvers for SDEs with additive noise.

In y = x / alpha and the log signal-to-noise ratio lambda, which rises as noise is taken away, every
linear SDE is the same: with s = sigma / alpha = exp(-lambda / 2),

    dy = (1 + eta^2) / 2 sigma s score(x, t) dlambda + eta s dw,

a pull towards E[x_0 | x] at the constant rate (1 + eta^2) / 2, and noise that does not depend on y:
what solvers of strong order 1.5 ask for. Each image's Brownian path is a function of its own key,
so rejected steps do not bend its law, and finer steps see the same path.
"""

from collections.abc import Callable
from typing import NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import lineax
from jaxtyping import Array, Float, Key

from choices import InputError, choose
from parameterization import ScoreFn
from sde_lib import SDE, expand
from solvers import ends
from solvers.ends import Samples

MAX_STEPS = 10_000
# Resolution of the Brownian paths, in parts of the range of lambda (about 20): finer than any step
# that is taken in float32.
PATH_RESOLUTION = 2.0**-18
FIRST_STEP = 0.01  # in the same parts


class Method(NamedTuple):
    """A solver of diffrax, its evaluations a step, and whether it estimates its error."""

    solver: Callable
    per_step: int
    adaptive: bool = True


def sample(
    image_keys: Key[Array, 'batch'],
    score_fn: ScoreFn,
    shape: tuple[int, ...],
    *,
    sde: SDE,
    t_min: float,
    solver: str = 'shark',
    rtol: float = 0.02,
    atol: float = 0.0078,
    times: Float[Array, 'times'] | None = None,
    eta: float = 1.0,
    denoise: bool = True,
    temperature: float = 1.0,
    trajectory: Float[Array, 'saved'] | None = None,
) -> Samples:
    """Samples of the reverse SDE with diffusion eta g, each image with its own steps: as `rtol` and
    `atol` ask for, or, given `times` from T to t_min, those.

    `denoise` returns E[x_0 | x] at the end, for one more evaluation. `trajectory`: times from T to
    t_min at which states are asked for; steps end there too, but on a grid states between its times
    are interpolated. Raises when an image needs over MAX_STEPS steps.
    """
    check(solver, on_grid=times is not None, field='solver')
    method = SOLVERS[solver]
    log_snrs = sde.log_snr(jnp.array([sde.T, t_min]) if times is None else times)

    stops = None
    if trajectory is not None:
        stops = jnp.clip(sde.log_snr(trajectory), log_snrs[0], log_snrs[-1])
    drift, noise = _drift_and_noise(sde, score_fn, t_min, eta, temperature)

    def solve(key, y):
        path = brownian_path(jax.random.fold_in(key, 1), shape, log_snrs[0], log_snrs[-1])
        solution = diffrax.diffeqsolve(
            diffrax.MultiTerm(diffrax.ODETerm(drift), diffrax.ControlTerm(noise, path)),
            method.solver(),
            log_snrs[0],
            log_snrs[-1],
            FIRST_STEP * (log_snrs[-1] - log_snrs[0]) if times is None else None,
            y,
            stepsize_controller=_controller(rtol, atol, stops)
            if times is None
            else diffrax.StepTo(log_snrs),
            saveat=diffrax.SaveAt(t1=True, ts=stops),
            adjoint=diffrax.ForwardMode(),
            max_steps=MAX_STEPS,
        )
        return solution.ys, method.per_step * solution.stats['num_steps']

    prior = sde.prior_std * ends.noise_source(image_keys, shape, temperature)(0)
    y, nfe = jax.vmap(solve)(image_keys, prior / sde.alpha(jnp.float32(sde.T)))
    x = sde.alpha(jnp.float32(t_min)) * y[:, -1]
    states = None
    if trajectory is not None:
        states = jnp.moveaxis(y[:, :-1], 1, 0)
        states = states * expand(sde.alpha(trajectory), states)
    if denoise:
        x, nfe = ends.denoise(sde, score_fn, x, t_min), nfe + 1
    return Samples(x, nfe, states)


def _drift_and_noise(
    sde: SDE, score_fn: ScoreFn, t_min: float, eta: float, temperature: float
) -> tuple[Callable, Callable]:
    """The two terms of dy, as the docstring of this module has them, of one image."""

    def time(log_snr):
        return jnp.clip(sde.time_at_log_snr(log_snr), t_min, sde.T)

    def drift(log_snr, y, args):
        t = time(log_snr)
        alpha, sigma = sde.alpha(t), sde.sigma(t)
        score = score_fn(alpha * y[None], t[None])[0]
        return 0.5 * (1 + eta**2) * sigma**2 / alpha * score

    def noise(log_snr, y, args):
        t = time(log_snr)
        scale = temperature * eta * sde.sigma(t) / sde.alpha(t)
        return lineax.DiagonalLinearOperator(jnp.full(y.shape, scale))

    return drift, noise


def brownian_path(
    key: Key[Array, ''], shape: tuple[int, ...], start: Array, end: Array
) -> diffrax.VirtualBrownianTree:
    """The Brownian path of an image, for increments between any two points of [start, end]."""
    return diffrax.VirtualBrownianTree(
        start,
        end,
        tol=PATH_RESOLUTION * (end - start),
        shape=shape,
        key=key,
        levy_area=diffrax.SpaceTimeLevyArea,
    )


def check(solver: str, *, on_grid: bool, field: str) -> None:
    """Raises InputError for a solver that does not exist or cannot do what is asked for."""
    if not (choose(SOLVERS, solver, field).adaptive or on_grid):
        raise InputError(f'{field}: {solver!r} estimates no error and needs a grid of times')


class _Controller(diffrax.PIDController):
    """Step sizes rounded down to a quarter power of two.

    Brownian paths are rough: without this, the rounding of two programs would grow to the size of
    the tolerance.
    """

    def adapt_step_size(self, *args, **kwargs):
        keep, start, end, *rest = super().adapt_step_size(*args, **kwargs)
        size = jnp.exp2(jnp.floor(4 * jnp.log2(end - start)) / 4)
        return keep, start, start + size, *rest


def _controller(
    rtol: float, atol: float, stops: Float[Array, 'saved'] | None
) -> diffrax.AbstractStepSizeController:
    # Söderlind's proportional-integral filter: errors of single steps are rough where noise is.
    controller = _Controller(rtol, atol, pcoeff=0.1, icoeff=0.3, dcoeff=0.0)
    return controller if stops is None else diffrax.ClipStepSizeController(controller, stops)


# Strong orders for additive noise: 1 of the first four and SEA, 1.5 of the rest. Not here: Milstein
# schemes, which are Euler's where noise is additive, and schemes for non-commutative noise.
SOLVERS = {
    'euler': Method(diffrax.Euler, 1, adaptive=False),
    'heun': Method(diffrax.Heun, 2),
    'midpoint': Method(diffrax.Midpoint, 2),
    'ralston': Method(diffrax.Ralston, 2),
    'sea': Method(diffrax.SEA, 1, adaptive=False),
    'sra1': Method(diffrax.SRA1, 2),
    'shark': Method(diffrax.ShARK, 2),
    'spark': Method(diffrax.SPaRK, 3),
}
