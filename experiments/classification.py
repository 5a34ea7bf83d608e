"""The experiment whose network is a classifier of images, noisy or not, by cross-entropy."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float
from ml_collections import ConfigDict

import time_sampling
from choices import fields_of
from devices import sharding
from evaluation.batchwise import Checkpoint, Found, Measure, OverData
from evaluation.quantities import HIGHER, LOWER, Quantity
from experiments import classifier, gradient_measures, run_files
from experiments.experiment import Batch, Program
from experiments.image_experiment import ImageExperiment
from guidance import classification
from guidance.classification import CrossEntropy
from shapes import OneKey, PerImage
from training import Params


class Classification(ImageExperiment):
    """A classifier and how it is trained; see experiment.py for what the methods are."""

    def __init__(self, config: ConfigDict, mesh: Mesh | None):
        super().__init__(config, mesh, classifier.create(config))
        fields = config.training
        with fields_of('training'):
            time_sampling.create(fields.time_sampler, self.model.sde)
        self._objective = CrossEntropy(fields.time_sampler, self.model.t_min, fields.log_sigma)

    def loss(self, params: Params, key: OneKey, batch: Batch, train: bool) -> PerImage:
        """Cross-entropy of the images of a batch, at one noise level each if they are noisy;
        `train` flips.
        """
        key_data, key_loss, _ = jax.random.split(key, 3)
        x0 = self.model.format.augment(key_data, batch['image'], train)
        log_probs = self.model.class_log_probs(params)
        if not self._config.training.noise:
            return -classification.log_prob(log_probs, batch['label'], x0, jnp.zeros(len(x0)))
        return self._objective(log_probs, self.model.sde, key_loss, x0, batch['label'])

    def drawing(self) -> None:
        """A classifier draws nothing."""
        return None

    def programs(self) -> list[Program]:
        """None is large."""
        return []

    def measures(self, workdir: pathlib.Path) -> list[Measure]:
        """Accuracy and cross-entropy on the test split, clean and at eval.noise_levels; the noise
        of gradients.
        """
        measures = [self._scores_measure(workdir)]
        if self._config.eval.gradient_noise:
            measures.append(gradient_measures.create(self._config, self, self._mesh))
        return measures

    def _scores_measure(self, workdir: pathlib.Path) -> Measure:
        levels = self._config.eval.noise_levels if self._config.training.noise else ()
        times = self.model.sde.T * jnp.array([0.0, *levels])

        def of_batch(params, key, batch):
            found = self.class_scores(times, params, key, batch)
            return {'accuracy': found.correct.T, 'cross_entropy': found.cross_entropy.T}

        over_test_images = OverData(
            name='accuracy',
            function=sharding.jit(self._mesh, of_batch),
            data=run_files.compared(workdir, 'test', self.data('test')),
            batch_size=self._config.eval.batch_size,
            seed=self._config.seed,
            mesh=self._mesh,
            depends_on=(levels, self.model.network.precision),
        )
        names = ['clean', *[f't={level:g}T' for level in levels]]
        better = {'accuracy': HIGHER, 'cross_entropy': LOWER}

        def measure(checkpoint: Checkpoint) -> Found:
            found = over_test_images(checkpoint)
            return Found(
                [
                    Quantity(kind, float(value), better=better[kind], of=name)
                    for kind, rows in found.items()
                    for name, value in zip(names, rows.mean(0, dtype=np.float64), strict=True)
                ]
            )

        return measure

    def class_scores(
        self, times: Float[Array, 'levels'], params: Params, key: OneKey, batch: Batch
    ) -> classification.Scores:
        """How well the images of a batch are classified at each of these times, [level, batch]."""
        key_noise, key_data = jax.random.split(key)
        sde, log_probs = self.model.sde, self.model.class_log_probs(params)
        x0 = self.model.format.augment(key_data, batch['image'], False)

        def scores(t):
            t = jnp.full(len(x0), t)
            noise = jax.random.normal(key_noise, x0.shape)
            x = jnp.where(t[0] > 0, sde.perturb(x0, t, noise), x0)
            return classification.scores(log_probs, batch['label'], x, t)

        return jax.lax.map(scores, times)
