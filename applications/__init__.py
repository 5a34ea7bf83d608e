"""Complete systems around an experiment, each a package."""

from jax.sharding import Mesh
from ml_collections import ConfigDict

from applications.conditional import run as conditional
from experiments.experiment import Drawing, Experiment


def create_drawing(config: ConfigDict, experiment: Experiment, mesh: Mesh) -> Drawing | None:
    """What --mode=sample draws: images with what config.task says, or the experiment's own."""
    if 'task' in config and config.task.name != 'none':
        return conditional.create_drawing(config, experiment.model, mesh)
    return experiment.drawing()
