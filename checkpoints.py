"""Saving training states with orbax: in the background, atomically, the newest few kept."""

import pathlib

import jax
import orbax.checkpoint as ocp

import processes
from choices import InputError
from training import TrainState


class Checkpoints:
    """The checkpoints of a run, in `directory`, by the number of steps done.

    `keep` newest ones stay, and those at multiples of `keep_every`. A save returns as soon as the
    state is copied from the device; a directory gets its final name when all of it is on disk.
    With `read_only`, what a training that is under way is about to save is left alone.
    """

    def __init__(
        self, directory: pathlib.Path, keep: int, keep_every: int, read_only: bool = False
    ):
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            keep_period=keep_every,
            cleanup_tmp_directories=not read_only,
            create=not read_only,
        )
        self._manager = ocp.CheckpointManager(directory.absolute(), options=options)

    def __enter__(self) -> 'Checkpoints':
        return self

    def __exit__(self, *_) -> None:
        self._manager.close()

    def steps(self) -> list[int]:
        """The steps that can be restored, in order."""
        return processes.from_first(lambda: sorted(self._manager.all_steps()))

    def save(self, state: TrainState) -> None:
        """Starts to save a state under its own step, unless that is saved already."""
        step = int(state.step)
        if step not in self.steps():
            self._manager.save(step, args=ocp.args.StandardSave(state._asdict()))

    def restore(self, like: TrainState, step: int | None = None) -> TrainState:
        """The state at `step` (None: the newest), with shapes and shardings of `like`, which may be
        abstract.

        Raises InputError if there is none, and ValueError if its arrays are not those of `like`.
        """
        known = self.steps()
        if not known:
            raise InputError(f'workdir: no checkpoint in {self._manager.directory}')
        if step is not None and step not in known:
            raise InputError(f'eval.checkpoint: no checkpoint of step {step}; there are: {known}')
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like._asdict())
        restored = self._manager.restore(
            known[-1] if step is None else step, args=ocp.args.StandardRestore(abstract)
        )
        return TrainState(**restored)
