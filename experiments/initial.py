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
    """Parameters and their moving averages, on a mesh, and how many steps have made them; `name` is
    the value of training.init_from that names them, and no later ones.
    """

    params: Params
    averages: dict[str, Params]
    step: int
    name: str


class Source(NamedTuple):
    """Where parameters are: in a workdir, by the number of a step or the newest (None), or in a
    published file.
    """

    path: pathlib.Path
    step: int | None
    is_workdir: bool


def settled(config: ConfigDict, workdir: pathlib.Path) -> ConfigDict:
    """A config with the step that the run in `workdir` took when it was started first, where
    config.training.init_from names the same workdir, and no step.

    So the run is the same however often it is started, and however far the other has come by then.
    Raises InputError if the config in `workdir` is damaged.
    """
    before = processes.from_first(lambda: _recorded(workdir))
    is_the_same = before is not None and before.rpartition(':')[0] == config.training.init_from
    return named(config, before) if is_the_same else config


def named(config: ConfigDict, name: str) -> ConfigDict:
    """A config with this training.init_from."""
    config = config.copy_and_resolve_references()
    config.training.init_from = name
    return config


def _recorded(workdir: pathlib.Path) -> str | None:
    found = workdirs.flatten(workdirs.read_config(workdir) or {}).get(FIELD)
    return found if isinstance(found, str) else None


def load(config: ConfigDict, experiment: Experiment, mesh: Mesh) -> Initial | None:
    """The parameters that config.training.init_from names: of a workdir, with the number of a step
    or the newest, or of a published file; None if it names nothing.

    Raises InputError if there are none, or if they are not those of the experiment's network.
    """
    given = config.training.init_from
    if given is None:
        return None
    source = processes.from_first(lambda: _located(given))
    if not source.is_workdir:
        return _of_file(source.path, config, experiment, mesh)
    found = _of_workdir(source, programs.abstract_state(experiment, mesh))
    step = int(found.step)
    name = given if source.step is not None else f'{given}:{step}'
    return Initial(found.params, found.averages, step, name)


def _located(given: str) -> Source:
    path, step = _split(given)
    if path.is_dir():
        if not (path / 'checkpoints').is_dir():
            raise InputError(f'{FIELD}: {path} has no checkpoints, and is no workdir of a run')
        return Source(path, step, is_workdir=True)
    if step is not None or not path.is_file():
        raise InputError(f'{FIELD}: {given}: there is no such workdir or published file')
    return Source(path, None, is_workdir=False)


def _split(given: str) -> tuple[pathlib.Path, int | None]:
    """A path, and the step behind its last colon, if that is no part of the path."""
    path, (before, _, step) = files.user_path(given, FIELD), given.rpartition(':')
    if path.exists() or not (before and step.isdecimal()):
        return path, None
    return files.user_path(before, FIELD), int(step)


def _of_workdir(source: Source, like: TrainState) -> TrainState:
    try:
        with Checkpoints(source.path / 'checkpoints') as checkpoints:
            return checkpoints.restore(like, source.step, FIELD)
    except InputError as error:
        said = str(error)
        raise InputError(said if said.startswith(FIELD) else f'{FIELD}: {said}') from error


def _of_file(path: pathlib.Path, config: ConfigDict, experiment: Experiment, mesh: Mesh) -> Initial:
    try:
        found, _ = exchange.read(path, experiment.init, workdirs.flatten(config.to_dict()))
    except InputError as error:
        raise InputError(f'{FIELD}: {error}') from error
    trees = found.params, found.averages
    placed = sharding.put(trees, sharding.by_size(mesh, trees))
    return Initial(*placed, int(found.step), config.training.init_from)
