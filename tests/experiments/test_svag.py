"""Training by SVAG: what a step is, what its noise is measured to be, and the program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from devices import sharding
from evaluation import quantities
from evaluation.batchwise import Checkpoint
from experiments import gradient_measures, kinds, reading
from gradient_noise import equilibrium, weights
from reports import logs
from storage.checkpoints import Checkpoints
from tests import tiny_svag
from tests.support import networks, program

MESH = sharding.create_mesh()


def made(**changes):
    """The config with other fields, `section_name`, and its experiment."""
    config = tiny_svag.get_config()
    for field, value in changes.items():
        section, _, name = field.partition('_')
        config[section][name] = value
    return config, kinds.create(config, MESH)


def gathered(experiment, split, num):
    return jax.tree.map(jnp.asarray, experiment.data(split).gather(np.arange(num)))


def test_a_step_goes_down_both_gradients_by_the_rate_over_l():
    config, experiment = made(optim_drop_at=())
    batch = gathered(experiment, 'train', 8)
    key = jax.random.key(config.seed)
    state = experiment.init(key)
    after, metrics = networks.quick_jit(experiment.step)(state, batch)

    def gradient(half):
        rows = {name: array[half] for name, array in batch.items()}
        key_of_step = jax.random.fold_in(key, 0)
        return jax.grad(lambda p: experiment.loss(p, key_of_step, rows, True).mean())(state.params)

    pair, rate = weights.svag_pair(4), 0.8 / 4
    first, second = (gradient(half) for half in (slice(0, 4), slice(4, 8)))
    expected = jax.tree.map(
        lambda x, g1, g2: x - rate * (pair.first * g1 + pair.second * g2 + 5e-3 * x),
        *(state.params, first, second),
    )
    for found, x in zip(*map(jax.tree.leaves, (after.params, expected)), strict=True):
        np.testing.assert_allclose(found, x, rtol=1e-4, atol=1e-6)
    plain = experiment.loss(state.params, jax.random.fold_in(key, 0), batch, True).mean()
    np.testing.assert_allclose(metrics.loss, plain, rtol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, after.evaluated, after.params)


def test_without_noise_the_loss_is_the_cross_entropy_of_images_as_they_are():
    _, experiment = made()
    batch = gathered(experiment, 'test', 6)
    params = experiment.model.init_params(jax.random.key(0))
    logits = experiment.model.network.apply(
        {'params': params}, experiment.model.format.to_float(batch['image'])
    )
    expected = -jax.nn.log_softmax(logits)[jnp.arange(6), batch['label']]
    for key in (0, 1):
        found = experiment.loss(params, jax.random.key(key), batch, True)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


# The noise of gradients


def test_statistics_by_batches_are_the_exact_ones(tmp_path):
    """Within four standard errors of the ten estimates."""
    config, experiment = made(eval_gradient_noise=400)
    params = experiment.model.init_params(jax.random.key(1))
    examples = gathered(experiment, 'train', 1024)

    def loss(params, example):
        batch = {name: rows[None] for name, rows in example.items()}
        return experiment.loss(params, jax.random.key(0), batch, True)[0]

    exact = jax.jit(lambda p: equilibrium.measured(loss, examples, 4, p))(params)
    measure = gradient_measures.create(config, experiment, MESH)
    found = {q.name: q for q in measure(Checkpoint(params, tmp_path, 0)).quantities}
    for name, value in (('signal', exact.G), ('noise', exact.N)):
        quantity = found[f'{name}_of_gradient']
        assert 0 < quantity.standard_error < 0.2 * quantity.value
        assert abs(quantity.value - value) < 4 * quantity.standard_error
    assert found['squared_length'].value == pytest.approx(float(exact.R), rel=1e-5)
    # The rate drops, so that no balance is to be expected.
    assert 'balance_of_length' not in found


def test_the_minibatch_of_svag_is_half_of_a_batch():
    config, _ = made()
    assert reading.minibatch(config) == (4, 4)
    config.optim.name = 'sgd'
    assert reading.minibatch(config) == (8, 1)


# The program


CONFIG = '--config=tests/tiny_svag.py'


@pytest.mark.slow
def test_a_run_that_was_stopped_ends_with_the_same_bits_and_is_measured(tmp_path, monkeypatch):
    save = Checkpoints.save

    def save_and_die(self, state, loss=None):
        save(self, state, loss)
        if int(state.step) == 4:
            self.wait()
            raise KeyboardInterrupt

    once, again = tmp_path / 'once', tmp_path / 'again'
    program.call(CONFIG, f'--workdir={once}', '--mode=train')
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, 'save', save_and_die)
        with pytest.raises(KeyboardInterrupt):
            program.call(CONFIG, f'--workdir={again}', '--mode=train')
    assert not (again / 'checkpoints' / '12').exists()
    program.call(CONFIG, f'--workdir={again}', '--mode=train')
    whole, resumed = (program.arrays(workdir, 12) for workdir in (once, again))
    assert whole.keys() == resumed.keys()
    for name, array in whole.items():
        np.testing.assert_array_equal(array, resumed[name], err_msg=name)
    rows = [logs.read(workdir / 'logs' / 'metrics.jsonl') for workdir in (once, again)]
    losses = [[(row['step'], row['loss']) for row in of if 'loss' in row] for of in rows]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 6

    program.call(f'--workdir={again}', '--mode=eval')
    found = {q.label for q in quantities.read(again / 'eval' / '12' / 'metrics.json')}
    assert {'test_loss', 'clean_accuracy', 'noise_over_signal', 'largest_scaling'} < found
    assert not any('T_' in label for label in found)
