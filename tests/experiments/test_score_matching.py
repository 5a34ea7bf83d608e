"""Training of score models: which labels and which dropout a network is given."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import run_lib
from choices import InputError
from devices import sharding
from evaluation.batchwise import Checkpoint
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


# Other objectives than denoising


def make(objective, **fields):
    """An experiment of a small network by an objective."""
    config = tiny_config.get_config()
    config.model.nf = 4
    config.training.objective = objective
    config.eval.bpd, config.eval.samplers = False, ()
    config.model.update(fields)
    return config, kinds.create(config, sharding.create_mesh())


@pytest.mark.parametrize(
    ('objective', 'energy'),
    [('exact', 'none'), ('sliced', 'none'), ('fd_sliced_vr', 'none'), ('fd_denoising', 'norm')],
)
def test_networks_are_trained_by_every_objective(objective, energy):
    """A step is finite, for which nothing but shapes has to be known of the other three."""
    _, experiment = make(objective, energy=energy)
    params = jax.eval_shape(experiment.model.init_params, KEY)
    state = jax.eval_shape(experiment.init, KEY)
    batch = experiment.batch_shapes(8)
    loss = jax.eval_shape(lambda p, b: experiment.loss(p, KEY, b, True), params, batch)
    assert loss.shape == (8,)
    _, metrics = jax.eval_shape(experiment.step, state, batch)
    assert metrics.grad_norm.shape == ()


def test_differences_of_a_network_are_its_derivatives():
    """Of a U-Net in float32, image by image and at the same directions."""

    def found(objective):
        _, experiment = make(objective)
        params = jax.jit(experiment.model.init_params)(KEY)
        params = jax.tree.map(
            lambda a: a + 0.1 * jnp.cos(jnp.arange(a.size)).reshape(a.shape), params
        )
        batch = jax.tree.map(jnp.asarray, experiment.data('train').gather(np.arange(8)))
        return jax.jit(lambda params: experiment.loss(params, KEY, batch, True))(params)

    found, exact = found('fd_sliced_vr'), found('sliced_vr')
    np.testing.assert_allclose(found, exact, rtol=5e-3, atol=5e-3 * np.abs(exact).mean())


def test_runs_by_other_objectives_report_their_denoising_loss(tmp_path):
    """It is the test loss of a run by denoising: all that is drawn is the same."""
    config, by_denoising = make('denoising')
    workdir = tmp_path / 'none'
    checkpoint = Checkpoint(by_denoising.model.init_params(KEY), tmp_path, 0)
    assert by_denoising.measures(workdir) == []
    expected = run_lib.test_loss_measure(config, workdir, by_denoising, by_denoising._mesh)
    _, by_slices = make('sliced_vr')
    (measure,) = by_slices.measures(workdir)
    (found,), (quantity,) = (m(checkpoint).quantities for m in (measure, expected))
    assert (found.label, quantity.label) == ('denoising_loss', 'test_loss')
    np.testing.assert_allclose(found.value, quantity.value, rtol=1e-5)


def test_a_line_tells_of_products_that_are_too_coarse_for_differences(capsys):
    make('fd_sliced_vr', dtype='bfloat16')
    told = capsys.readouterr().out
    assert "'fd_sliced_vr' takes differences" in told
    assert "model.dtype is 'bfloat16'" in told
    make('sliced_vr', dtype='bfloat16')
    make('fd_sliced_vr')
    assert not capsys.readouterr().out


def test_labels_that_no_network_takes_cannot_be_dropped():
    config = tiny_config.get_config()
    config.training.label_dropout = 0.1
    with pytest.raises(InputError, match='^training.label_dropout: 0.1 needs a network with model'):
        kinds.create(config)
