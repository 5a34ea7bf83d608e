"""Classifiers that this project has trained, from their workdirs: for guidance, for features."""

import pathlib

import jax
from jax.sharding import Mesh

from choices import InputError
from configs import base
from devices import sharding
from evaluation.extractors import Network
from experiments import programs
from experiments.classification import Classification
from experiments.classifier import Classifier
from shapes import ImageShape
from storage import workdirs
from storage.checkpoints import Checkpoints
from training import Params


def load(
    field: str,
    workdir: pathlib.Path,
    image_shape: ImageShape | None = None,
    centered: bool | None = None,
) -> tuple[Classifier, Params]:
    """The classifier of a workdir, and the averaged parameters of its newest checkpoint.

    Raises InputError, which begins with `field`, if there is none for images of this shape, scaled
    as `centered` says, where these matter.
    """
    values = workdirs.read_config(workdir)
    if values is None:
        raise InputError(
            f'{field}: {workdir} has no config.json; train a classifier there first, as '
            'configs/ve/mnist_classifier.py says'
        )
    config = base.recorded(values)
    if config.experiment != 'classifier':
        raise InputError(f'{field}: {workdir} has a {config.experiment!r}, no classifier')
    # Copied to all devices, so that every process has it whole.
    mesh = sharding.create_mesh()
    experiment = Classification(config, mesh)
    found = experiment.model
    if image_shape not in (None, found.image_shape):
        sizes = ['x'.join(map(str, shape)) for shape in (found.image_shape, image_shape)]
        raise InputError(
            f'{field}: {workdir} classifies images of {sizes[0]}, and those of this config have '
            f'{sizes[1]}'
        )
    if centered not in (None, found.format.centered):
        raise InputError(
            f'{field}: centered {found.format.centered} in {workdir}, and {centered} here'
        )
    return found, _restored(field, workdir, experiment, mesh)


def features(field: str, workdir: pathlib.Path, image_shape: ImageShape | None = None) -> Network:
    """The classifier of a workdir as a network of features, by which images are compared: the layer
    before its logits, at its lowest noise level. Raises InputError as `load` does.
    """
    found, params = load(field, workdir, image_shape)
    centered = found.format.centered
    preprocessing = f'centered={centered} t_min={found.t_min} {found.network}'
    return Network(
        'classifier', params, found.features, preprocessing, image_shape=found.image_shape
    )


def _restored(field: str, workdir: pathlib.Path, experiment: Classification, mesh: Mesh) -> Params:
    abstract = programs.abstract_state(experiment, mesh)
    with Checkpoints(workdir / 'checkpoints') as checkpoints:
        if not checkpoints.steps():
            raise InputError(f'{field}: {workdir} has no checkpoint yet')
        return jax.device_get(checkpoints.restore(abstract).evaluated)
