"""The experiment of a latent score model: an autoencoder and the prior of its codes, trained one
after the other or together.

With codes z = mean + std n of images x, the negative evidence bound is

    -log p(x | z) + log q(z | x) - log p(z),

in nats. The last term is the cross-entropy of the codes by the score model, a CodeCrossEntropy of
losses.py, or in the stage 'autoencoder' that by N(0, I).
"""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Int
from ml_collections import ConfigDict

import losses
from choices import fields_of
from devices import sharding
from evaluation.batchwise import Measure
from experiments import latent_measures, latent_model, reading
from experiments.experiment import Batch, Drawing, Program
from experiments.image_experiment import ImageExperiment
from experiments.latent_model import AUTOENCODER, PRIOR
from shapes import OneKey, PerImage, Scalar, State
from training import Metrics, Params, TrainState

# What a stage leaves as it is.
FROZEN = {'autoencoder': (PRIOR,), 'prior': (AUTOENCODER,), 'joint': ()}


class LatentScoreModel(ImageExperiment):
    """A latent score model and how it is trained; see experiment.py for what the methods are."""

    def __init__(self, config: ConfigDict, mesh: Mesh | None):
        super().__init__(config, mesh, latent_model.create(config))
        fields = config.training
        reading.check_time('training.t_min', fields.t_min, self.model.codes.sde)
        with fields_of('training', weighting='training.prior_weighting'):
            self._cross_entropy = losses.CodeCrossEntropy(
                fields.prior_weighting, fields.shared_times, fields.importance, fields.t_min
            )
        self._frozen = FROZEN[fields.stage]
        # The optimiser would decay even what has no gradient.
        still = optax.masked(
            optax.set_to_zero(), {part: part in self._frozen for part in (AUTOENCODER, PRIOR)}
        )
        optimizer = optax.chain(self._update.optimizer, still)
        self._update = dataclasses.replace(self._update, optimizer=optimizer)

    def step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """One update by the mean loss of a batch, with the weight that codes have at this step."""
        weight = self._weight(state.step)

        def mean_loss(params, key, batch):
            whole = sharding.whole(self._mesh, params)
            return self._mean(self._bound(whole, key, batch, True, weight))

        return self._update.step(mean_loss, state, batch)

    def _weight(self, step: Int[Array, '']) -> float | Scalar:
        start, num_steps = self._config.training.kl_start, self._config.training.kl_warmup
        return jnp.minimum(1.0, start + (1 - start) * step / num_steps) if num_steps else 1.0

    def loss(self, params: Params, key: OneKey, batch: Batch, train: bool) -> PerImage:
        """The negative evidence bound of each image, in nats; `train` flips and drops out."""
        return self._bound(params, key, batch, train, 1.0)

    def _bound(
        self, params: Params, key: OneKey, batch: Batch, train: bool, weight: float | Scalar
    ) -> PerImage:
        """The bound, but that the terms of codes have this weight."""
        params = {
            part: lax.stop_gradient(of_part) if part in self._frozen else of_part
            for part, of_part in params.items()
        }
        key_data, key_codes, key_prior, key_dropout = jax.random.split(key, 4)
        pixels = self.model.augment(key_data, batch['image'], train)
        found = self.model.encode(params, pixels)
        noise = jax.random.normal(key_codes, found.mean.shape)
        codes = found.sample(noise)
        if self.model.has_prior:
            process = self.model.process(params, key_dropout if train else None)
            prior = self._cross_entropy(process, key_prior, codes, weight)
        else:
            prior = -weight * standard_normal_log_prob(codes)
        reconstruction = self.model.log_prob(params, codes, pixels)
        return weight * found.log_prob_of(noise) + prior - reconstruction

    def drawing(self) -> Drawing:
        """Codes by config.sampling.method, decoded."""
        return latent_measures.drawing(self._config, self.model, self._config.sampling.method)

    def measures(self, workdir: pathlib.Path) -> list[Measure]:
        """The evidence bound by the ODE, samples and their quality."""
        return latent_measures.create(self._config, self.model, self.data, workdir, self._mesh)

    def programs(self) -> list[Program]:
        """The evidence bound, if it is asked for."""
        if not self._config.eval.bpd:
            return []
        return [latent_measures.evidence_program(self._config, self.model, self._mesh)]


def standard_normal_log_prob(codes: State) -> PerImage:
    """log N(z; 0, I) of each image, in nats."""
    return jax.scipy.stats.norm.logpdf(codes).reshape(len(codes), -1).sum(axis=1)
