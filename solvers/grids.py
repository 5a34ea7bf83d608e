"""Time grids: falling times, the same for all solvers that do not choose their own.

The levels of a chain are the only times that a discretely trained network knows: grids of a chain
consist of them.
"""

import contextlib
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from choices import choose
from sde_lib import SDE, Chain, Number
from shapes import Grid


@dataclasses.dataclass(frozen=True)
class TimeGrid:
    """`steps` steps, spaced as one of TIME_GRIDS does."""

    steps: int = 1000
    spacing: str = 'uniform'

    def __post_init__(self):
        choose(TIME_GRIDS, self.spacing, 'spacing')

    def times(self, sde: SDE, t_min: Number, t_start: Number | None = None) -> Grid:
        """`steps` + 1 times from `t_start` (None: T) to `t_min`; of a chain the nearest levels,
        each once, so that there may be fewer.
        """
        with constants(sde, t_min, t_start):
            start = sde.T if t_start is None else t_start
            times = TIME_GRIDS[self.spacing](sde, self.steps, start, t_min)
            return _levels(sde, times, t_min) if isinstance(sde, Chain) else times

    def last_time(self, sde: SDE, may_end_at_data: bool) -> Number:
        """The SDE's t_min; on a chain's uniform grid 0, a step from the lowest level to the data,
        if nothing is evaluated there.
        """
        is_chain = isinstance(sde, Chain) and self.spacing == 'uniform'
        return 0.0 if is_chain and may_end_at_data else sde.t_min


def constants(*given: Any) -> contextlib.AbstractContextManager[None]:
    """Within it what is computed of these numbers, in trees, is a constant of a program, unless one
    of them is traced, as those of an SDE that is learned.
    """
    is_traced = any(isinstance(number, jax.core.Tracer) for number in jax.tree.leaves(given))
    return contextlib.nullcontext() if is_traced else jax.ensure_compile_time_eval()


def _levels(sde: Chain, times: Grid, t_min: Number) -> Float[Array, 'levels']:
    return jnp.unique(known(sde, times).at[-1].set(t_min))[::-1]


def known(sde: SDE, t: Float[Array, '*shape']) -> Float[Array, '*shape']:
    """The time nearest to t that a network was trained on: t itself, of a chain that of a level."""
    return jnp.round(t * sde.num_scales) / sde.num_scales if isinstance(sde, Chain) else t


def known_before(sde: SDE, t: Float[Array, ''], end: Float[Array, '']) -> Float[Array, '']:
    """The time nearest to t that a network was trained on, of a chain before the level of `end`."""
    if not isinstance(sde, Chain):
        return t
    return jnp.minimum(known(sde, t), known(sde, end - 1 / sde.num_scales))


def uniform_grid(sde: SDE, n: int, t_start: Number, t_min: Number) -> Float[Array, '{n+1}']:
    """Equal steps of time."""
    return jnp.linspace(t_start, t_min, n + 1)


def log_snr_grid(sde: SDE, n: int, t_start: Number, t_min: Number) -> Float[Array, '{n+1}']:
    """Equal steps of the log signal-to-noise ratio (Lu et al. 2022)."""
    ends = sde.log_snr(jnp.array([t_start, t_min]))
    return _pin_ends(sde.time_at_log_snr(jnp.linspace(*ends, n + 1)), t_start, t_min)


def karras_grid(
    sde: SDE, n: int, t_start: Number, t_min: Number, rho: float = 7.0
) -> Float[Array, '{n+1}']:
    """Equal steps of (sigma / alpha)^(1 / rho) (Karras et al. 2022, eq. 5)."""
    ends = jnp.exp(-0.5 / rho * sde.log_snr(jnp.array([t_start, t_min])))
    log_snr = -2 * rho * jnp.log(jnp.linspace(*ends, n + 1))
    return _pin_ends(sde.time_at_log_snr(log_snr), t_start, t_min)


def _pin_ends(times: Grid, t_start: Number, t_min: Number) -> Grid:
    return times.at[0].set(t_start).at[-1].set(t_min)


TIME_GRIDS = {'uniform': uniform_grid, 'log_snr': log_snr_grid, 'karras': karras_grid}
