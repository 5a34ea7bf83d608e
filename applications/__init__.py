"""Complete systems around an experiment, each a package."""

from jax.sharding import Mesh
from ml_collections import ConfigDict

from applications.conditional import run as conditional
from datasets.classes import Classes
from experiments.experiment import Drawing, Experiment


def create_drawing(
    config: ConfigDict, experiment: Experiment, mesh: Mesh, trained_with: Classes
) -> Drawing | None:
    """What --mode=sample draws: images with what config.task says, or the experiment's own.

    `trained_with` are the classes of the training data, as far as they are known.
    """
    if 'task' in config and config.task.name != 'none':
        return conditional.create_drawing(config, experiment.model, mesh, trained_with)
    return experiment.drawing()
