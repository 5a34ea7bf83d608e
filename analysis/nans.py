"""Which operation of a training step makes a number that is not finite, and where it stands."""

import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

ROOT = Path(__file__).parents[1]


# How JAX calls it to have a constant on a device: that of the maximum in a softmax is -infinity.
CONSTANT = 'in stage'


def locate(step: Callable, state: Any, batches: Any) -> str:
    """The first such operation in steps on `batches` [steps, ...], and the line that asked for it.

    The step that fails is done again operation by operation, which takes seconds to minutes.
    Infinity is looked for if there is no NaN. An operation of the gradient is said to stand where
    the one that it is the gradient of does.
    """
    run = jax.jit(step)
    for batch in _each(batches):
        after, metrics = run(state, batch)
        if metrics.skipped:
            return f'step {int(after.step)}: {_first(step, state, batch)}'
        state = after
    return f'step {int(state.step)}: none in a step by itself, only in several compiled together'


def _each(batches: Any) -> Iterator[Any]:
    for i in range(len(jax.tree.leaves(batches)[0])):
        yield jax.tree.map(lambda a, i=i: a[i], batches)


def _first(step: Callable, state: Any, batch: Any) -> str:
    for searching in (jax.debug_nans, jax.debug_infs):
        try:
            with jax.disable_jit(), searching(True):
                step(state, batch)
        except FloatingPointError as error:
            if CONSTANT not in str(error):
                return f'{error}, at {_place(error)}'
    return 'loss or gradient are infinite; no single operation can be told to be the first'


def _place(error: BaseException) -> str:
    """File, line and function of this project that are closest to an error."""
    # JAX gives a gradient's operation the traceback of the forward one as the cause.
    tracebacks = [e.__traceback__ for e in (error, error.__cause__) if e is not None]
    frames = [frame for found in tracebacks for frame in traceback.extract_tb(found)]
    ours = [frame for frame in frames if _ours(Path(frame.filename))]
    frame = ours[-1] if ours else frames[-1]
    return f'{Path(frame.filename).name}:{frame.lineno} ({frame.name})'


def _ours(path: Path) -> bool:
    # The packages may be installed in a folder of the project.
    return ROOT in path.parents and 'site-packages' not in path.parts
