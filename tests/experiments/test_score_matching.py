"""Training of score models: which labels and which dropout a network is given."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from choices import InputError
from experiments import kinds
from experiments.score_model import NO_CLASS
from tests import tiny_classes, tiny_config

KEY = jax.random.key(0)


class Noting:
    """A network whose output is zero, and that keeps what it was given besides images."""

    def __init__(self):
        self.given = []

    def apply(self, variables, x, labels, **given):
        self.given.append(given)
        return jnp.zeros((*x.shape[:-1], 1))


def given(config, train, num=400):
    """What the network is given in the loss of a batch, and the labels of that."""
    experiment, network = kinds.create(config), Noting()
    experiment.model = dataclasses.replace(experiment.model, network=network)
    batch = {'image': jnp.zeros((num, 8, 8, 1), jnp.uint8), 'label': jnp.arange(num) % 10}
    experiment.loss({}, KEY, batch, train)
    (found,) = network.given
    return found, batch['label']


@pytest.mark.parametrize('rate', [0.0, 0.25, 1.0])
def test_labels_are_dropped_in_training_alone(rate):
    config = tiny_classes.get_config()
    config.training.label_dropout = rate
    found, labels = given(config, train=True)
    dropped = np.asarray(found['classes'] == NO_CLASS)
    np.testing.assert_array_equal(found['classes'][~dropped], labels[~dropped])
    assert abs(dropped.mean() - rate) <= 4 * np.sqrt(rate * (1 - rate) / 400)
    found, labels = given(config, train=False)
    np.testing.assert_array_equal(found['classes'], labels)


@pytest.mark.parametrize('train', [True, False])
def test_networks_drop_out_in_training_alone(train):
    found, _ = given(tiny_config.get_config(), train, num=4)
    assert found['train'] == train
    assert (found['rngs'] is not None) == train
    assert 'classes' not in found


def test_labels_that_no_network_takes_cannot_be_dropped():
    config = tiny_config.get_config()
    config.training.label_dropout = 0.1
    with pytest.raises(InputError, match='^training.label_dropout: 0.1 needs a network with model'):
        kinds.create(config)
