"""The files of a run: whether its workdir can be used, its config, its data and its checkpoints."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any

from jax.sharding import Mesh
from ml_collections import ConfigDict

from choices import InputError
from configs import base
from datasets import classes, identity
from datasets.classes import Classes
from datasets.stored import Examples
from devices import processes
from experiments import programs
from experiments.experiment import Experiment
from reports import report
from storage import files, locks, workdirs
from storage.checkpoints import Checkpoints, Policy
from training import TrainState


def check(workdir: pathlib.Path) -> None:
    """Raises InputError unless a workdir can be written to, and what it has can be read: to be
    called before there is work to lose.
    """
    for directory in (workdir, *(workdir / name for name in DIRECTORIES)):
        files.check_directory(directory, '--workdir')
    report.check(workdir)


DIRECTORIES = ('checkpoints', 'logs', 'samples', 'eval')  # of a workdir


def is_begun(workdir: pathlib.Path) -> bool:
    """Whether a run has saved a checkpoint."""
    # An import that a full disk has ended leaves the directory.
    return any(path.name.isdecimal() for path in (workdir / 'checkpoints').glob('*'))


# Who writes to a workdir


@contextlib.contextmanager
def training(
    workdir: pathlib.Path, config: ConfigDict, data: dict[str, Examples]
) -> Iterator[None]:
    """Within it a workdir is that of a training by this config, on data with these splits.

    A line says if the data are not those that training began with: images were mended, removed or
    added. Raises InputError if another process writes there, if a run with other fields that are
    fixed is there, or if data that are elsewhere now are not the same.
    """
    with _locked(workdir):
        processes.from_first(lambda: _claim_with_data(workdir, config, data))
        yield


@contextlib.contextmanager
def importing(workdir: pathlib.Path, config: ConfigDict) -> Iterator[None]:
    """Within it a workdir is that of an import with this config.

    The config is written at the end, when all is to be saved: what has one, and no checkpoint, is a
    training that begins.
    Raises InputError if another process writes there, or if there are checkpoints.
    """
    with _locked(workdir):
        processes.from_first(lambda: _check_new(workdir, config))
        yield
        processes.from_first(lambda: workdirs.record(workdir, config.to_dict()))


@contextlib.contextmanager
def _locked(workdir: pathlib.Path) -> Iterator[None]:
    lock = locks.Lock(workdir / 'lock')
    processes.from_first(lock.take)
    try:
        yield
    finally:
        lock.release()


def _claim_with_data(workdir: pathlib.Path, config: ConfigDict, data: dict[str, Examples]) -> None:
    check_free(workdir, config)
    found = {split: _identified(of_split) for split, of_split in data.items()}
    has_moved = _place_of_data(config.to_dict()) != _place_of_data(workdirs.read_config(workdir))
    known = getattr(data['train'], 'classes', None)
    kept = dataclasses.asdict(known) if known else None
    for line in workdirs.keep_data(workdir, is_begun(workdir), has_moved, found, kept):
        print(line, flush=True)
    workdirs.record(workdir, config.to_dict())


def _place_of_data(config: dict | None) -> list[str | None]:
    data = (config or {}).get('data', {})
    return [data.get(field) for field in ('source', 'data_dir')]


def _check_new(workdir: pathlib.Path, config: ConfigDict) -> None:
    if is_begun(workdir):
        raise InputError(f'--workdir: {workdir} has checkpoints already; import into a new one')
    check_free(workdir, config)


def check_free(workdir: pathlib.Path, config: ConfigDict) -> None:
    """Raises InputError if another run has a workdir."""
    workdirs.check_free(workdir, config.to_dict(), base.is_fixed(config.experiment))


def claim(workdir: pathlib.Path, config: ConfigDict) -> None:
    """Writes the config to a workdir; InputError if another run has it."""
    workdirs.claim(workdir, config.to_dict(), base.is_fixed(config.experiment))


# What a workdir has


def compared(workdir: pathlib.Path, split: str, data: Examples) -> Examples:
    """The examples of a split, after a line if they are not those that training began with."""
    line = processes.from_first(lambda: workdirs.other_data(workdir, split, _identified(data)))
    if line:
        processes.tell_once(f'{line}, and what is measured is of those of today')
    return data


def kept_classes(workdir: pathlib.Path) -> Classes:
    """The classes that a workdir was trained with; without any if nothing is known of them."""
    return classes.kept(workdirs.read_classes(workdir) or {})


def _identified(data: Examples) -> dict[str, Any]:
    return {'examples': len(data), 'fingerprint': identity.fingerprint(data)}


def check_same_run(workdir: pathlib.Path, config: ConfigDict) -> None:
    """Raises InputError unless a workdir was trained with what is fixed in this config."""
    workdirs.check_same_run(workdir, config.to_dict(), base.is_fixed(config.experiment))


def restore(
    config: ConfigDict,
    workdir: pathlib.Path,
    experiment: Experiment,
    mesh: Mesh,
    step: int | None = None,
) -> TrainState:
    """The state at `step`, or at config.eval.checkpoint, or the newest one."""
    processes.from_first(lambda: check_same_run(workdir, config))
    abstract = programs.abstract_state(experiment, mesh)
    with open_checkpoints(config, workdir, read_only=True) as checkpoints:
        return checkpoints.restore(abstract, config.eval.checkpoint if step is None else step)


def open_checkpoints(
    config: ConfigDict, workdir: pathlib.Path, read_only: bool = False
) -> Checkpoints:
    """The checkpoints of a workdir, kept as config.training says."""
    fields = config.training
    policy = Policy(fields.keep_checkpoints, fields.keep_every, fields.keep_best)
    return Checkpoints(workdir / 'checkpoints', None if read_only else policy)
