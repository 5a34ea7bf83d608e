"""What all samplers are: where they begin and end, and what they return."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

import keys
from choices import ArgumentError
from parameterization import Process
from sde_lib import Number, at
from shapes import Counts, Grid, ImageKeys, State
from solvers import endings
from solvers.endings import Ending
from solvers.grids import TimeGrid

# The i-th noise of every image; draw 0 is for the prior.
Draw = Callable[[int | Int[Array, '']], State]


class Samples(NamedTuple):
    """Samples at the last time, and the network evaluations that each of them took. Those whose
    `ending` is not done are no samples.

    `trajectory` are the states on the way at `times`, if they were asked for. `rounds` are those of
    the evaluations that had to wait for each other, of solvers that are parallel in time.
    """

    x: State
    nfe: Counts
    ending: Ending
    trajectory: Float[Array, 'times batch *shape'] | None = None
    times: Grid | None = None
    rounds: Counts | None = None


class Problem(NamedTuple):
    """What is to be solved: from the states `x` at `t_start` to `t_min`, with `times` of the grid
    between them, by noise from `image_keys`: `draw(i)`, or of an image's own making.
    """

    process: Process
    image_keys: ImageKeys
    draw: Draw
    x: State
    t_start: Number
    t_min: Number
    times: Grid


class Solution(NamedTuple):
    """States at t_min, and their evaluations; `x_mean` are those without the noise that the last
    step ended with, None if it ended without; `ending` is None after all steps of the grid. The
    others are those of `Samples`.
    """

    x: State
    nfe: Counts
    x_mean: State | None = None
    trajectory: Float[Array, 'times batch *shape'] | None = None
    rounds: Counts | None = None
    ending: Ending | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampler:
    """What draws images. Subclasses say how a `Problem` is solved.

    t_min        last time; None: the SDE's, and of those that evaluate nothing there, on the
                 uniform grid of a chain, 0: the data
    denoise      without the noise that is left in the end: of steps that end with noise that noise,
                 which costs nothing; of all others by E[x_0 | x], for one evaluation more
    temperature  scale of all noise; below 1 images are likelier and less varied
    trajectory   the states at the times of `grid` are returned too
    """

    grid: TimeGrid = TimeGrid()
    t_min: Number | None = None
    denoise: bool = True
    temperature: float = 1.0
    trajectory: bool = False

    @property
    def may_end_at_data(self) -> bool:
        """Whether nothing is evaluated at the last time."""
        return False

    def __call__(
        self,
        image_keys: ImageKeys,
        process: Process,
        shape: tuple[int, ...],
        x_init: State | None = None,
        t_start: Number | None = None,
    ) -> Samples:
        """One image of `shape` for each key, from the states `x_init` at `t_start` (None: at T), or
        from the prior. Raises ArgumentError for a time without states.
        """
        if x_init is None and t_start is not None:
            raise ArgumentError('x_init', 'None, and t_start is given; states at that time needed')
        sde, draw = process.sde, noise_source(image_keys, shape, self.temperature)
        x = sde.prior_of(draw(0)) if x_init is None else x_init
        start = sde.T if t_start is None else t_start
        t_min = self.grid.last_time(sde, self.may_end_at_data) if self.t_min is None else self.t_min
        times = self.grid.times(sde, t_min, start)
        found = self.solve(Problem(process, image_keys, draw, x, start, t_min, times))
        x, nfe, rounds = found.x, found.nfe, found.rounds
        if self.denoise and found.x_mean is not None:
            x = found.x_mean
        elif self.denoise:
            x, nfe = process.denoise(x, at(t_min, x)), nfe + 1
            rounds = None if rounds is None else rounds + 1
        ending = found.ending or endings.at_the_end(times[-1], len(times) - 1, len(x))
        times = times if self.trajectory else None
        return Samples(x, nfe, ending, found.trajectory, times, rounds)

    def solve(self, problem: Problem) -> Solution:
        """The states at the end and, with `trajectory`, at the times of the grid."""
        raise TypeError(f'{type(self).__name__} does not define solve')


def noise_source(image_keys: ImageKeys, shape: tuple[int, ...], temperature: float) -> Draw:
    """`draw(i)`: the i-th normal noise for images of `shape`, each from its own key, times
    `temperature`.
    """
    return lambda i: temperature * keys.normal(image_keys, i, shape)


def counted(x: State, nfe: int) -> Counts:
    """A number of evaluations that all images have in common."""
    return jnp.full(x.shape[0], nfe)
