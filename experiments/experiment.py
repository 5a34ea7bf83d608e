"""What the program knows of anything that is trained: the interface of experiments.

    init(key) -> TrainState            drawing() -> how images are drawn, or None
    step(state, batch) -> state        measures(workdir) -> what `eval` finds out
    loss(params, key, batch, train)    programs() -> what that runs on a batch

An experiment is made of a config by kinds.py, and is all that run_lib sees of it.
"""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Array, Int

from datasets.stored import Examples
from evaluation.batchwise import Measure
from reports import pictures
from shapes import HostPixels, OneKey, PerImage
from training import Metrics, Params, TrainState

Batch = dict[str, Array]


class Shown(NamedTuple):
    """What is kept of images that were drawn: a picture of them, arrays, and what there is to say
    of them, if anything."""

    sheet: HostPixels
    arrays: dict[str, np.ndarray]
    note: str | None = None


def _in_a_grid(pixels: HostPixels, index: Int[np.ndarray, 'num']) -> Shown:
    return Shown(pictures.grid(pixels[: pictures.most(pixels.shape)]), {})


@dataclasses.dataclass(frozen=True)
class Drawing:
    """How images are drawn: `num` of them, in batches of `batch_size`, from the key of `seed`.

    `draw(params, key, indices, given)` are the `pixels` of images with these indices, in 8 bits,
    their `nfe`, and which of them are to be left out, as evaluation/left_out.py says, by name;
    `given` are arrays that they depend on besides the parameters. `fingerprint` is text that
    changes with what is drawn. `show(pixels, index)` is of those that are not left out, which have
    these numbers. `remedy` is what a user can do about images whose solver stood still; `steps` are
    those of a solver that takes as many for every image. `is_bounded`: there are no images with
    other indices.
    """

    name: str
    num: int
    batch_size: int
    seed: int
    draw: Callable[[Params, OneKey, Int[Array, 'batch'], Any], dict[str, Array]]
    fingerprint: str
    given: Any = None
    show: Callable[[HostPixels, Int[np.ndarray, 'num']], Shown] = _in_a_grid
    remedy: str = ''
    steps: int | None = None
    is_bounded: bool = False


class Program(NamedTuple):
    """`run(params, key, batch)`, compiled when it is called, and the shapes of a batch."""

    title: str
    run: Callable[[Params, OneKey, Batch], Any]
    batch: Batch


class Experiment(Protocol):
    """Anything that is trained, evaluated and, maybe, drawn with."""

    def data(self, split: str) -> Examples:
        """The examples of 'train' or 'test'; InputError if they are of no use here."""

    def batch_shapes(self, size: int) -> Batch:
        """The shapes of a batch of examples."""

    def init(self, key: OneKey) -> TrainState:
        """The state before the first step."""

    def step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """One step of training, on the batch of step `state.step`."""

    def loss(self, params: Params, key: OneKey, batch: Batch, train: bool) -> PerImage:
        """The objective of each example; `train`: as in training, with what is random there."""

    def drawing(self) -> Drawing | None:
        """How images are drawn, as config.sampling says; None if there are none to draw."""

    def measures(self, workdir: pathlib.Path) -> list[Measure]:
        """What can be measured besides the loss, as config.eval says."""

    def programs(self) -> list[Program]:
        """The large programs among those of the measures."""
