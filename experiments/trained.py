"""Classifiers that this project has trained, from their workdirs: for guidance, for features."""

import json
import pathlib
from typing import Any

import jax
from ml_collections import ConfigDict

import training
from choices import InputError
from devices import sharding
from experiments.experiment import Classifier, create_experiment, create_optimizer
from storage.checkpoints import Checkpoints


def load(
    field: str,
    workdir: pathlib.Path,
    image_shape: tuple[int, int, int],
    centered: bool | None = None,
) -> tuple[Classifier, Any]:
    """The classifier of a workdir, and the averaged parameters of its newest checkpoint.

    Raises InputError, which begins with `field`, if there is none for images of this shape, scaled
    as `centered` says if that matters.
    """
    path = workdir / 'config.json'
    if not path.exists():
        raise InputError(
            f'{field}: {workdir} has no config.json; train a classifier there first, as '
            'configs/ve/mnist_classifier.py says'
        )
    config = ConfigDict(_with_tuples(json.loads(path.read_text())))
    classifier = create_experiment(config)
    if not isinstance(classifier, Classifier):
        raise InputError(f'{field}: {workdir} has {config.model.name!r}, no classifier')
    if classifier.image_shape != image_shape:
        sizes = ['x'.join(map(str, shape)) for shape in (classifier.image_shape, image_shape)]
        raise InputError(
            f'{field}: {workdir} classifies images of {sizes[0]}, and those of this config have '
            f'{sizes[1]}'
        )
    if centered not in (None, classifier.centered):
        raise InputError(
            f'{field}: centered {classifier.centered} in {workdir}, and {centered} here'
        )
    return classifier, _restored(field, config, workdir, classifier)


def _with_tuples(tree: Any) -> Any:
    """A config as JSON has it, with tuples for lists."""
    if isinstance(tree, dict):
        return {name: _with_tuples(value) for name, value in tree.items()}
    return tuple(map(_with_tuples, tree)) if isinstance(tree, list) else tree


def _restored(field: str, config: ConfigDict, workdir: pathlib.Path, classifier: Classifier) -> Any:
    # Copied to all devices, so that every process has it whole.
    mesh = sharding.create_mesh()
    abstract = sharding.laid_out(
        mesh,
        jax.eval_shape(
            lambda key: training.create_state(
                classifier.init_params(key), create_optimizer(config)
            ),
            jax.eval_shape(jax.random.key, 0),
        ),
    )
    with Checkpoints(workdir / 'checkpoints') as checkpoints:
        if not checkpoints.steps():
            raise InputError(f'{field}: {workdir} has no checkpoint yet')
        return jax.device_get(checkpoints.restore(abstract).ema_params)
