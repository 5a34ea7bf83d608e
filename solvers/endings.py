"""How solves end: at their end, or where an adaptive solver stood still.

A program cannot raise: one image that needs too many steps would end all others, on all devices.
So what became of each image is part of the result, and whoever runs the program looks at it.
"""

from typing import NamedTuple

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sde_lib import SDE, Number


class Ending(NamedTuple):
    """Of each image whether its solve came to its end, the last time that it reached, and the steps
    that it tried. Without `is_done`, the state is that of `t_last` and of no use.
    """

    is_done: Bool[Array, '*batch']
    t_last: Float[Array, '*batch']
    steps: Int[Array, '*batch']


def at_the_end(t_end: Number, num_steps: int, num: int) -> Ending:
    """That of `num` images after all steps of a grid."""
    return Ending(
        jnp.ones(num, bool), jnp.full(num, t_end, jnp.result_type(float)), jnp.full(num, num_steps)
    )


def first_of(*each: Ending) -> Ending:
    """Of several endings of the same images, the first that is not done, if any."""
    return first_not_done(jax.tree.map(lambda *parts: jnp.stack(parts), *each))


def first_not_done(endings: Ending) -> Ending:
    """Of endings [several, batch], each image's first that is not done, if any."""
    which = jnp.argmin(endings.is_done, axis=0)[None]
    return Ending(*(jnp.take_along_axis(each, which, axis=0)[0] for each in endings))


class Halting:
    """A step size controller of diffrax that gives up where it can go no further: when a step is
    rejected, and a smaller one is too short to leave its time. To be mixed in before a controller.

    Otherwise it would try on until there are no more steps, each for the price of another.
    """

    def adapt_step_size(self, *args, **kwargs):
        keep, start, end, made_jump, state, result = super().adapt_step_size(*args, **kwargs)
        stands_still = ~keep & (start == end)
        result = diffrax.RESULTS.where(stands_still, diffrax.RESULTS.dt_min_reached, result)
        return keep, start, end, made_jump, state, result


def of_diffrax(solution: diffrax.Solution) -> Ending:
    """The ending of one solve, which saved its last state; `t_last` is the solver's variable."""
    # What comes after the last state is not finite.
    last = jnp.sum(jnp.isfinite(solution.ts)) - 1
    is_done = solution.result == diffrax.RESULTS.successful
    return Ending(is_done, solution.ts[last], solution.stats['num_steps'])


def in_time(ending: Ending, sde: SDE, t_start: Number, t_end: Number) -> Ending:
    """An ending with the time in the place of the clock of the SDE."""
    ends = jnp.array([t_start, t_end])
    t_last = jnp.clip(sde.time_at_clock(ending.t_last), ends.min(), ends.max())
    return ending._replace(t_last=jnp.where(ending.is_done, ends[1], t_last))
