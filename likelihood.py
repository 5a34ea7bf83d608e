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
from jaxtyping import Array, Float, Int, Key

from choices import choose
from parameterization import ScoreFn
from sde_lib import SDE
from solvers import ode

State = Float[Array, 'batch *shape']
Batch = Float[Array, 'batch']


class LogProb(NamedTuple):
    """Log-density in nats, its standard error over probes, the latent code x(T), evaluations.

    The standard error is nan for one probe, and 0 for the exact divergence. `by_probe` are the
    log-densities of which `log_prob` is the mean: one for each probe, or the exact one.
    """

    log_prob: Batch
    standard_error: Batch
    latent: State
    nfe: Int[Array, 'batch']
    by_probe: Float[Array, 'batch probes']


def log_prob(
    image_keys: Key[Array, 'batch'],
    score_fn: ScoreFn,
    x: State,
    *,
    sde: SDE,
    t_min: float,
    divergence: str = 'rademacher',
    num_probes: int = 1,
    solver: str = 'tsit5',
    rtol: float = 1e-5,
    atol: float = 1e-5,
    per_image: bool = True,
) -> LogProb:
    """Log-density of images at time t_min under the probability-flow ODE.

    `divergence` is 'exact', 'rademacher' or 'gaussian'; an image's probes depend on its key alone.
    Each image has its own step sizes, or with `per_image=False` the batch has one. An evaluation in
    `nfe` gives the velocity and its directional derivatives along all probes; with dopri5 one in a
    step gives the velocity alone.
    """
    draw_probes = choose(PROBES, divergence, 'eval.divergence')
    probes = jax.vmap(lambda key: draw_probes(key, num_probes, x.shape[1:]))(image_keys)
    velocity = ode.velocity(sde, score_fn)

    def augmented(t, state, probes):
        v, products = _directional_derivatives(lambda x: velocity(t, x, None), state[0], probes)
        estimates = jnp.sum((probes * products).reshape(len(probes), -1), axis=1)
        return v, estimates.sum(keepdims=True) if divergence == 'exact' else estimates

    def without_divergence(t, state, probes):
        return velocity(t, state[0], None), jnp.zeros_like(state[1])

    num_estimates = 1 if divergence == 'exact' else num_probes
    state = x, jnp.zeros((x.shape[0], num_estimates))
    (latent, gained), nfe = ode.solve(
        augmented,
        state,
        probes,
        t_min,
        sde.T,
        sde=sde,
        solver=solver,
        rtol=rtol,
        atol=atol,
        per_image=per_image,
        light=without_divergence,
    )
    by_probe = sde.prior_log_prob(latent)[:, None] + gained
    return LogProb(
        by_probe.mean(axis=1),
        jnp.zeros(len(x)) if divergence == 'exact' else _standard_error(gained),
        latent,
        nfe,
        by_probe,
    )


def round_trip_error(x: State, decoded: State) -> Batch:
    """Root mean square over pixels of what encoding and decoding changed."""
    return jnp.sqrt(jnp.mean((decoded - x).reshape(len(x), -1) ** 2, axis=1))


def bits_per_dim(log_prob: Batch, dim: int, bin_width: float) -> Batch:
    """Negative log2 probability per dimension of 8-bit data, from the log-density of the
    dequantised data.

    `bin_width` is the width of one of the 256 values in the units of x: 1/128 for data scaled to
    [-1, 1].
    """
    return -(log_prob / dim + math.log(bin_width)) / math.log(2)


def _directional_derivatives(
    function: Callable, x: Array, directions: Array
) -> tuple[Array, Array]:
    """function(x), and its derivatives along each of `directions`, from one forward pass."""

    def derivative(direction):
        return jax.jvp(function, (x,), (direction,))

    return jax.vmap(derivative, out_axes=(None, 0))(directions)


def _standard_error(estimates: Float[Array, 'batch num']) -> Batch:
    """Standard error of the mean over the last axis; nan where there is one estimate."""
    return jnp.std(estimates, axis=1, ddof=1) / math.sqrt(estimates.shape[1])


# Probes: [num, *shape], with identity covariance.


def _rademacher(key, num, shape):
    return jax.random.rademacher(key, (num, *shape), jnp.float32)


def _gaussian(key, num, shape):
    return jax.random.normal(key, (num, *shape))


def _basis(key, num, shape):
    dim = math.prod(shape)
    return jnp.eye(dim).reshape(dim, *shape)


PROBES = {'exact': _basis, 'rademacher': _rademacher, 'gaussian': _gaussian}
