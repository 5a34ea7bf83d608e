"""Networks that this project has trained, from their workdirs: classifiers for guidance and for
features, score models for purification."""

import pathlib

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from choices import InputError
from configs import base
from devices import sharding
from evaluation.extractors import Network
from experiments import programs
from experiments.classification import Classification
from experiments.classifier import Classifier
from experiments.experiment import Experiment
from experiments.reading import ImageFormat
from experiments.score_matching import ScoreMatching
from experiments.score_model import ScoreModel
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
    config = _config(field, workdir, 'classifier', 'configs/ve/mnist_classifier.py')
    # Copied to all devices, so that every process has it whole.
    mesh = sharding.create_mesh()
    experiment = Classification(config, mesh)
    _check_format(field, workdir, experiment.model.format, image_shape, centered)
    return experiment.model, _restored(field, workdir, experiment, mesh)


def load_score_model(
    field: str, workdir: pathlib.Path, image_shape: ImageShape, centered: bool
) -> tuple[ConfigDict, ScoreModel, Params]:
    """The config of a workdir, its score model, and the averaged parameters of its newest
    checkpoint. Raises InputError, which begins with `field`, if there is none for such images.
    """
    config = _config(field, workdir, 'score_model', 'configs/vp/mnist_ddpmpp.py')
    mesh = sharding.create_mesh()
    experiment = ScoreMatching(config, mesh)
    _check_format(field, workdir, experiment.model.format, image_shape, centered)
    return config, experiment.model, _restored(field, workdir, experiment, mesh)


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


def _config(field: str, workdir: pathlib.Path, kind: str, example: str) -> ConfigDict:
    """The config of a workdir that has a run of this kind, of which `example` is a config file."""
    values, named = workdirs.read_config(workdir), kind.replace('_', ' ')
    if values is None:
        raise InputError(
            f'{field}: {workdir} has no config.json; train a {named} there first, as {example} says'
        )
    config = base.recorded(values)
    if config.experiment != kind:
        raise InputError(f'{field}: {workdir} has a {config.experiment!r}, no {named}')
    return config


def _check_format(
    field: str,
    workdir: pathlib.Path,
    found: ImageFormat,
    image_shape: ImageShape | None,
    centered: bool | None,
) -> None:
    if image_shape not in (None, found.shape):
        sizes = ['x'.join(map(str, shape)) for shape in (found.shape, image_shape)]
        raise InputError(
            f'{field}: {workdir} is for images of {sizes[0]}, and those of this config '
            f'have {sizes[1]}'
        )
    if centered not in (None, found.centered):
        raise InputError(f'{field}: centered {found.centered} in {workdir}, and {centered} here')


def _restored(field: str, workdir: pathlib.Path, experiment: Experiment, mesh: Mesh) -> Params:
    abstract = programs.abstract_state(experiment, mesh)
    with Checkpoints(workdir / 'checkpoints') as checkpoints:
        if not checkpoints.steps():
            raise InputError(f'{field}: {workdir} has no checkpoint yet')
        return jax.device_get(checkpoints.restore(abstract).evaluated)
