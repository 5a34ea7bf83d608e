"""Time grids: falling times from T to t_min, the same for all solvers that do not choose their own.

The levels of a chain are the only times that a discretely trained network knows: grids of a chain
consist of them.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sde_lib import SDE, Chain


def create(grid, sde: SDE, steps: int, t_min: float) -> Float[Array, 'times']:
    """`steps` + 1 times of a grid; of a chain its nearest levels, each once, so that there may be
    fewer.
    """
    with jax.ensure_compile_time_eval():
        times = grid(sde, steps, t_min)
        return _levels(sde, times, t_min) if isinstance(sde, Chain) else times


def _levels(sde: Chain, times: Array, t_min: float) -> Array:
    return jnp.unique(known(sde, times).at[-1].set(t_min))[::-1]


def known(sde: SDE, t: Float[Array, '*shape']) -> Float[Array, '*shape']:
    """The time nearest to t that a network was trained on: t itself, of a chain that of a level."""
    return jnp.round(t * sde.num_scales) / sde.num_scales if isinstance(sde, Chain) else t


def known_before(sde: SDE, t: Float[Array, ''], end: Float[Array, '']) -> Float[Array, '']:
    """The same, of a chain before the level of `end`."""
    if not isinstance(sde, Chain):
        return t
    return jnp.minimum(known(sde, t), known(sde, end - 1 / sde.num_scales))


def uniform_grid(sde: SDE, n: int, t_min: float) -> Float[Array, '{n+1}']:
    """Equal steps of time."""
    return jnp.linspace(sde.T, t_min, n + 1)


def log_snr_grid(sde: SDE, n: int, t_min: float) -> Float[Array, '{n+1}']:
    """Equal steps of the log signal-to-noise ratio (Lu et al. 2022)."""
    ends = sde.log_snr(jnp.array([sde.T, t_min]))
    return _pin_ends(sde.time_at_log_snr(jnp.linspace(*ends, n + 1)), sde, t_min)


def karras_grid(sde: SDE, n: int, t_min: float, rho: float = 7.0) -> Float[Array, '{n+1}']:
    """Equal steps of (sigma / alpha)^(1 / rho) (Karras et al. 2022, eq. 5)."""
    ends = jnp.exp(-0.5 / rho * sde.log_snr(jnp.array([sde.T, t_min])))
    log_snr = -2 * rho * jnp.log(jnp.linspace(*ends, n + 1))
    return _pin_ends(sde.time_at_log_snr(log_snr), sde, t_min)


def _pin_ends(times, sde, t_min):
    return times.at[0].set(sde.T).at[-1].set(t_min)


TIME_GRIDS = {'uniform': uniform_grid, 'log_snr': log_snr_grid, 'karras': karras_grid}
