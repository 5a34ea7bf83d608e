"""The files of a run: whether its workdir can be used, its config, its data and its checkpoints."""

import dataclasses
import pathlib
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
from storage import files, workdirs
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


def claim(workdir: pathlib.Path, config: ConfigDict) -> None:
    """Writes the config to a workdir; InputError if another run has it."""
    workdirs.claim(workdir, config.to_dict(), base.is_fixed(config.experiment))


def keep_data(workdir: pathlib.Path, step: int, train_data: Examples, test_data: Examples) -> None:
    """Keeps what identifies the data when training begins, and the classes that are trained with;
    says later if the data are others.
    """
    data = {'train': train_data, 'test': test_data}
    found = {split: _identified(of_split) for split, of_split in data.items()}
    known = getattr(train_data, 'classes', None)
    kept = dataclasses.asdict(known) if known else None
    for line in workdirs.keep_data(workdir, step, found, kept):
        print(line, flush=True)


def kept_classes(workdir: pathlib.Path) -> Classes:
    """The classes that a workdir was trained with; without any if nothing is known of them."""
    return classes.kept(workdirs.read_classes(workdir) or {})


def _identified(data: Examples) -> dict[str, Any]:
    return {'examples': len(data), 'fingerprint': identity.fingerprint(data)}


def claim_new(workdir: pathlib.Path, config: ConfigDict) -> None:
    """Claims a workdir; InputError if it has checkpoints."""
    # An import that a full disk has ended leaves the directory.
    if any(path.name.isdecimal() for path in (workdir / 'checkpoints').glob('*')):
        raise InputError(f'--workdir: {workdir} has checkpoints already; import into a new one')
    claim(workdir, config)


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
