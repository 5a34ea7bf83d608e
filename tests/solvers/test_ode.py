"""The probability-flow ODE by every solver of diffrax, and latent codes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import keys
import sampling
import sde_lib
from choices import InputError
from solvers import grids, latents, ode
from tests.support import counting, mixture

SDE = sde_lib.VP()
T_MIN = 1e-3


def draw(score_fn, num=1, **options):
    """Samples of one compiled program."""
    sampler = functools.partial(sampling.probability_flow, sde=SDE, t_min=T_MIN, **options)
    image_keys = keys.per_image(jax.random.key(0), num)
    return jax.jit(lambda image_keys: sampler(image_keys, score_fn, (2,)))(image_keys)


@functools.cache
def reference(num=4):
    return draw(mixture.example().score_fn(SDE), num, solver='dopri8', rtol=1e-6, atol=1e-6).x


# Each solver in one of the two ways: its evaluations a step are the same in both. The others are in
# tests/test_sampling.py.
TOLERANCE = 1e-3


@pytest.mark.parametrize(
    'solver', ['midpoint', 'ralston', 'reversible_heun', 'implicit_euler', 'kvaerno3', 'kvaerno5']
)
def test_adaptive_solvers_agree_and_count_their_evaluations(solver):
    score_fn, calls = counting.counted(mixture.example().score_fn(SDE))
    drawn = jax.block_until_ready(draw(score_fn, solver=solver, rtol=TOLERANCE, atol=TOLERANCE))
    # Error per step is controlled; an ODE of 20 units and solvers of order 1 add some up.
    np.testing.assert_allclose(drawn.x, reference()[:1], atol=10 * TOLERANCE)
    assert int(drawn.nfe[0]) == len(calls)


@pytest.mark.parametrize('ends', [(0.5, 0.52), (0.52, 0.5)])
def test_a_solve_may_be_shorter_than_the_first_step_of_an_adaptive_solver(ends):
    field = ode.velocity(SDE, mixture.example().score_fn(SDE))
    assert abs(SDE.log_snr(ends[1]) - SDE.log_snr(ends[0])) < ode.FIRST_STEP / 2
    solve = functools.partial(ode.solve, field, jnp.array([[1.0, -0.5]]), None, *ends, sde=SDE)
    adaptive, nfe = solve(solver='dopri5', rtol=1e-4, atol=1e-4)
    on_grid, _ = solve(solver='dopri5', rtol=0, atol=0, times=jnp.linspace(*ends, 9))
    assert nfe.tolist() == [7]  # Of one step.
    np.testing.assert_allclose(adaptive, on_grid, atol=1e-4)


@pytest.mark.parametrize('per_image', [True, False])
@pytest.mark.parametrize('ends', [(T_MIN, 1), (1, T_MIN)])
def test_a_quadrature_is_left_out_where_dopri5_gives_it_no_weight(ends, per_image):
    """Once a step, whatever stands there in its place."""
    score_fn = mixture.example().score_fn(SDE)
    counted_fn, light_calls = counting.counted(score_fn)

    def velocity(t, state, args):
        return ode.velocity(SDE, score_fn)(t, state[0], None), jnp.sum(state[0] ** 2)

    def light(t, state, args):
        return ode.velocity(SDE, counted_fn)(t, state[0], None), 1e6

    state = jnp.array([[2.0, 1.0]]), jnp.zeros(1)
    options = {'sde': SDE, 'solver': 'dopri5', 'rtol': 1e-4, 'atol': 1e-4, 'per_image': per_image}
    solve = functools.partial(ode.solve, velocity, state, None, *ends, **options)
    expected, expected_nfe = solve()
    found, nfe = jax.block_until_ready(solve(light=light))
    assert nfe.tolist() == expected_nfe.tolist()
    assert len(light_calls) == nfe[0] // 6
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3), found, expected)


@pytest.mark.parametrize('solver', ['euler', 'tsit5', 'kvaerno4'])
def test_solvers_take_a_grid_and_count_their_evaluations(solver):
    score_fn, calls = counting.counted(mixture.example().score_fn(SDE))
    times = grids.log_snr_grid(SDE, 40, T_MIN)
    drawn = jax.block_until_ready(draw(score_fn, solver=solver, times=times))
    # Steps of 0.5 in log-SNR: Euler's error is of this size, the others' far below.
    np.testing.assert_allclose(drawn.x, reference()[:1], atol=0.05)
    method = ode.SOLVERS[solver]
    assert int(drawn.nfe[0]) == len(calls) == 40 * method.per_step + method.first


@pytest.mark.parametrize(('solver', 'order', 'steps'), [('euler', 1, 80), ('kvaerno3', 3, 20)])
def test_orders_on_a_grid(solver, order, steps):
    score_fn = mixture.example().score_fn(SDE)

    def error(steps):
        times = grids.log_snr_grid(SDE, steps, T_MIN)
        return np.abs(draw(score_fn, 4, solver=solver, times=times).x - reference()).mean()

    assert abs(np.log2(error(steps) / error(2 * steps)) - order) < 0.35


@pytest.mark.parametrize('per_image', [True, False])
def test_a_trajectory_leads_from_the_prior_to_the_samples(per_image):
    score_fn = mixture.example().score_fn(SDE)
    saved = jnp.array([SDE.T, 0.5, T_MIN])
    options = {'rtol': 1e-4, 'atol': 1e-4, 'per_image': per_image}
    drawn = draw(score_fn, 4, trajectory=saved, **options)
    prior = keys.normal(keys.per_image(jax.random.key(0), 4), 0, (2,))
    np.testing.assert_allclose(drawn.trajectory[0], prior, atol=1e-6)
    np.testing.assert_allclose(drawn.trajectory[-1], drawn.x, atol=1e-6)
    np.testing.assert_allclose(drawn.x, reference(), atol=5e-3)
    # The marginal at t = 0.5 is nearly the prior's: nearer to it than the samples are.
    half = np.abs(drawn.trajectory[1] - prior).mean()
    assert 0 < half < np.abs(drawn.x - prior).mean()
    assert (len(set(drawn.nfe.tolist())) > 1) == per_image


def test_what_a_solver_cannot_do_is_refused():
    check = functools.partial(ode.check, field='sampling.solver')
    with pytest.raises(InputError, match="sampling.solver: unknown name 'tsit'.*tsit5"):
        check('tsit', per_image=True, on_grid=False)
    with pytest.raises(InputError, match="sampling.solver: 'euler' estimates no error"):
        check('euler', per_image=True, on_grid=False)
    with pytest.raises(InputError, match="sampling.solver: 'kvaerno5' is implicit"):
        check('kvaerno5', per_image=False, on_grid=False)


# Latent codes


@pytest.mark.parametrize('times', [None, grids.log_snr_grid(SDE, 80, T_MIN)])
def test_decoding_gives_back_what_was_encoded(times):
    data = mixture.example()
    x = data.sample(jax.random.key(1), 4)
    options = {'sde': SDE, 't_min': T_MIN, 'solver': 'dopri5', 'rtol': 1e-6, 'atol': 1e-6}
    score_fn = data.score_fn(SDE)

    @jax.jit
    def there_and_back(x):
        falling = None if times is None else times
        rising = None if times is None else times[::-1]
        latent, _ = latents.encode(score_fn, x, times=rising, **options)
        return latents.decode(score_fn, latent, times=falling, **options)[0]

    np.testing.assert_allclose(there_and_back(x), x, atol=1e-4)


def test_interpolation_ends_at_the_latents_and_keeps_the_norm():
    a, b = jax.random.normal(jax.random.key(0), (2, 400, 16, 16, 1))
    points = latents.interpolate(a, b, jnp.array([0.0, 0.3, 0.5, 1.0]))
    np.testing.assert_allclose(points[0], a, atol=1e-5)
    np.testing.assert_allclose(points[3], b, atol=1e-5)
    # chi^2 of 256 dimensions: its mean over 400 has a standard error of 22.6 / 20.
    squares = jnp.sum(points**2, axis=(2, 3, 4)).mean(axis=1)
    np.testing.assert_allclose(squares, 256, atol=5 * 22.6 / 20)
    assert jnp.sum((0.5 * (a + b)) ** 2, axis=(1, 2, 3)).mean() < 160  # A straight line does not.
    np.testing.assert_allclose(latents.interpolate(a, a, jnp.array([0.5]))[0], a, atol=1e-6)
