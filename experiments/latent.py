"""The experiment of a latent score model: an autoencoder and the prior of its codes, trained one
after the other or together.

With codes z = mean + std n of images x, the negative evidence bound is

    -log p(x | z) + log q(z | x) - log p(z),

in nats. The last term is the cross-entropy of the codes by the score model, a CodeCrossEntropy of
losses.py, or in the stage 'autoencoder' that by N(0, I). Latents of finer sizes, if there are any,
add log q - log N(0, I) of theirs in every stage.
"""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

import losses
from choices import InputError, fields_of
from devices import sharding
from evaluation.batchwise import Measure
from experiments import latent_measures, latent_model, reading
from experiments.experiment import Batch, Drawing, Program
from experiments.image_experiment import ImageExperiment
from experiments.latent_model import AUTOENCODER, PRIOR
from models import spectral
from shapes import OneKey, PerImage, Scalar
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
                fields.prior_weighting,
                fields.shared_times,
                fields.importance,
                fields.control_variate,
                fields.t_min,
            )
        self._is_balanced = fields.kl_balancing
        self._check_balancing()
        self._frozen = FROZEN[fields.stage]
        self._spectral = {AUTOENCODER: fields.spectral_autoencoder, PRIOR: fields.spectral_prior}
        # The optimiser would decay even what has no gradient.
        part, rate = AUTOENCODER, fields.autoencoder_lr
        if self._frozen:
            [part], rate = self._frozen, 0.0
        of_part = optax.masked(
            optax.scale(rate), {name: name == part for name in (AUTOENCODER, PRIOR)}
        )
        optimizer = optax.chain(self._update.optimizer, of_part)
        self._update = dataclasses.replace(self._update, optimizer=optimizer)

    def _check_balancing(self) -> None:
        fields, groups = self._config.training, self.model.autoencoder.num_groups
        if not self._is_balanced:
            return
        if sum(groups) < 2:
            raise InputError(
                'training.kl_balancing: True, and the autoencoder has one group of latents; '
                'autoencoder.groups or autoencoder.finer_groups of more needed'
            )
        if not fields.kl_warmup and fields.kl_end == 1:
            raise InputError(
                'training.kl_balancing: True, which is for updates in which the terms of latents '
                'weigh less than 1; training.kl_warmup above 0 needed'
            )

    def step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """One update by the mean loss of a batch, with the weight that codes have at this step."""
        weight = self._weight(state.step)

        def mean_loss(params, key, batch):
            whole = sharding.whole(self._mesh, params)
            return self._mean(self._bound(whole, key, batch, True, weight)) + self._penalty(whole)

        return self._update.step(mean_loss, state, batch)

    def _weight(self, step: Int[Array, '']) -> float | Scalar:
        fields = self._config.training
        start, end, num_steps = fields.kl_start, fields.kl_end, fields.kl_warmup
        return start + (end - start) * jnp.minimum(1.0, step / num_steps) if num_steps else end

    def _penalty(self, params: Params) -> float | Scalar:
        """What is added to the mean bound in training."""
        of_parts = {part: w for part, w in self._spectral.items() if w and part not in self._frozen}
        return sum(weight * spectral.penalty(params[part]) for part, weight in of_parts.items())

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
        key_data, key_latents, key_prior, key_dropout = jax.random.split(key, 4)
        pixels = self.model.augment(key_data, batch['image'], train)
        noises = self.model.noises(key_latents, len(pixels))
        (codes, *finer), features = self.model.through(params, pixels, noises)
        reconstruction = -self.model.distribution.log_prob(features, pixels)
        if not self.model.has_prior:
            divergence = jnp.concatenate([of_size.divergence() for of_size in (codes, *finer)], 1)
            return reconstruction + weight * (divergence * self._balance(divergence, weight)).sum(1)
        process = self.model.process(params, key_dropout if train else None)
        prior = self._cross_entropy(process, key_prior, codes.z, weight)
        of_codes = weight * codes.log_q.sum(axis=1) + prior
        of_finer = sum(of_size.divergence().sum(axis=1) for of_size in finer)
        return reconstruction + of_codes + weight * of_finer

    def _balance(
        self, divergence: Float[Array, 'batch groups'], weight: float | Scalar
    ) -> float | Float[Array, 'groups']:
        """The weights of groups beside each other, at this weight of all."""
        if not self._is_balanced:
            return 1.0
        sizes = [
            height * width / groups
            for (height, width, _), groups in zip(
                self.model.autoencoder.latent_shapes,
                self.model.autoencoder.num_groups,
                strict=True,
            )
            for _ in range(groups)
        ]
        return jnp.where(weight < 1, losses.balance(divergence, jnp.array(sizes)), 1.0)

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
