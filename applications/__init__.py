"""Complete systems around an experiment, each a package."""

from jax.sharding import Mesh
from ml_collections import ConfigDict

from applications.conditional import run as conditional
from applications.purification import measures as purification_measures
from applications.purification import run as purification
from datasets.classes import Classes
from evaluation.batchwise import Measure
from experiments.experiment import Drawing, Experiment


def create_drawing(
    config: ConfigDict, experiment: Experiment, mesh: Mesh, trained_with: Classes
) -> Drawing | None:
    """What --mode=sample draws: images with what config.task says, or the experiment's own.

    `trained_with` are the classes of the training data, as far as they are known.
    """
    name = config.task.name if 'task' in config else 'none'
    if name == 'none':
        return experiment.drawing()
    if name == 'purify':
        return purification.create_drawing(config, experiment.model)
    return conditional.create_drawing(config, experiment.model, mesh, trained_with)


def create_measures(config: ConfigDict, experiment: Experiment, mesh: Mesh) -> list[Measure]:
    """What --mode=eval finds out besides the measures of the experiment: what becomes of it in a
    system, as config.eval says.
    """
    # A classifier may stand behind a purifier.
    if 'robustness' in config.eval:
        return purification_measures.create_measures(config, experiment, mesh)
    return []
