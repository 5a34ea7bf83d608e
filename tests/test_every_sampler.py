"""What samplers of all methods have in common: their start, their results, and being values."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import keys
import sampling
import sde_lib
from choices import ArgumentError
from parameterization import Process

# Many programs are compiled.
pytestmark = pytest.mark.slow

SDE, STD = sde_lib.VP(), 0.5
T_START, T_MIN = 0.5, 1e-2
SHAPE = (4,)
TIGHT, LOOSE = {'rtol': 1e-4, 'atol': 1e-4}, {'rtol': 5e-3, 'atol': 5e-3}
CASES = {
    **{name: (name, {}) for name in sampling.METHODS},
    'ode': ('ode', TIGHT),
    'sde': ('sde', LOOSE),
    'adaptive_sde': ('adaptive_sde', LOOSE),
    'pc, ddim': ('pc', {'predictor': 'ddim'}),
    'pc, langevin': ('pc', {'corrector': 'annealed_langevin', 'snr': 0.05}),
    'picard, ddim': ('picard', {'predictor': 'ddim', 'tolerance': 1e-3}),
    'ode, grid': ('ode', {'adaptive': False}),
    'sde, grid': ('sde', {'adaptive': False}),
}
# Steps of these end with noise.
NOISY = {'pc', 'pc, langevin', 'picard', 'dpmpp_2m_sde'}
RANDOM = {*NOISY, 'sde', 'sde, grid', 'adaptive_sde'}
each = pytest.mark.parametrize('case', CASES)


def create(case, **fields):
    """A sampler of eight steps, unless it chooses them."""
    method, own = CASES[case]
    return sampling.create(
        method, **{'steps': 8, 'spacing': 'log_snr', 't_min': T_MIN, **own, **fields}
    )


def variance(t):
    """That of x_t for data N(0, STD^2 I)."""
    return (SDE.alpha(t) * STD) ** 2 + SDE.sigma(t) ** 2


PROCESS = Process(SDE, lambda x, t: -x / variance(t)[:, None])


def draw(sampler, num=3, x_init=None, t_start=None):
    """Samples of one compiled program."""
    image_keys = keys.per_image(jax.random.key(0), num)

    def sample(image_keys, x_init):
        return sampler(image_keys, PROCESS, SHAPE, x_init, t_start)

    return jax.jit(sample)(image_keys, x_init)


def states(num):
    """States at T_START, distributed as the data with noise are."""
    std = jnp.sqrt(variance(jnp.float32(T_START)))
    return std * jax.random.normal(jax.random.key(1), (num, *SHAPE))


# Where they start


@each
def test_the_prior_s_own_draw_as_a_first_state_changes_no_bit(case):
    sampler, image_keys = create(case), keys.per_image(jax.random.key(0), 3)

    # Drawn in the program: an argument could be rounded otherwise on its way.
    @jax.jit
    def from_prior(image_keys):
        prior = SDE.prior_std * keys.normal(image_keys, 0, SHAPE)
        return sampler(image_keys, PROCESS, SHAPE, prior, SDE.T)

    found, expected = from_prior(image_keys), draw(sampler)
    np.testing.assert_array_equal(found.x, expected.x)
    np.testing.assert_array_equal(found.nfe, expected.nfe)


@each
def test_states_on_the_way_lead_to_the_data(case):
    """x(t) of the ODE is in proportion to the standard deviation of p_t; of the others the law is
    that of p_t_min.
    """
    num = 1000
    drawn = draw(create(case, steps=200, denoise=False), num, states(num), T_START)
    end = variance(jnp.float32(T_MIN))
    if case not in RANDOM:
        expected = jnp.sqrt(end / variance(jnp.float32(T_START))) * states(num)
        # Errors of 200 steps of order 1, and of solvers of higher orders or of tolerances.
        atol = 2e-2 if 'ddim' in case or case == 'euler' else 1e-3
        np.testing.assert_allclose(drawn.x, expected, atol=atol)
        return
    # Standard errors of 4,000 values: of the mean 1.6 % of the deviation, of the variance 2.2 %;
    # discretisation has 1 %.
    size = drawn.x.size
    assert abs(drawn.x.mean()) < 4 * jnp.sqrt(end / size)
    np.testing.assert_allclose(drawn.x.var(), end, rtol=4 * np.sqrt(2 / size) + 0.01)
    # They did not stay where they were.
    correlation = np.corrcoef(drawn.x.ravel(), states(num).ravel())[0, 1]
    assert abs(correlation) < 0.9


@each
def test_a_time_without_a_state_is_refused(case):
    with pytest.raises(ArgumentError, match='^x_init: None, and t_start is given'):
        draw(create(case), t_start=T_START)


# What they return


@each
def test_a_trajectory_leads_from_the_first_state_to_the_last(case):
    drawn = draw(create(case, trajectory=True, denoise=False), 3, states(3), T_START)
    assert drawn.trajectory.shape == (9, 3, *SHAPE)
    expected = create(case, adaptive=False).grid if case in ('ode', 'sde') else create(case).grid
    np.testing.assert_array_equal(drawn.times, expected.times(SDE, T_MIN, T_START))
    assert (np.diff(drawn.times) < 0).all()
    np.testing.assert_array_equal(drawn.times[jnp.array([0, -1])], jnp.float32([T_START, T_MIN]))
    # Solvers in y = x / alpha divide and multiply.
    np.testing.assert_allclose(drawn.trajectory[0], states(3), rtol=1e-6)
    np.testing.assert_allclose(drawn.trajectory[-1], drawn.x, rtol=1e-5, atol=1e-6)
    assert (np.abs(np.diff(drawn.trajectory, axis=0)).max(axis=(1, 2)) > 0).all()


@each
def test_denoising_leaves_out_the_noise_that_is_left(case):
    """E[x_0 | x] for one evaluation more or, for nothing, the noise of the last step."""
    noisy = draw(create(case, trajectory=True, denoise=False))
    clean = draw(create(case, trajectory=True))
    np.testing.assert_allclose(clean.trajectory, noisy.trajectory, rtol=1e-5, atol=1e-6)
    if case in NOISY:
        np.testing.assert_array_equal(clean.nfe, noisy.nfe)
        assert np.abs(clean.x - noisy.x).min() > 0
        return
    t = jnp.full(3, T_MIN)
    np.testing.assert_allclose(clean.x, PROCESS.denoise(noisy.x, t), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(clean.nfe, noisy.nfe + 1)


@each
def test_what_is_not_asked_for_is_not_returned(case):
    drawn = jax.eval_shape(lambda: draw(create(case)))
    assert drawn.trajectory is None
    assert drawn.times is None
    assert drawn.x.shape == (3, *SHAPE)
    assert drawn.nfe.shape == (3,)


# What they are


@each
def test_a_sampler_is_a_value(case):
    one, same = create(case), create(case)
    assert one == same
    assert hash(one) == hash(same)
    assert repr(one) == repr(same)
    other = dataclasses.replace(one, temperature=0.5, trajectory=True)
    assert other != one
    assert repr(other) != repr(one)
    assert dataclasses.replace(other, temperature=1.0, trajectory=False) == one
    # No address: the text is the same in every process.
    assert ' at 0x' not in repr(one)


def test_what_a_method_does_not_have_is_refused():
    with pytest.raises(ArgumentError, match="^method: unknown name 'dpmpp_4m'"):
        sampling.create('dpmpp_4m')
    with pytest.raises(ArgumentError, match="^spacing: unknown name 'straight'"):
        sampling.create('heun', spacing='straight')
    with pytest.raises(ArgumentError, match="^predictor: 'none', and so is the corrector"):
        sampling.create('pc', predictor='none')
    with pytest.raises(ArgumentError, match="^predictor: 'none'; picard needs one"):
        sampling.create('picard', predictor='none')
    with pytest.raises(ArgumentError, match="^corrector: 'langevin'; of picard 'none' needed"):
        sampling.create('picard', corrector='langevin')
    with pytest.raises(TypeError, match='churn'):
        sampling.create('ode', churn=1.0)
