"""Saving training states with orbax: in the background, atomically, kept by a policy.

A checkpoint is a directory named by its step. It has this name once all of it is on disk, and only
then are those deleted that the policy no longer keeps. A checksum of all arrays is saved with them:
flipped bits are found as missing files are.
"""

import contextlib
import dataclasses
import gc
import logging
import math
import pathlib
import re
import sys
from collections.abc import Iterator
from functools import partial

import jax
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from choices import InputError, RunError
from devices import processes
from storage import files, fingerprints
from training import EMA, TrainState

LOSS = 'loss'  # name of a checkpoint's loss in orbax's metadata of it
CHECKSUM = 'checksum'
# What the only moving average was called in checkpoints before there could be several.
OLD_AVERAGE = 'ema_params'


@dataclasses.dataclass(frozen=True)
class Policy:
    """Which checkpoints stay: the `newest`, those at multiples of `every` steps (0: none), and the
    `best`, which are those of least loss among all that have one."""

    newest: int
    every: int
    best: int

    def kept(self, losses: dict[int, float | None]) -> set[int]:
        """The steps that stay, of steps and their losses."""
        steps = sorted(losses)
        ranked = sorted((loss, step) for step, loss in losses.items() if is_number(loss))
        return {
            *steps[-self.newest :],
            *(step for step in steps if self.every and step % self.every == 0),
            *(step for _, step in ranked[: self.best]),
        }


def is_number(loss: float | None) -> bool:
    """Whether there is a loss, and it is finite."""
    return loss is not None and math.isfinite(loss)


class Checkpoints:
    """The checkpoints of a run, in `directory`, by the number of steps done.

    A save returns as soon as the state is copied from the device. What goes wrong with it later is
    raised by the next call of `check`, `save` or the end of the context.
    Without a policy nothing changes: what a training that is under way is about to save is left
    alone.
    """

    def __init__(self, directory: pathlib.Path, policy: Policy | None = None):
        options = ocp.CheckpointManagerOptions(
            preservation_policy=_Preservation(policy, self._losses) if policy else None,
            cleanup_tmp_directories=policy is not None,
            create=policy is not None,
            lightweight_initialize=True,  # Or else damaged metadata are an error here.
        )
        self._changes = policy is not None
        self._known_losses: dict[int, float | None] = {}
        self._quiet = contextlib.ExitStack()
        with files.writing(directory):
            self._manager = ocp.CheckpointManager(
                directory.absolute(), options=options, item_handlers=ocp.StandardCheckpointHandler()
            )

    def __enter__(self) -> 'Checkpoints':
        self._quiet.enter_context(_quiet_threads())
        return self

    def __exit__(self, *_) -> None:
        with self._quiet, self._saving():
            self._manager.close()

    def steps(self) -> list[int]:
        """The steps that can be restored, or are being saved, in order."""
        return processes.from_first(lambda: sorted(self._manager.all_steps()))

    # Saving

    def save(self, state: TrainState, loss: float | None = None) -> None:
        """Starts to save a state under its own step, unless that is saved already; `loss` ranks it.

        Raises RunError if this or the save before cannot be done.
        """
        step = int(state.step)
        if step in self.steps():
            return
        self._known_losses[step] = loss
        args = ocp.args.StandardSave({CHECKSUM: fingerprints.checksum(state), **state._asdict()})
        with self._saving():
            self._manager.save(step, args=args, custom_metadata={LOSS: loss})

    def check(self) -> None:
        """Raises RunError if a save has failed meanwhile; waits for none."""
        if not self._manager.is_saving_in_progress():
            self.wait()

    def wait(self) -> None:
        """Returns once all is on disk; raises RunError if it is not."""
        with self._saving():
            self._manager.wait_until_finished()

    @contextlib.contextmanager
    def _saving(self) -> Iterator[None]:
        """Any error of a save as a RunError that says what is safe."""
        try:
            yield
        except Exception as error:  # Whatever tensorstore, orbax or the system raise.
            directory = pathlib.Path(self._manager.directory)
            there = sorted(int(path.name) for path in directory.iterdir() if path.name.isdecimal())
            raise RunError(
                f'{directory}: a checkpoint could not be saved ({_reason(error)}); those of steps '
                f'{there} are whole, and the same command goes on from the last of them'
            ) from error

    def _losses(self, steps: list[int]) -> dict[int, float | None]:
        """The loss that each step was saved with."""
        for step in set(steps) - self._known_losses.keys():
            self._known_losses[step] = self._saved_loss(step)
        return {step: self._known_losses[step] for step in steps}

    def _saved_loss(self, step: int) -> float | None:
        try:
            return (self._manager.metadata(step).custom_metadata or {}).get(LOSS)
        except Exception:  # Whatever damaged metadata raise.
            return None

    # Restoring

    def restore(
        self, like: TrainState, step: int | None = None, field: str = 'eval.checkpoint'
    ) -> TrainState:
        """The state at `step` (None: the newest that is whole), with shapes and shardings of
        `like`, which may be abstract; `field` is where a user has named the step.

        Newer ones that are damaged are reported. If saving may change them they are renamed, since
        their steps will be saved again.
        Raises InputError if there is none, or if its arrays are not those of `like`.
        """
        known = self.steps()
        if not known:
            raise InputError(f'workdir: no checkpoint in {self._manager.directory}')
        if step is not None:
            return self._restore_chosen(like, step, known, field)
        damaged = []
        for candidate in reversed(known):
            try:
                state = self._restore(like, candidate)
            except _DamagedError as error:
                damaged.append(f'{error}')
                continue
            self._report(damaged, known[len(known) - len(damaged) :], candidate)
            return state
        raise InputError(f'workdir: {damaged[0]}, as are all of the steps {known}')

    def _restore_chosen(self, like, step, known, field):
        if step not in known:
            raise InputError(f'{field}: no checkpoint of step {step}; there are: {known}')
        try:
            return self._restore(like, step)
        except _DamagedError as error:
            raise InputError(f'{field}: {error}; there are: {known}') from error

    def _restore(self, like: TrainState, step: int) -> TrainState:
        """The state at a step; raises _DamagedError, or InputError if it is of another network."""
        path = f'{self._manager.directory}/{step}'
        checksum = jax.ShapeDtypeStruct((), np.uint32, sharding=like.step.sharding)
        wanted, failure = {CHECKSUM: checksum, **like._asdict()}, None
        try:
            saved = self._manager.item_metadata(step).tree
            if OLD_AVERAGE in saved:
                wanted[OLD_AVERAGE] = wanted.pop('averages')[EMA]
            abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, wanted)
            if difference := _difference(saved, wanted):
                raise InputError(f'{path} is of another network: {difference}')
            with processes.saying(f'reading {path}'):
                found = self._manager.restore(step, args=ocp.args.StandardRestore(abstract))
        except InputError:
            raise
        except Exception as error:  # Orbax raises some of the bare class.
            failure = error
        if not processes.all_of(failure is None):
            raise _DamagedError(f'{path} is damaged and cannot be read') from failure
        if OLD_AVERAGE in found:
            found['averages'] = {EMA: found.pop(OLD_AVERAGE)}
        checksum, state = found.pop(CHECKSUM), TrainState(**found)
        if fingerprints.checksum(state) != checksum:
            raise _DamagedError(f'{path} is damaged: its arrays are not those that were saved')
        return state

    def _report(self, damaged: list[str], steps: list[int], used: int) -> None:
        """A line for each damaged checkpoint, which is put aside if this is a run that saves."""
        for step, what in zip(reversed(steps), damaged, strict=True):
            aside = ''
            if self._changes:
                path = pathlib.Path(self._manager.directory) / str(step)
                aside = f'; renamed {processes.from_first(partial(put_aside, path)).name}'
            print(f'{what}{aside}; using step {used}', flush=True)
        if damaged and self._changes:
            self._manager.reload()


class _DamagedError(Exception):
    """A checkpoint cannot be read."""


@dataclasses.dataclass
class _Preservation:
    """A Policy as orbax asks for it."""

    policy: Policy
    losses: object

    def should_preserve(self, checkpoints, *, context) -> list[bool]:
        steps = [checkpoint.step for checkpoint in checkpoints]
        kept = self.policy.kept(self.losses(steps))
        return [step in kept for step in steps]


def put_aside(path: pathlib.Path) -> pathlib.Path:
    """Renames a directory to the first of NAME.damaged, NAME.damaged2, ... that is free."""
    number = 1
    while (aside := path.with_name(f'{path.name}.damaged{number if number > 1 else ""}')).exists():
        number += 1
    return path.rename(aside)


def _reason(error: Exception) -> str:
    """The system's part of a message: its end, without the numbers that tensorstore adds."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return re.sub(r' \[.*', '', ' '.join(str(error).split())).rpartition(': ')[2]


@contextlib.contextmanager
def _quiet_threads() -> Iterator[None]:
    """Without the tracebacks of reads and writes that were under way when another one failed."""
    hooks, log = (sys.excepthook, sys.unraisablehook), logging.getLogger('asyncio')
    sys.excepthook = sys.unraisablehook = lambda *_: None
    log.disabled = True
    try:
        yield
    finally:
        gc.collect()  # What is left of them complains when it is collected.
        log.disabled = False
        sys.excepthook, sys.unraisablehook = hooks


def _difference(saved: PyTree, wanted: PyTree) -> str | None:
    """What is said of the first array that differs, if any does."""
    found, expected = _shapes(saved), _shapes(wanted)
    # Parameters first: averages and the optimiser differ as they do.
    names = sorted(expected.keys() | found.keys(), key=lambda name: (name[:6] != 'params', name))
    for name in names:
        if expected.get(name) != found.get(name):
            there, needed = (shapes.get(name, 'missing') for shapes in (found, expected))
            return f'{name} is {there} there, and {needed} in the network of the config'
    return None


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    """The shapes of arrays by the names of their paths, which orbax's metadata have as ours."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator='.'): a.shape for path, a in leaves}
