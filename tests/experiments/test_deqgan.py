"""The experiment of differential equations, from a config to a report."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from choices import InputError
from configs.deqgan import base, exp, pos
from equations import errors
from experiments import deqgan, kinds
from reports import logs
from storage.checkpoints import Checkpoints
from tests.support import program

TINY = {
    'equation.points': (12,),
    'solution.units': 6,
    'solution.blocks': 1,
    'discriminator.units': 5,
    'discriminator.blocks': 1,
    'training.batch_size': 12,
    'training.num_networks': 3,
    'training.num_steps': 40,
    'training.steps_per_dispatch': 10,
    'training.log_every': 10,
    'training.eval_every': 20,
    'training.checkpoint_every': 20,
    'eval.batch_size': 16,
}
WITHOUT_GRID = (
    '--config=configs/deqgan/exp.py',
    *(f'--config.{k}={v}' for k, v in TINY.items() if k != 'equation.points'),
)
FLAGS = *WITHOUT_GRID, '--config.equation.points=(12,)'


def tiny(**more):
    config = exp.get_config()
    config.update_from_flattened_dict(TINY | {k.replace('__', '.'): v for k, v in more.items()})
    return config


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A workdir that was trained without interruption, and evaluated."""
    workdir = tmp_path_factory.mktemp('exp')
    program.call(*FLAGS, f'--workdir={workdir}', '--mode=train')
    program.call(f'--workdir={workdir}', '--mode=eval')
    return workdir


def test_a_run_that_was_killed_ends_with_the_same_bits(trained, tmp_path, monkeypatch):
    save = Checkpoints.save

    def save_and_die(self, state, loss=None):
        save(self, state, loss)
        self.wait()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, 'save', save_and_die)
        with pytest.raises(KeyboardInterrupt):
            program.call(*FLAGS, f'--workdir={tmp_path}', '--mode=train')
    assert [path.name for path in (tmp_path / 'checkpoints').iterdir()] == ['20']
    program.call(*FLAGS, f'--workdir={tmp_path}', '--mode=train')
    once, again = program.arrays(trained, 40), program.arrays(tmp_path, 40)
    assert once.keys() == again.keys()
    for name, array in once.items():
        np.testing.assert_array_equal(array, again[name], err_msg=name)


def test_its_log_has_the_residual_besides_the_loss(trained):
    rows = logs.read(trained / 'logs' / 'metrics.jsonl')
    residuals = [row['residual'] for row in rows if 'residual' in row]
    assert len(residuals) == 4
    assert all(0.3 < row['loss'] < 3 for row in rows if 'loss' in row)  # Around log 2.
    assert len([row for row in rows if 'test_loss' in row]) == 2


def test_what_is_measured_is_the_error_of_the_last_iterate(trained):
    arrays = program.arrays(trained, 40)
    experiment = kinds.create(tiny())
    like = jax.eval_shape(experiment.init, jax.random.key(0)).params
    found = {
        jax.tree_util.keystr(path): arrays[f"['params']{jax.tree_util.keystr(path)}"]
        for path, _ in jax.tree_util.tree_leaves_with_path(like)
    }
    params = jax.tree.unflatten(jax.tree.structure(like), list(found.values()))
    expected = np.sort(errors.mean_squared(experiment.training, params['solution']))
    rows = json.loads((trained / 'eval' / '40' / 'metrics.json').read_text())['quantities']
    values = {row['of']: row['value'] for row in rows if row['name'] == 'mean_squared_error'}
    assert list(values) == ['best', 'median', 'worst']
    np.testing.assert_allclose(list(values.values()), expected, rtol=1e-4)


def test_its_report_shows_the_solution(trained):
    assert (trained / 'eval' / '40' / 'solution.png').exists()
    page = (trained / 'report.html').read_text()
    for words in ('The solution against the truth', 'mean squared error, median', '<svg'):
        assert words in page


def test_a_step_is_that_of_each_network():
    """As equations/training.py has it, with keys that know the step and the network."""
    experiment = kinds.create(tiny(training__loss='l2'))
    state = experiment.init(jax.random.key(1))
    batch = {'point': jnp.asarray(experiment.data('train').gather(np.arange(12))['point'])}
    after, progress = jax.jit(experiment.step)(state, batch)
    of_network = deqgan._unpacked(state)
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(42), 0), 2)
    one = jax.tree.map(lambda array: array[2], of_network)
    alone, _ = jax.jit(experiment.training.step)(key, one, batch['point'], 0)
    for a, b in zip(
        jax.tree.leaves(alone.params), jax.tree.leaves(after.params['solution']), strict=True
    ):
        np.testing.assert_allclose(a, b[2], rtol=1e-4, atol=1e-6)
    assert int(after.step) == 1
    assert int(progress.skipped) == 0


def test_a_step_that_no_network_survives_is_skipped():
    experiment = kinds.create(tiny(training__loss='l2'))
    state = experiment.init(jax.random.key(1))
    state = state._replace(params=jax.tree.map(lambda a: a * jnp.nan, state.params))
    batch = {'point': jnp.ones((12, 1))}
    after, progress = jax.jit(experiment.step)(state, batch)
    assert int(after.skipped) == int(progress.skipped) == 1


def test_the_first_test_points_are_from_all_of_the_domain():
    points = kinds.create(tiny()).data('test').points[:12, 0]
    assert points.min() < 3
    assert points.max() > 7


@pytest.mark.parametrize('loss', ['gan', 'l1'])
def test_its_loss_in_training_is_what_a_network_is_trained_by(loss):
    """At points without noise; of a discriminator L_G + L_D, near 2 log 2 at first."""
    experiment = kinds.create(tiny(training__loss=loss))
    params = experiment.init(jax.random.key(1)).params
    batch = {'point': jnp.linspace(0, 10, 12)[:, None]}
    found = experiment.loss(params, jax.random.key(0), batch, True)
    assert found.shape == (12,)
    residuals = jax.vmap(lambda p: experiment.training.residual(p, batch['point']))(
        params['solution']
    )
    if loss == 'l1':
        np.testing.assert_allclose(found, jnp.abs(residuals[..., 0]).mean(0), rtol=1e-5)
    else:
        np.testing.assert_allclose(found.mean(), 2 * np.log(2), rtol=0.3)
    tested = experiment.loss(params, jax.random.key(0), batch, False)
    np.testing.assert_allclose(tested, jnp.median(residuals[..., 0] ** 2, axis=0), rtol=1e-5)


def test_numbers_of_64_bits_are_a_field():
    with jax.enable_x64(True):
        experiment = kinds.create(tiny(training__dtype='float64'))
        state = jax.eval_shape(experiment.init, jax.random.key(0))
        assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {np.dtype('float64')}
    with pytest.raises(InputError, match='training.dtype: float64, and JAX_ENABLE_X64'):
        kinds.create(tiny(training__dtype='float64'))


@pytest.mark.parametrize(
    ('flag', 'message'),
    [
        (
            '--config.equation.points=(4,4)',
            "equation.points: (4, 4); one number for each axis of 'exp' needed: t",
        ),
        ('--config.equation.name=expo', "equation.name: unknown name 'expo' (did you mean 'exp'?)"),
        ('--config.training.loss=gam', "training.loss: unknown name 'gam' (did you mean 'gan'?)"),
        ('--config.optim.decay=1.5', 'optim.decay: 1.5; a number above 0 and at most 1 needed'),
        ('--config.training.batch_size=13', 'training.batch_size: 13 is more than all 12 examples'),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, flag, message):
    flags = WITHOUT_GRID if 'points' in flag else FLAGS
    refused = program.refusal(*flags, '--mode=train', f'--workdir={tmp_path}', flag)
    assert message in refused


def test_a_fixed_loss_has_no_discriminator(tmp_path):
    flags = '--config.training.loss=l2', '--config.discriminator.lr=0.1', '--mode=train'
    refused = program.refusal('--config=configs/deqgan/exp.py', f'--workdir={tmp_path}', *flags)
    assert refused.startswith('error: discriminator.lr: ')
    assert "'l2' has no such field" in refused


def test_published_grids_are_whole_batches():
    assert base.get_config().mesh.data == 1
    config = pos.get_config()
    assert np.prod(config.equation.points) == config.training.batch_size == 1024
