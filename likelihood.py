"""Log-likelihoods and latent codes by the probability-flow ODE.

Along a solution of dx/dt = v(x, t) the log-density changes by -div v, so that

    log p_tmin(x) = log p_T(x(T)) + integral of div v(x(t), t) dt from t_min to T

(Song et al. 2021, eq. 39; Chen et al. 2018). The divergence is exact (one directional derivative
per dimension), or Hutchinson's estimate E[probe . (dv/dx) probe], with probes drawn once per solve
so that the ODE stays deterministic. One forward pass gives the velocity and its directional
derivatives.

The solution x(T) is the latent code of x(t_min): a bijection that is given by the data's density
alone, not by the network that learned it (Song et al. 2021, section 4.3), and so is the same for
every model that is good enough.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import directional
from choices import choose
from parameterization import Process
from sde_lib import Number
from shapes import Counts, ImageKeys, PerImage, State
from solvers import ode
from solvers.endings import Ending
from solvers.ode import ODESolver


class LogProb(NamedTuple):
    """Log-density in nats, its standard error over probes, the latent code x(T), evaluations.

    Of images whose `ending` is not done nothing else is known.

    The standard error is nan for one probe, and 0 for the exact divergence. `by_probe` are the
    log-densities of which `log_prob` is the mean: one for each probe, or the exact one.
    """

    log_prob: PerImage
    standard_error: PerImage
    latent: State
    nfe: Counts
    by_probe: Float[Array, 'batch probes']
    ending: Ending


def log_prob(
    image_keys: ImageKeys,
    process: Process,
    x: State,
    *,
    solver: ODESolver,
    t_min: Number | None = None,
    divergence: str = 'rademacher',
    num_probes: int = 1,
) -> LogProb:
    """Log-density of images at time `t_min` (None: the SDE's) under the probability-flow ODE.

    `divergence` is 'exact', 'rademacher' or 'gaussian', of which the first has a derivative for
    each dimension and the others `num_probes`; an image's probes depend on its key alone. An
    evaluation in `nfe` gives the velocity and its directional derivatives along all probes; with
    dopri5 one in a step gives the velocity alone. Raises ArgumentError for an unknown divergence.
    """
    draw_probes = choose(PROBES, divergence, 'divergence')
    probes = jax.vmap(lambda key: draw_probes(key, num_probes, x.shape[1:]))(image_keys)
    sde, velocity = process.sde, ode.velocity(process)

    def augmented(t, state, probes):
        v, products = _directional_derivatives(lambda x: velocity(t, x, None), state[0], probes)
        estimates = jnp.sum((probes * products).reshape(len(probes), -1), axis=1)
        return v, estimates.sum(keepdims=True) if divergence == 'exact' else estimates

    def without_divergence(t, state, probes):
        return velocity(t, state[0], None), jnp.zeros_like(state[1])

    num_estimates = 1 if divergence == 'exact' else num_probes
    state = x, jnp.zeros((x.shape[0], num_estimates))
    (latent, gained), nfe, ending = solver.solve(
        augmented,
        state,
        probes,
        sde.t_min if t_min is None else t_min,
        sde.T,
        sde=sde,
        light=without_divergence,
    )
    by_probe = sde.prior_log_prob(latent)[:, None] + gained
    return LogProb(
        by_probe.mean(axis=1),
        jnp.zeros(len(x)) if divergence == 'exact' else _standard_error(gained),
        latent,
        nfe,
        by_probe,
        ending,
    )


def round_trip_error(x: State, decoded: State) -> PerImage:
    """Root mean square over pixels of what encoding and decoding changed."""
    return jnp.sqrt(jnp.mean((decoded - x).reshape(len(x), -1) ** 2, axis=1))


def bits_per_dim(
    log_prob: Float[Array | np.ndarray, '*shape'], dim: int, bin_width: float
) -> Float[Array | np.ndarray, '*shape']:
    """Negative log2 probability per dimension of 8-bit data, from the log-density of the
    dequantised data.

    `bin_width` is the width of one of the 256 values in the units of x: 1/128 for data scaled to
    [-1, 1].
    """
    return -(log_prob / dim + math.log(bin_width)) / math.log(2)


def _directional_derivatives(
    function: Callable, x: Float[Array, '*shape'], directions: Float[Array, 'probes *shape']
) -> tuple[Float[Array, '*shape'], Float[Array, 'probes *shape']]:
    """function(x), and its derivatives along each of `directions`, from one forward pass."""

    def derivative(direction):
        return jax.jvp(function, (x,), (direction,))

    return jax.vmap(derivative, out_axes=(None, 0))(directions)


def _standard_error(estimates: Float[Array, 'batch num']) -> PerImage:
    """Standard error of the mean over the last axis; nan where there is one estimate."""
    return jnp.std(estimates, axis=1, ddof=1) / math.sqrt(estimates.shape[1])


# With identity covariance.
PROBES = {
    'exact': directional.basis,
    'rademacher': directional.rademacher,
    'gaussian': directional.gaussian,
}
