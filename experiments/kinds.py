"""The kinds of experiments, by the name that config.experiment gives."""

from collections.abc import Callable

from jax.sharding import Mesh
from ml_collections import ConfigDict

from choices import choose
from experiments.classification import Classification
from experiments.deqgan import DifferentialEquation
from experiments.experiment import Experiment
from experiments.latent import LatentScoreModel
from experiments.score_matching import ScoreMatching
from experiments.simulated import SimulatedScoreModel


def create(config: ConfigDict, mesh: Mesh | None = None) -> Experiment:
    """The experiment of a config, on the devices of a mesh; None: with parameters that are whole.

    Raises InputError for names that do not exist and for fields that do not go together.
    """
    return choose(EXPERIMENTS, config.experiment, 'experiment')(config, mesh)


EXPERIMENTS: dict[str, Callable[[ConfigDict, Mesh | None], Experiment]] = {
    'score_model': ScoreMatching,
    'classifier': Classification,
    'latent_score_model': LatentScoreModel,
    'simulated_score_model': SimulatedScoreModel,
    'differential_equation': DifferentialEquation,
}
