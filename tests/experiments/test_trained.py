"""Classifiers from workdirs: their parameters, their features, and what is no classifier."""

import jax
import numpy as np
import pytest

from choices import InputError
from experiments import trained
from tests import tiny_classifier, tiny_config
from tests.support import networks, random_run

# Many programs are compiled.
pytestmark = pytest.mark.slow

SHAPE = (8, 8, 1)


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
    """A run of a classifier whose parameters are random, with two checkpoints."""
    path = tmp_path_factory.mktemp('classifier')
    return random_run.create(path, tiny_classifier.get_config(), 3, 5)


def load(path, shape=SHAPE, centered=None):
    return trained.load('a.field', path, shape, centered)


def test_parameters_are_the_average_of_the_newest_checkpoint(workdir):
    model, params = load(workdir, centered=True)
    shapes = jax.eval_shape(model.init_params, jax.random.key(0))
    expected = jax.tree.map(lambda a: a * 1.05, networks.randomised(shapes))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), params, expected)
    assert (model.image_shape, model.num_classes) == (SHAPE, 4)


def test_features_are_the_layer_before_the_logits(workdir):
    model, params = load(workdir)
    pixels = np.random.default_rng(0).integers(0, 256, (4, *SHAPE), dtype=np.uint8)
    features, logits = jax.jit(model.features)(params, pixels)
    head = params['Dense_2']
    assert features.shape == (4, 64)
    np.testing.assert_allclose(features @ head['kernel'] + head['bias'], logits, rtol=1e-5)
    assert np.std(features, axis=0).max() > 1e-3


def test_what_is_no_classifier_of_these_images_is_refused(workdir, tmp_path):
    with pytest.raises(InputError, match='^a.field: .* has no config.json; train a classifier'):
        load(tmp_path)
    with pytest.raises(InputError, match='^a.field: .* is for images of 8x8x1, .* 28x28x1'):
        load(workdir, (28, 28, 1))
    with pytest.raises(InputError, match='^a.field: centered True in .*, and False here'):
        load(workdir, centered=False)
    (tmp_path / 'config.json').write_text((workdir / 'config.json').read_text())
    with pytest.raises(InputError, match='^a.field: .* has no checkpoint yet'):
        load(tmp_path)
    random_run.create(tmp_path / 'digits', tiny_config.get_config())
    with pytest.raises(InputError, match="^a.field: .* has a 'score_model', no classifier"):
        load(tmp_path / 'digits')
