"""What a run begins with where it does not begin at random: training.init_from."""

import pathlib
from typing import NamedTuple

from jax.sharding import Mesh
from ml_collections import ConfigDict

from choices import InputError
from devices import processes, sharding
from experiments import programs
from experiments.experiment import Experiment
from published import exchange
from storage import files, workdirs
from storage.checkpoints import Checkpoints
from training import Params, TrainState

FIELD = 'training.init_from'


class Initial(NamedTuple):
    """Parameters and their moving averages, on a mesh, and how many steps have made them."""

    params: Params
    averages: dict[str, Params]
    step: int


def load(config: ConfigDict, experiment: Experiment, mesh: Mesh) -> Initial | None:
    """The parameters that config.training.init_from names: of a workdir, with the number of a step
    or the newest, or of a published file; None if it names nothing.

    Raises InputError if there are none, or if they are not those of the experiment's network.
    """
    given = config.training.init_from
    if given is None:
        return None
    path, step = processes.from_first(lambda: _located(given))
    if path.is_dir():
        return _of_workdir(path, step, programs.abstract_state(experiment, mesh))
    if step is not None or not path.is_file():
        raise InputError(f'{FIELD}: {given}: there is no such workdir or published file')
    return _of_file(path, config, experiment, mesh)


def _located(given: str) -> tuple[pathlib.Path, int | None]:
    """A path, and the step behind its last colon, if that is no part of the path."""
    path, (before, _, step) = files.user_path(given, FIELD), given.rpartition(':')
    if path.exists() or not (before and step.isdecimal()):
        return path, None
    return files.user_path(before, FIELD), int(step)


def _of_workdir(path: pathlib.Path, step: int | None, like: TrainState) -> Initial:
    directory = path / 'checkpoints'
    if not processes.from_first(directory.is_dir):
        raise InputError(f'{FIELD}: {path} has no checkpoints, and is no workdir of a run')
    with Checkpoints(directory) as checkpoints:
        found = checkpoints.restore(like, step, FIELD)
    return Initial(found.params, found.averages, int(found.step))


def _of_file(path: pathlib.Path, config: ConfigDict, experiment: Experiment, mesh: Mesh) -> Initial:
    try:
        found, _ = exchange.read(path, experiment.init, workdirs.flatten(config.to_dict()))
    except InputError as error:
        raise InputError(f'{FIELD}: {error}') from error
    trees = found.params, found.averages
    placed = sharding.put(trees, sharding.by_size(mesh, trees))
    return Initial(*placed, int(found.step))
