"""The experiment whose network is a score: trained by score matching, drawn from by samplers."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

import losses
from choices import InputError, choose, fields_of
from configs import base
from devices import processes, sharding
from evaluation import quantities
from evaluation.batchwise import Checkpoint, Found, Measure, OverData
from evaluation.quantities import LOWER
from experiments import image_drawing, reading, run_files, score_measures, score_model
from experiments.experiment import Batch, Drawing, Program
from experiments.image_experiment import ImageExperiment
from experiments.score_model import NO_CLASS
from losses import Objective
from parameterization import Process
from shapes import OneKey, PerImage
from training import Params

# Those by finite differences.
DIFFERENCED = base.objectives_with('fd_step')


class ScoreMatching(ImageExperiment):
    """A score model and how it is trained; see experiment.py for what the methods are."""

    def __init__(self, config: ConfigDict, mesh: Mesh | None):
        super().__init__(config, mesh, score_model.create(config))
        # Nothing is asked of the network here, so that it needs no parameters.
        process = self.model.process({})
        self._objective = create_objective(config, process)
        self._denoising = create_objective(config, process, 'denoising')
        tell_of_coarse_products(config)
        self._label_dropout = _label_dropout(config.training, self.model.num_classes)

    def loss(self, params: Params, key: OneKey, batch: Batch, train: bool) -> PerImage:
        """Score matching on the images of a batch; `train` flips and drops out."""
        return self._loss(self._objective, params, key, batch, train)

    def _loss(
        self, objective: Objective, params: Params, key: OneKey, batch: Batch, train: bool
    ) -> PerImage:
        key_data, key_loss, key_dropout = jax.random.split(key, 3)
        x0 = self.model.format.augment(key_data, batch['image'], train)
        classes, dropout_key = self.model.classes(batch), key_dropout if train else None
        if self._label_dropout and train:
            dropout_key, key_labels = jax.random.split(dropout_key)
            dropped = jax.random.bernoulli(key_labels, self._label_dropout, classes.shape)
            classes = jnp.where(dropped, NO_CLASS, classes)
        process = self.model.process(params, classes, dropout_key)
        return objective(process, key_loss, x0)

    def drawing(self) -> Drawing:
        """By config.sampling.method."""
        return image_drawing.create_drawing(self._config, self.model, self._config.sampling.method)

    def measures(self, workdir: pathlib.Path) -> list[Measure]:
        """Bits per dimension, samples and their quality, pictures for the report; and, if another
        objective was trained by, the denoising loss, by which objectives can be compared.
        """
        measures = score_measures.create(self._config, self.model, self.data, workdir, self._mesh)
        if not self._config.eval.loss or self._objective == self._denoising:
            return measures
        return [self._denoising_loss(workdir), *measures]

    def _denoising_loss(self, workdir: pathlib.Path) -> Measure:
        """The denoising loss on the test split, with the times and weights of training."""

        def of_batch(params, key, batch):
            return {'loss': self._loss(self._denoising, params, key, batch, train=False)}

        over_test_images = OverData(
            name='denoising_loss',
            function=sharding.jit(self._mesh, of_batch),
            data=run_files.compared(workdir, 'test', self.data('test')),
            batch_size=self._config.eval.batch_size,
            seed=self._config.seed,
            mesh=self._mesh,
            depends_on=self.model.network.precision,
        )

        def measure(checkpoint: Checkpoint) -> Found:
            losses_found = over_test_images(checkpoint)['loss']
            return Found([quantities.mean('denoising_loss', losses_found, better=LOWER)])

        return measure

    def programs(self) -> list[Program]:
        """Bits per dimension, if they are asked for."""
        if not self._config.eval.bpd:
            return []
        return [score_measures.bits_per_dim_program(self._config, self.model, self._mesh)]


def create_objective(config: ConfigDict, process: Process, name: str | None = None) -> Objective:
    """The objective of config.training, or another one with the fields of it that it has.

    InputError if it does not go with the SDE, the network, or what is random in that.
    """
    fields = config.training
    name = name or fields.objective
    reading.check_time('training.t_min', fields.t_min, process.sde)
    with fields_of('training'):
        chosen = choose(losses.OBJECTIVES, name, 'objective')
        names = [field.name for field in dataclasses.fields(chosen)]
        objective = chosen(**reading.plain_fields(fields, only=names))
        objective.check(process)
    dropout = config.model.get('dropout')
    if name in DIFFERENCED and dropout:
        raise InputError(
            f'model.dropout: {dropout:g}, and training.objective is {name!r}, which takes '
            'differences of evaluations; 0 needed'
        )
    return objective


def tell_of_coarse_products(config: ConfigDict) -> None:
    """Says in a line if differences are taken of what is not computed in float32."""
    if config.training.objective not in DIFFERENCED:
        return
    fields, coarse = config.model, None
    if fields.dtype != 'float32':
        coarse = f'model.dtype is {fields.dtype!r}'
    elif fields.precision != 'highest' and jax.default_backend() != 'cpu':
        coarse = f'model.precision is {fields.precision!r}'
    if coarse:
        processes.tell_once(
            f'training.objective {config.training.objective!r} takes differences of nearly equal '
            f'numbers, and {coarse}, whose products are coarser than float32: the loss is mostly '
            "rounding; model.dtype = 'float32' and model.precision = 'highest' are meant for it"
        )


def _label_dropout(fields: ConfigDict, num_classes: int) -> float:
    rate = fields.label_dropout
    if rate and not num_classes:
        raise InputError(f'training.label_dropout: {rate} needs a network with model.num_classes')
    return rate
