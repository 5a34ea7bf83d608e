"""Score models of an SDE without a Gaussian kernel, from a file of vectors to their samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from choices import InputError
from configs import base, fields
from configs.simulated import double_well
from datasets import points
from evaluation.batchwise import Checkpoint
from experiments import kinds, validation
from tests.support import wells

STEPS, BATCH = 400, 512


def tiny(source):
    config = double_well.get_config()
    config.points.source = source
    config.points.test_fraction = 0.1
    config.model.width, config.model.num_blocks, config.model.embedding_size = 32, 1, 16
    config.simulation.steps = 300
    config.training.batch_size, config.training.num_steps = BATCH, STEPS
    config.optim.lr, config.optim.warmup, config.optim.ema_rate = 3e-3, 20, 0.98
    config.sampling.num_samples, config.sampling.steps = 400, 500
    config.eval.samplers = ('pc',)
    config.eval.likelihood = False
    return config


@pytest.fixture(scope='module')
def experiment(tmp_path_factory):
    """On draws of the normal law whose way through the wells is known."""
    path = tmp_path_factory.mktemp('data') / 'points.npz'
    drawn = np.random.default_rng(0).normal(wells.MEAN, wells.STD, (10_000, 1))
    np.savez(path, points=drawn)
    config = tiny(f'npz:{path}')
    validation.check(config)
    return kinds.create(config)


@pytest.fixture(scope='module')
def state(experiment):
    x = jnp.asarray(experiment.data('train').x)

    def step(state, i):
        chosen = jax.random.randint(jax.random.fold_in(jax.random.key(5), i), (BATCH,), 0, len(x))
        return experiment.step(state, {'x': x[chosen]})

    state = experiment.init(jax.random.key(0))
    return jax.jit(lambda state: jax.lax.scan(step, state, jnp.arange(STEPS))[0])(state)


@pytest.mark.slow  # Compiled are training, and an eigenvalue problem.
def test_a_sliced_objective_on_simulated_states_finds_the_score(experiment, state):
    """Against the solution of the Fokker-Planck equation: of the mean square of the score less than
    two fifths are missed by a network of 32 features after 400 updates."""
    process, exact = experiment.model.process(state.evaluated), wells.process()
    for t in (0.03, 0.1, 1.0):
        density = wells.densities([t])[0]
        density /= density.sum()
        x, times = jnp.asarray(wells.GRID, jnp.float32)[:, None], jnp.full(len(wells.GRID), t)
        error = np.sum(density * (process.score(x, times) - exact.score(x, times))[:, 0] ** 2)
        assert error < 0.4 * np.sum(density * exact.score(x, times)[:, 0] ** 2), t


@pytest.mark.slow
def test_samples_are_measured_and_shown(experiment, state, tmp_path):
    (measure,) = experiment.measures(tmp_path)
    found = measure(Checkpoint(state.evaluated, tmp_path, 0))
    numbers = {quantity.label: quantity.value for quantity in found.quantities}
    # Of data with a mean of 0.6 and a prior with that of 0, whose distance is 0.7.
    assert numbers['pc_fd'] < 0.1
    assert numbers['pc_nfe'] == 500
    assert (tmp_path / 'densities.png').stat().st_size > 1000
    assert np.load(tmp_path / 'samples_pc.npz')['x'].shape == (400, 1)


def test_an_energy_of_vectors_has_a_density():
    config = tiny('trio')
    config.model = fields.config(base.simulated_score_model('energy_mlp')['model'])
    config.model.width = 16
    experiment = kinds.create(config)
    process = experiment.model.process(experiment.init(jax.random.key(0)).params)
    assert process.log_density(jnp.ones((3, 2)), jnp.full(3, 0.5)).shape == (3,)


def test_draws_of_a_law_have_its_density():
    found = points.load('trio', 'test', 0.1)
    # E[log p] is minus the entropy: of three parts that hardly overlap, log 3 and that of one.
    expected = -np.log(3) - np.log(2 * np.pi * np.e * found.law.std**2)
    log_probs = found.law.blurred_log_prob(jnp.asarray(found.x), 0.0)
    error = np.std(log_probs) / np.sqrt(len(log_probs))
    assert abs(np.mean(log_probs) - expected) < 4 * error + 1e-3


@pytest.mark.parametrize(
    ('arrays', 'message'),
    [
        (None, 'there is no such file'),
        ({'images': np.zeros((3, 2))}, 'has the keys images; points, or train_points and'),
        ({'points': np.zeros(3)}, r'points is float64 \(3,\); finite floats \[num, dim\] needed'),
        ({'points': np.full((3, 2), np.nan)}, r'points is float64 \(3, 2\); finite'),
    ],
)
def test_files_that_are_of_no_use_are_refused(tmp_path, arrays, message):
    path = tmp_path / 'points.npz'
    if arrays is not None:
        np.savez(path, **arrays)
    with pytest.raises(InputError, match=f'^points.source npz:{path}:? ?{message}'):
        kinds.create(tiny(f'npz:{path}'))
    with pytest.raises(InputError, match="^points.source 'mnist5k': no vectors; npz:PATH, or"):
        kinds.create(tiny('mnist5k'))


def test_samplers_and_objectives_that_ask_for_a_kernel_are_refused():
    for field, value in (('eval.samplers', ('heun',)), ('training.objective', 'denoising')):
        config = tiny('trio')
        config.update_from_flattened_dict({field: value})
        with pytest.raises(InputError, match=f'^{field}: unknown name'):
            validation.check(config)
