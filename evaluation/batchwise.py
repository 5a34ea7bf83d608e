"""Measures of a checkpoint, which go through data or draw samples batch by batch.

What a batch was found to be is kept in `eval/<step>/batches/`, so that an evaluation that was
interrupted ends, by the same command, with the numbers of one that was not. Seconds cannot be the
same: rates are apart from all other numbers.
"""

import dataclasses
import functools
import math
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int
from tqdm import tqdm

from datasets import batching, identity
from datasets.stored import Examples
from devices import compiling, processes, sharding
from devices.compiling import Compiled
from evaluation import left_out
from evaluation.quantities import Quantity
from shapes import HostPixels
from storage import fingerprints, resumable
from storage.resumable import Arrays

# Of what is computed from the same values: results of another version are computed again.
VERSION = 2
# The directory of what is kept, in that of a checkpoint's evaluation.
BATCHES = 'batches'


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The parameters that are measured, and where their numbers and pictures go."""

    params: Any
    directory: pathlib.Path
    checksum: int

    def batches(self, name: str, mesh: Mesh, *depends_on: Any) -> pathlib.Path:
        """Where the batches of a result lie that depends on the parameters, the run, and on these
        values, whose text says all.

        What else is fixed for a run need not be told apart; see storage/workdirs.py.
        """
        given = [VERSION, dict(mesh.shape), self.checksum, *map(str, depends_on)]
        return self.directory / BATCHES / f'{name}_{fingerprints.fingerprint(given)}'


class Found(NamedTuple):
    """What a measure found: numbers that are the same every time, rates, and a line for each set of
    images that it had to leave out.
    """

    quantities: list[Quantity]
    rates: list[Quantity] = []
    problems: list[str] = []


Measure = Callable[[Checkpoint], Found]


@dataclasses.dataclass(frozen=True)
class OverData:
    """Arrays [examples, ...] by name, of every example of a data set once, in order.

    `function(params, key, batch)` has those of a batch, which holds the `index` of each example
    besides; batch i gets fold_in(key(seed), i). `depends_on` says what the arrays depend on besides
    the parameters, the data and the size of a batch.
    """

    name: str
    function: Callable
    data: Examples
    batch_size: int
    seed: int
    mesh: Mesh
    depends_on: Any = None

    def __call__(self, checkpoint: Checkpoint) -> Arrays:
        """Batches that are kept are not computed again."""
        num, size = len(self.data), self.batch_size
        with processes.saying(f'reading the data of {self.name}'):
            seen = processes.from_first(lambda: identity.fingerprint(self.data))
        directory = checkpoint.batches(self.name, self.mesh, size, num, seen, self.depends_on)
        results = []
        with processes.bar(total=num, unit='example', desc=self.name) as bar:
            for i, batch in enumerate(batching.epoch(self.data, size, *processes.place())):
                of_batch = functools.partial(self._of_batch, checkpoint.params, i, batch)
                results.append(resumable.keep(directory, i, of_batch))
                bar.update(min(size, num - i * size))
        return {name: np.concatenate([part[name] for part in results]) for name in results[0]}

    def _of_batch(self, params: Any, i: int, batch: Arrays) -> Arrays:
        key = jax.random.fold_in(jax.random.key(self.seed), i)
        found = self._program(params, key, sharding.split(self.mesh, batch))
        left = len(self.data) - i * self.batch_size
        return {name: array[:left] for name, array in processes.gather(found).items()}

    @functools.cached_property
    def _program(self) -> Callable:
        return compiling.told(self.name, self.function)


class Drawn(NamedTuple):
    """Samples in 8 bits, their numbers, their evaluations, and the seconds that all took once
    compiled; what there is to say of others that are left out, and how many they are.
    """

    pixels: HostPixels
    index: Int[np.ndarray, 'num']
    nfe: Int[np.ndarray, 'num']
    seconds: float
    problem: str | None
    left_out: Quantity


@dataclasses.dataclass(frozen=True)
class Draws:
    """`num` images by `run(params, key, indices, given)`, a program, in batches of `batch_size` or,
    of fewer images, as few as the devices divide. The program returns arrays by name: `pixels`,
    `nfe`, and those of left_out.ARRAYS. `remedy` is for solvers that do not come to their end;
    `steps` are those of a solver that takes as many for every image.
    """

    name: str
    run: Callable
    num: int
    batch_size: int
    seed: int
    mesh: Mesh
    given: Any = None
    remedy: str = ''
    steps: int | None = None

    @property
    def size(self) -> int:
        """Images of a batch."""
        return math.ceil(min(self.batch_size, self.num) / self.mesh.size) * self.mesh.size

    def __call__(
        self,
        params: Any,
        directory: pathlib.Path | None = None,
        before_batch: Callable[[], None] = lambda: None,
    ) -> Drawn:
        """Batches that are in `directory` are not drawn again, and others are put there.

        `before_batch` is called before each batch that is drawn, and may end this by an error.
        """
        num, size, batches = self.num, self.size, []
        with self.bar(num) as bar:
            for i in range(math.ceil(num / size)):
                indices = np.arange(i * size, (i + 1) * size)
                of_batch = functools.partial(self.of_indices, params, indices, before_batch)
                batches.append(resumable.keep(directory, i, of_batch))
                bar.update(min(size, num - i * size))
        names = 'pixels', 'nfe', *left_out.ARRAYS
        found = {name: np.concatenate([b[name] for b in batches])[:num] for name in names}
        index = np.flatnonzero(left_out.kept(found))
        seconds = sum(batch['seconds'] for batch in batches)
        return Drawn(
            found['pixels'][index],
            index,
            found['nfe'][index],
            float(seconds) * num / (len(batches) * size),
            left_out.line(self.name, found, self.remedy, params),
            left_out.quantity(found, of=self.name),
        )

    def bar(self, num: int) -> tqdm:
        """A bar for `num` images, below a line that says how much work they are."""
        of_steps = f' of {self.steps:,} steps' if self.steps else ''
        processes.say(f'drawing {num:,} samples{of_steps} by {self.name} ...')
        return processes.bar(total=num, unit='image', desc=self.name)

    def of_indices(
        self,
        params: Any,
        indices: Int[np.ndarray, 'size'],
        before: Callable[[], None] = lambda: None,
    ) -> Arrays:
        """What the program returns of the images with these indices, `size` of them, and the
        `seconds` that it took; `before` is called between compilation and this.
        """
        placed = sharding.put(indices, sharding.by_batch(self.mesh))
        arguments = params, jax.random.key(self.seed), placed, self.given
        self._program.prepare(*arguments)
        before()
        started = time.perf_counter()
        drawn = processes.gather(self._program(*arguments))
        return {**drawn, 'seconds': np.float64(time.perf_counter() - started)}

    @functools.cached_property
    def _program(self) -> Compiled:
        return Compiled(f'{self.name}, {self.size:,} images at once', self.run)
