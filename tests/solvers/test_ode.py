"""The probability-flow ODE by every solver of diffrax, and latent codes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import keys
import sde_lib
from choices import ArgumentError
from sampling import ProbabilityFlow
from solvers import latents, ode
from solvers.grids import TimeGrid
from solvers.ode import ODESolver
from tests.support import counting, mixture

SDE = sde_lib.VP()
T_MIN = 1e-3


def draw(process, solver, num=1, **options):
    """Samples of one compiled program."""
    sampler = ProbabilityFlow(solver, t_min=T_MIN, denoise=False, **options)
    image_keys = keys.per_image(jax.random.key(0), num)
    return jax.jit(lambda image_keys: sampler(image_keys, process, (2,)))(image_keys)


@functools.cache
def reference(num=4):
    return draw(mixture.example().process(SDE), ODESolver('dopri8', 1e-6, 1e-6), num).x


# Each solver in one of the two ways: its evaluations a step are the same in both. The others are in
# tests/test_sampling.py.
TOLERANCE = 1e-3


@pytest.mark.parametrize(
    'solver', ['midpoint', 'ralston', 'reversible_heun', 'implicit_euler', 'kvaerno3', 'kvaerno5']
)
def test_adaptive_solvers_agree_and_count_their_evaluations(solver):
    process, calls = counting.counted(mixture.example().process(SDE))
    drawn = jax.block_until_ready(draw(process, ODESolver(solver, TOLERANCE, TOLERANCE)))
    # Error per step is controlled; an ODE of 20 units and solvers of order 1 add some up.
    np.testing.assert_allclose(drawn.x, reference()[:1], atol=10 * TOLERANCE)
    assert int(drawn.nfe[0]) == len(calls)


@pytest.mark.parametrize('ends', [(0.5, 0.52), (0.52, 0.5)])
def test_a_solve_may_be_shorter_than_the_first_step_of_an_adaptive_solver(ends):
    assert abs(jnp.diff(SDE.log_snr(jnp.array(ends)))) < ode.FIRST_STEP / 2
    field, solver = ode.velocity(mixture.example().process(SDE)), ODESolver('dopri5', 1e-4, 1e-4)
    solve = functools.partial(solver.solve, field, jnp.array([[1.0, -0.5]]), None, *ends, sde=SDE)
    adaptive, nfe, _ = solve()
    on_grid, *_ = solve(times=jnp.linspace(*ends, 9))
    assert nfe.tolist() == [7]  # Of one step.
    np.testing.assert_allclose(adaptive, on_grid, atol=1e-4)


@pytest.mark.parametrize('per_image', [True, False])
@pytest.mark.parametrize('ends', [(T_MIN, 1), (1, T_MIN)])
def test_a_quadrature_is_left_out_where_dopri5_gives_it_no_weight(ends, per_image):
    """Once a step, whatever stands there in its place. In float64: whether a step is accepted may
    hang on rounding, which is another in another program.
    """

    def velocity(t, state, args):
        return ode.velocity(process)(t, state[0], None), jnp.sum(state[0] ** 2)

    def light(t, state, args):
        return ode.velocity(counted)(t, state[0], None), 1e6

    with jax.enable_x64(True):
        process = mixture.example().process(SDE)
        counted, light_calls = counting.counted(process)
        state = jnp.array([[2.0, 1.0]]), jnp.zeros(1)
        solver = ODESolver('dopri5', 1e-4, 1e-4, per_image)
        solve = functools.partial(solver.solve, velocity, state, None, *ends, sde=SDE)
        expected, expected_nfe, _ = solve()
        found, nfe, _ = jax.block_until_ready(solve(light=light))
    assert nfe.tolist() == expected_nfe.tolist() == [6 * len(light_calls) + 1]
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3), found, expected)


@pytest.mark.parametrize('solver', ['euler', 'tsit5', 'kvaerno4'])
def test_solvers_take_a_grid_and_count_their_evaluations(solver):
    process, calls = counting.counted(mixture.example().process(SDE))
    grid = TimeGrid(40, 'log_snr')
    drawn = jax.block_until_ready(draw(process, ODESolver(solver), grid=grid, adaptive=False))
    # Steps of 0.5 in log-SNR: Euler's error is of this size, the others' far below.
    np.testing.assert_allclose(drawn.x, reference()[:1], atol=0.05)
    method = ode.SOLVERS[solver]
    assert int(drawn.nfe[0]) == len(calls) == 40 * method.per_step + method.first


@pytest.mark.parametrize(('solver', 'order', 'steps'), [('euler', 1, 80), ('kvaerno3', 3, 20)])
def test_orders_on_a_grid(solver, order, steps):
    process = mixture.example().process(SDE)

    def error(steps):
        options = {'grid': TimeGrid(steps, 'log_snr'), 'adaptive': False}
        return np.abs(draw(process, ODESolver(solver), 4, **options).x - reference()).mean()

    assert abs(np.log2(error(steps) / error(2 * steps)) - order) < 0.35


@pytest.mark.parametrize('per_image', [True, False])
def test_a_trajectory_leads_from_the_prior_to_the_samples(per_image):
    solver = ODESolver(rtol=1e-4, atol=1e-4, per_image=per_image)
    drawn = draw(mixture.example().process(SDE), solver, 4, grid=TimeGrid(2), trajectory=True)
    prior = keys.normal(keys.per_image(jax.random.key(0), 4), 0, (2,))
    np.testing.assert_allclose(drawn.trajectory[0], prior, atol=1e-6)
    np.testing.assert_allclose(drawn.trajectory[-1], drawn.x, atol=1e-6)
    np.testing.assert_allclose(drawn.x, reference(), atol=5e-3)
    # The marginal at t = 0.5 is nearly the prior's: nearer to it than the samples are.
    half = np.abs(drawn.trajectory[1] - prior).mean()
    assert 0 < half < np.abs(drawn.x - prior).mean()
    assert (len(set(drawn.nfe.tolist())) > 1) == per_image


def test_what_a_solver_cannot_do_is_refused():
    with pytest.raises(ArgumentError, match="^solver: unknown name 'tsit'.*tsit5"):
        ODESolver('tsit')
    with pytest.raises(ArgumentError, match="^solver: 'euler' estimates no error"):
        ProbabilityFlow(ODESolver('euler'))
    with pytest.raises(ArgumentError, match="^solver: 'euler' estimates no error"):
        latents.encode(mixture.example().process(SDE), jnp.zeros((1, 2)), solver=ODESolver('euler'))
    with pytest.raises(ArgumentError, match="^solver: 'kvaerno5' is implicit"):
        ODESolver('kvaerno5', per_image=False)


# Latent codes


def test_decoding_gives_back_what_was_encoded():
    data, solver = mixture.example(), ODESolver('dopri5', 1e-6, 1e-6)
    x, process = data.sample(jax.random.key(1), 4), data.process(SDE)

    @jax.jit
    def there_and_back(x):
        latent, *_ = latents.encode(process, x, solver=solver, t_min=T_MIN)
        return latents.decode(process, latent, solver=solver, t_min=T_MIN)[0]

    np.testing.assert_allclose(there_and_back(x), x, atol=1e-4)


def test_a_grid_leads_there_and_back():
    data, solver = mixture.example(), ODESolver('dopri5')
    x, process = data.sample(jax.random.key(1), 4), data.process(SDE)
    times = TimeGrid(80, 'log_snr').times(SDE, T_MIN)

    @jax.jit
    def there_and_back(x):
        options = {'sde': SDE, 'times': times[::-1]}
        latent, *_ = solver.solve(ode.velocity(process), x, None, T_MIN, SDE.T, **options)
        return latents.decode(process, latent, solver=solver, t_min=T_MIN, times=times)[0]

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
