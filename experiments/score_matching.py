"""The experiment whose network is a score: trained by score matching, drawn from by samplers."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

import losses
from choices import InputError, choose, fields_of
from evaluation.batchwise import Measure
from experiments import image_drawing, reading, score_measures, score_model
from experiments.experiment import Batch, Drawing, Program
from experiments.image_experiment import ImageExperiment
from experiments.score_model import NO_CLASS
from losses import Objective
from sde_lib import SDE
from shapes import OneKey, PerImage
from training import Params


class ScoreMatching(ImageExperiment):
    """A score model and how it is trained; see experiment.py for what the methods are."""

    def __init__(self, config: ConfigDict, mesh: Mesh | None):
        super().__init__(config, mesh, score_model.create(config))
        self._objective = create_objective(config, self.model.sde)
        self._label_dropout = _label_dropout(config.training, self.model.num_classes)

    def loss(self, params: Params, key: OneKey, batch: Batch, train: bool) -> PerImage:
        """Score matching on the images of a batch; `train` flips and drops out."""
        key_data, key_loss, key_dropout = jax.random.split(key, 3)
        x0 = self.model.format.augment(key_data, batch['image'], train)
        classes, dropout_key = self.model.classes(batch), key_dropout if train else None
        if self._label_dropout and train:
            dropout_key, key_labels = jax.random.split(dropout_key)
            dropped = jax.random.bernoulli(key_labels, self._label_dropout, classes.shape)
            classes = jnp.where(dropped, NO_CLASS, classes)
        process = self.model.process(params, classes, dropout_key)
        return self._objective(process, key_loss, x0)

    def drawing(self) -> Drawing:
        """By config.sampling.method."""
        return image_drawing.create_drawing(self._config, self.model, self._config.sampling.method)

    def measures(self, workdir: pathlib.Path) -> list[Measure]:
        """Bits per dimension, samples and their quality, pictures for the report."""
        return score_measures.create(self._config, self.model, self.data, workdir, self._mesh)

    def programs(self) -> list[Program]:
        """Bits per dimension, if they are asked for."""
        if not self._config.eval.bpd:
            return []
        return [score_measures.bits_per_dim_program(self._config, self.model, self._mesh)]


def create_objective(config: ConfigDict, sde: SDE) -> Objective:
    """The objective of config.training; InputError if it does not go with the SDE."""
    fields = config.training
    reading.check_time('training.t_min', fields.t_min, sde)
    with fields_of('training'):
        chosen = choose(losses.OBJECTIVES, fields.objective, 'objective')
        names = [field.name for field in dataclasses.fields(chosen)]
        objective = chosen(**reading.plain_fields(fields, only=names))
        objective.check(sde)
    return objective


def _label_dropout(fields: ConfigDict, num_classes: int) -> float:
    rate = fields.label_dropout
    if rate and not num_classes:
        raise InputError(f'training.label_dropout: {rate} needs a network with model.num_classes')
    return rate
