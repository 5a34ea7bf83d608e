"""What experiments on images have in common: a network, its data, and a step by a mean loss."""

import functools
from typing import Protocol

from jax.sharding import Mesh
from ml_collections import ConfigDict

from datasets.loading import Images
from devices import sharding
from experiments import reading
from experiments.experiment import Batch
from experiments.reading import ImageFormat
from shapes import OneKey, PerImage
from training import Metrics, Params, TrainState


class Model(Protocol):
    """A network for images of one format, and of so many classes (0: it is given none)."""

    format: ImageFormat
    num_classes: int

    def init_params(self, key: OneKey) -> Params:
        """Initial parameters of the network."""


class ImageExperiment:
    """An experiment (experiment.py) but for its loss and for what is drawn and measured."""

    def __init__(self, config: ConfigDict, mesh: Mesh | None, model: Model):
        self._config, self._mesh, self.model = config, mesh, model
        self._update, self._mean = reading.create_update(config), reading.create_mean(config)
        # Several measures ask for the same split; it is looked for, and its labels checked, once.
        self._images = functools.cache(
            lambda split: reading.load_images(config.data, split, model.num_classes)
        )

    def data(self, split: str) -> Images:
        """The images of a split; InputError if the network has classes, and not all a label."""
        return self._images(split)

    def batch_shapes(self, size: int) -> Batch:
        """Images and labels."""
        return self.model.format.batch_shapes(size)

    def init(self, key: OneKey) -> TrainState:
        """The state before the first step."""
        return self._update.init(self.model.init_params(key))

    def step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """One update by the mean loss of a batch."""

        def mean_loss(params, key, batch):
            losses = self.loss(sharding.whole(self._mesh, params), key, batch, True)
            return self._mean(losses)

        return self._update.step(mean_loss, state, batch)

    def loss(self, params: Params, key: OneKey, batch: Batch, train: bool) -> PerImage:
        """The objective of each image of a batch."""
        raise TypeError(f'{type(self).__name__} does not define loss')
