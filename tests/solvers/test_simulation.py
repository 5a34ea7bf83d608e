"""An SDE whose kernel is not Gaussian: simulated, reversed, and its likelihoods, against the
solution of its Fokker-Planck equation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import keys
import likelihood
import sampling
import sde_lib
from choices import ArgumentError
from parameterization import Process
from sde_lib import NoKernelError
from solvers import simulation
from solvers.ode import ODESolver
from tests.support import wells

SDE = wells.SDE
NUM = 5000


@pytest.fixture(scope='module')
def process():
    return wells.process()


def simulate(t, num=NUM, steps=100):
    key_data, key_path = jax.random.split(jax.random.key(0))
    x0 = wells.MEAN + wells.STD * jax.random.normal(key_data, (num, 1))
    path_keys = jax.random.split(key_path, num)
    return jax.jit(simulation.simulate, static_argnums=(4,))(
        path_keys, SDE, x0, jnp.full(num, t), steps
    )


def test_simulated_states_have_the_law_of_the_fokker_planck_equation():
    for t in (0.01, 0.1, 1.0):
        assert (np.abs(wells.quantile_error(simulate(t)[:, 0], t)) < 4).all()


def test_the_last_law_is_the_prior_and_far_from_that_of_the_data():
    noise = jax.random.normal(jax.random.key(1), (NUM, 1))
    prior = SDE.prior_of(noise)[:, 0]
    assert (np.abs(wells.quantile_error(prior, SDE.T)) < 4).all()
    assert np.abs(wells.quantile_error(prior, SDE.t_min)).max() > 25
    assert (np.diff(prior[np.argsort(noise[:, 0])]) >= 0).all()


@pytest.mark.parametrize('noise', [0.5, 1.0, 3.0])
def test_the_prior_s_density_is_one_and_that_of_its_draws(noise):
    sde = sde_lib.DoubleWell(noise=noise)
    x = jnp.linspace(-8, 8, 20_001)
    density = jnp.exp(sde.prior_log_prob(x[:, None]))
    mass = density * 16 / 20_000  # In float32 points differ by other numbers.
    np.testing.assert_allclose(mass.sum(), 1, rtol=1e-4)
    variance = (mass * x**2).sum()
    np.testing.assert_allclose(sde.length(jnp.float32(1e3)) ** 2, variance, rtol=1e-4)
    drawn = sde.prior_of(jax.random.normal(jax.random.key(0), (100_000,)))
    error = np.std(drawn**2) / np.sqrt(drawn.size)
    assert abs(np.mean(drawn**2) - variance) < 4 * error


def draw(process, method, **fields):
    sampler = sampling.create(method, denoise=False, **fields)
    image_keys = keys.per_image(jax.random.key(3), NUM)
    return jax.jit(lambda image_keys: sampler(image_keys, process, (1,)))(image_keys)


@pytest.mark.parametrize(
    ('method', 'fields'), [('pc', {'steps': 1000}), ('ode', {'rtol': 1e-3, 'atol': 1e-3})]
)
def test_the_reverse_leads_from_the_wells_to_the_data(process, method, fields):
    drawn = draw(process, method, **fields)
    assert drawn.ending.is_done.all()
    assert (np.abs(wells.quantile_error(drawn.x[:, 0], SDE.t_min)) < 5).all()


def test_likelihoods_are_those_of_the_fokker_planck_equation(process):
    x = wells.MEAN + 2 * wells.STD * jnp.linspace(-1, 1, 30)[:, None]
    image_keys = keys.per_image(jax.random.key(0), len(x))
    solver = ODESolver('dopri5', 3e-4, 3e-4)
    found = jax.jit(
        lambda x: (
            likelihood.log_prob(image_keys, process, x, solver=solver, divergence='exact').log_prob
        )
    )(x)
    expected = np.interp(x[:, 0], wells.GRID, wells.log_density(SDE.t_min))
    # The score is interpolated, and p_T is the prior but for parts of exp(-6.8).
    np.testing.assert_allclose(found, expected, atol=0.03)


@pytest.mark.parametrize(
    ('method', 'fields'),
    [
        ('heun', {}),
        ('dpmpp_2m', {}),
        ('sde', {}),
        ('picard', {}),
        ('pc', {'predictor': 'ancestral'}),
        ('pc', {'corrector': 'langevin'}),
        ('pc', {'spacing': 'log_snr'}),
        ('ode', {'denoise': True}),
    ],
)
def test_what_asks_for_a_kernel_is_refused(method, fields):
    process = Process(SDE, lambda x, t: -x)
    sampler = sampling.create(method, **{'denoise': False, **fields})
    with pytest.raises(NoKernelError, match='^name: DoubleWell has no Gaussian kernel'):
        jax.eval_shape(
            lambda key: sampler(key, process, (1,)), keys.per_image(jax.random.key(0), 2)
        )
    assert issubclass(NoKernelError, ArgumentError)
