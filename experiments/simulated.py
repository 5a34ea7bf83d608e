"""Score models of an SDE without a Gaussian kernel: the states that they are trained on are
simulated, and the objective is one that takes states as they are."""

import dataclasses
import functools
import math
import pathlib

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

import losses
import sde_lib
from choices import choose, fields_of
from datasets import points
from datasets.points import Points
from devices import sharding
from evaluation.batchwise import Measure
from experiments import reading, simulated_measures
from experiments.experiment import Batch, Drawing, Program
from experiments.points_model import PointsModel
from experiments.reading import create_update, plain_fields
from sde_lib import WithoutKernel
from shapes import OneKey, PerImage
from solvers import simulation
from training import Metrics, Params, TrainState


class SimulatedScoreModel:
    """A score model trained on simulated states; see experiment.py for what the methods are."""

    def __init__(self, config: ConfigDict, mesh: Mesh | None):
        self._config, self._mesh = config, mesh
        self._update = create_update(config)
        self._points = functools.cache(
            lambda split: points.load(config.points.source, split, config.points.test_fraction)
        )
        dim = self._points('train').x.shape[1]
        fields = plain_fields(config.model)
        self.model = PointsModel(
            _create_sde(config.sde), reading.create_network(fields, (1, 1, dim)), dim
        )
        self._objective = _create_objective(config.training)

    def data(self, split: str) -> Points:
        """The vectors of a split."""
        return self._points(split)

    def batch_shapes(self, size: int) -> Batch:
        """Vectors."""
        return {'x': jax.ShapeDtypeStruct((size, self.model.dim), jnp.float32)}

    def init(self, key: OneKey) -> TrainState:
        """The state before the first step."""
        return self._update.init(self.model.init_params(key))

    def step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """One update by the mean loss of a batch."""

        def mean_loss(params, key, batch):
            return self.loss(sharding.whole(self._mesh, params), key, batch, True).mean()

        return self._update.step(mean_loss, state, batch)

    def loss(self, params: Params, key: OneKey, batch: Batch, train: bool) -> PerImage:
        """Implicit score matching on states that are simulated from a batch, at times whose
        logarithm is uniform: 1 + 2 length_t^2 (|score|^2 / 2 + div score) / dim, in the mean over
        such times |length_t (score - exact score)|^2 / dim but for a constant.
        """
        sde, x0, num = self.model.sde, batch['x'], len(batch['x'])
        key_t, key_path, key_objective = jax.random.split(key, 3)
        shares = (jnp.arange(num) + jax.random.uniform(key_t, (num,))) / num
        t = sde.t_min * (sde.T / sde.t_min) ** shares
        steps = self._config.simulation.steps
        x = simulation.simulate(jax.random.split(key_path, num), sde, x0, t, steps)
        length, process = sde.length(t), self.model.process(params)
        found = self._objective.at(process, key_objective, x, t, length)
        return 1 + 2 * length**2 * found / math.prod(x.shape[1:])

    def drawing(self) -> Drawing | None:
        """None: vectors are no images. `eval` draws them."""
        return None

    def measures(self, workdir: pathlib.Path) -> list[Measure]:
        """Likelihoods, and samples beside simulated states."""
        return simulated_measures.create(self._config, self.model, self.data('test'), self._mesh)

    def programs(self) -> list[Program]:
        """None that is large."""
        return []


def _create_sde(fields: ConfigDict) -> WithoutKernel:
    with fields_of('sde'):
        choose(sde_lib.WITHOUT_KERNEL, fields.name, 'name')
    return reading.create_sde(fields)


def _create_objective(fields: ConfigDict) -> losses.ImplicitScoreMatching:
    with fields_of('training'):
        chosen = choose(losses.IMPLICIT, fields.objective, 'objective')
        names = [field.name for field in dataclasses.fields(chosen)]
        return chosen(**plain_fields(fields, only=names))
