"""Problems: their conditions hold for every network, their equations at the truth, and the truths
are those of another solver."""

import functools
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate

from equations import PROBLEMS, ordinary, truths
from equations.problem import derivatives
from equations.truths import Spectral
from models.tanh_mlp import TanhMLP

ORDINARY = [name for name, problem in PROBLEMS.items() if problem.dim == 1]


@pytest.fixture(autouse=True)
def _in_float64():
    with jax.enable_x64(True):
        yield


def random_solution(problem, seed):
    """The wrapped form of a random network, with outputs of order 1."""
    network = TanhMLP(5, 1, problem.outputs, dtype=jnp.float64)
    key = jax.random.key(seed)
    variables = network.init(key, jnp.zeros((1, problem.dim)))
    return problem.solution(lambda z: 3 * network.apply(variables, z))


def along(problem, num=7, **fixed):
    """Points of the domain on the line where these axes have these values."""
    z = np.linspace(problem.low, problem.high, num)
    for name, value in fixed.items():
        z[:, problem.names.index(name)] = value
    return jnp.array(z)


# Wraps


@pytest.mark.parametrize('name', ORDINARY)
def test_a_wrap_starts_where_the_truth_starts(name):
    problem = PROBLEMS[name]
    start = along(problem, 1)
    truth = solved(name)[2] if name in NUMERICAL else problem.truth(np.array(start))[0]
    for seed in range(3):
        np.testing.assert_allclose(random_solution(problem, seed)(start)[0], truth, atol=1e-15)


@pytest.mark.parametrize(('name', 'speed'), [('sho', 1.0), ('nlo', 0.5)])
def test_an_oscillator_starts_with_its_speed(name, speed):
    problem = PROBLEMS[name]
    for seed in range(3):
        _, slope = derivatives(random_solution(problem, seed), along(problem, num=1))
        np.testing.assert_allclose(slope, speed, rtol=1e-14)


STARTS = {
    'hea': lambda x: np.sin(np.pi * x),
    'wav': lambda x: np.sin(np.pi * x),
    'bur': lambda x: 1 / np.cosh(x),
    'aca': lambda x: np.sin(x) / 4,
}


@pytest.mark.parametrize('name', STARTS)
def test_a_wrap_in_space_and_time_keeps_its_start_and_its_ends(name):
    problem, start = PROBLEMS[name], STARTS[name]
    for seed in range(3):
        x = random_solution(problem, seed)
        at_start = along(problem, t=0.0)
        np.testing.assert_allclose(x(at_start), start(at_start[:, :1]), atol=1e-15)
        for end in (problem.low[0], problem.high[0]):
            np.testing.assert_allclose(x(along(problem, x=end)), start(end), atol=1e-15)


def test_the_wave_starts_at_rest():
    problem = PROBLEMS['wav']
    _, slope = derivatives(random_solution(problem, 0), along(problem, t=0.0), axis=1)
    np.testing.assert_array_equal(slope, 0)


def test_the_membrane_is_0_on_its_edge():
    problem = PROBLEMS['pos']
    x = random_solution(problem, 0)
    for name in problem.names:
        for end in (0.0, 1.0):
            np.testing.assert_array_equal(x(along(problem, **{name: end})), 0)


# Residuals


def sine_over(t):
    """What a network has to be so that SHO's wrapped form is sin t."""
    grown = -jnp.expm1(-t)
    return (jnp.sin(t) - grown) / grown**2


SOLUTIONS = {
    'exp': lambda z: -jnp.ones_like(z),
    'exp_linear': lambda t: jnp.expm1(-t) / t,
    'sho': sine_over,
    'coo': lambda t: (
        jnp.concatenate([jnp.cos(t**2 / 2) - 1, jnp.sin(t**2 / 2)], 1) / -jnp.expm1(-t)
    ),
    'pos': lambda z: jnp.exp(z[:, :1] - z[:, 1:]),
}


@pytest.mark.parametrize('name', SOLUTIONS)
def test_the_network_that_solves_a_problem_has_no_residual(name):
    problem = PROBLEMS[name]
    z = jnp.array(problem.grid((9,) * problem.dim))[1:]
    x = problem.solution(SOLUTIONS[name])
    np.testing.assert_allclose(x(z), problem.truth(np.array(z)), atol=1e-13)
    # Second derivatives of sine_over cancel near 0.
    np.testing.assert_allclose(problem.residual(x, z), 0, atol=1e-11)


EXACT = {
    'hea': lambda z: jnp.exp(-(jnp.pi**2) * z[:, 1:]) * jnp.sin(jnp.pi * z[:, :1]),
    'wav': lambda z: jnp.cos(jnp.pi * z[:, 1:]) * jnp.sin(jnp.pi * z[:, :1]),
}


@pytest.mark.parametrize('name', EXACT)
def test_exact_waves_have_no_residual(name):
    problem = PROBLEMS[name]
    z = jnp.array(problem.grid((5, 5)))
    np.testing.assert_allclose(EXACT[name](z), problem.truth(np.array(z)), atol=1e-14)
    np.testing.assert_allclose(problem.residual(EXACT[name], z), 0, atol=1e-12)


# Truths without a formula, on points, on their neighbours, and at 0; solved once.
STEP = 2e-3
PLACES = np.linspace(0.02, 0.9, 5)  # over the length of the domain
NUMERICAL = ('nlo', 'sir', 'ham', 'ein')


@functools.cache
def solved(name):
    """Points t [5, 1], and the truth at t - 2 h, ..., t + 2 h, [5, 5, outputs]; the truth at 0."""
    problem = PROBLEMS[name]
    t = PLACES * problem.high[0]
    times = np.concatenate([[0.0], *(t + i * STEP for i in range(-2, 3))])
    found = problem.truth(times[:, None])
    return t[:, None], found[1:].reshape(5, 5, problem.outputs), found[0]


@pytest.mark.parametrize('name', NUMERICAL)
def test_a_truth_without_a_formula_has_no_residual(name):
    """Its derivatives are differences of order 4, of numbers known to 1e-11 or so."""
    problem, (t, around, _) = PROBLEMS[name], solved(name)
    slope = np.tensordot([1 / 12, -2 / 3, 0, 2 / 3, -1 / 12], around, 1) / STEP
    curvature = np.tensordot([-1 / 12, 4 / 3, -5 / 2, 4 / 3, -1 / 12], around, 1) / STEP**2

    def x(z):
        return around[2] + slope * (z - t) + curvature * (z - t) ** 2 / 2

    np.testing.assert_allclose(problem.residual(x, jnp.array(t)), 0, atol=3e-5)


def test_rays_follow_the_gradient_of_the_potential():
    place = jnp.array([[0.4, 0.3], [0.9, 0.2]])
    given = jnp.concatenate([place, jnp.zeros((2, 2))], axis=1)
    rate = ordinary._ray(None, given)
    force = -jax.vmap(jax.grad(ordinary.potential))(place)
    np.testing.assert_allclose(rate[:, 2:], force, rtol=1e-12)


def test_the_energy_of_a_ray_stays():
    y = solved('ham')[1].reshape(-1, 4)
    energy = (y[:, 2:] ** 2).sum(1) / 2 + np.array(ordinary.potential(jnp.array(y[:, :2])))
    np.testing.assert_allclose(energy, energy[0], rtol=1e-9)


def test_of_an_epidemic_everybody_is_counted():
    np.testing.assert_allclose(solved('sir')[1].sum(-1), 1, rtol=1e-12)


def test_what_a_universe_is_made_of_adds_up():
    """Friedmann's equation, Omega + v - x - y = 1, stays true."""
    x, y, v, omega, _ = np.moveaxis(solved('ein')[1], -1, 0)
    np.testing.assert_allclose(omega + v - x - y, 1, rtol=1e-9)


@pytest.mark.parametrize('name', ['bur', 'aca'])
def test_the_residual_of_a_moving_sine_is_that_by_hand(name):
    """Of u = sin(x + 2 t)."""
    problem = PROBLEMS[name]
    z = jnp.array(problem.grid((4, 3)))
    phase = z[:, :1] + 2 * z[:, 1:]
    u, slope = jnp.sin(phase), jnp.cos(phase)
    expected = {
        'bur': 2 * slope + u * slope + 1e-3 * u,
        'aca': (2 * slope + 1e-3 * u - u + u**3) * jnp.exp(-z[:, 1:] / 1.2),
    }[name]
    found = problem.residual(lambda z: jnp.sin(z[:, :1] + 2 * z[:, 1:]), z)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


# Truths


def test_another_solver_agrees():
    def velocity(t, y):
        return [y[1], -0.2 * y[1] - y[0] - y[0] ** 2 - 0.1 * y[0] ** 3]

    t, around, _ = solved('nlo')
    other = scipy.integrate.solve_ivp(
        velocity, (0, t[-1, 0]), [0.0, 0.5], 'DOP853', t[:, 0], rtol=1e-12, atol=1e-12
    )
    # The tolerances are those of a step, and there are some hundred.
    np.testing.assert_allclose(around[2, :, 0], other.y[0], atol=1e-10)


def diffusing(tolerance=1e-12, nonlinear=lambda u, slope: -u * slope):
    return Spectral(0.1, nonlinear, lambda x: -0.5 * np.sin(x), 0.0, 2 * np.pi, 64, tolerance)


def test_the_series_of_burgers_equation_is_cole_and_hopfs():
    """u = -2 nu (log phi)_x, and phi follows the heat equation."""
    nu, t = 0.1, 0.7
    x = np.linspace(0, 2 * np.pi, 256, endpoint=False)
    phi0 = np.exp(-0.5 * (np.cos(x)) / (2 * nu))
    k = np.fft.rfftfreq(256, 1 / 256)
    series = np.fft.rfft(phi0) * np.exp(-nu * k**2 * t)
    expected = -2 * nu * np.fft.irfft(1j * k * series) / np.fft.irfft(series)
    found = diffusing()(np.stack([x[::16], np.full(16, t)], axis=1))
    np.testing.assert_allclose(found[:, 0], expected[::16], atol=1e-10)


def test_a_series_is_evaluated_between_its_points_and_at_any_times():
    shrinking = diffusing(nonlinear=lambda u, slope: 0 * u)
    points = np.array([[1.1, 0.5], [0.2, 0.0], [5.0, 0.2], [1.1, 0.2]])
    expected = -0.5 * np.sin(points[:, :1]) * np.exp(-0.1 * points[:, 1:])
    np.testing.assert_allclose(shrinking(points), expected, atol=1e-13)


def test_a_series_that_does_not_settle_is_an_error(monkeypatch):
    monkeypatch.setattr(truths, 'MOST_STEPS', 8)
    with pytest.raises(ArithmeticError, match='8 steps between two times are too few'):
        diffusing(tolerance=0.0)(np.array([[1.0, 5.0]]))


# Grids


def test_no_point_of_the_finer_grid_is_one_of_training():
    problem = PROBLEMS['pos']
    grid, finer = problem.grid((4, 3)), problem.finer_grid((4, 3))
    assert grid.shape == (12, 2)
    assert finer.shape == (12 * 8, 2)
    np.testing.assert_allclose(problem.spacing((4, 3)), [1 / 3, 1 / 2])
    distances = np.abs(grid[:, None] - finer).max(axis=2)
    assert distances.min() > 0.04
    assert finer.min() > 0
    assert finer.max() < 1


def test_the_problem_in_the_documentation_is_one():
    page = (pathlib.Path(__file__).parents[2] / 'docs' / 'deqgan.md').read_text()
    [code] = re.findall(r'```python\n(.*?)```', page, re.DOTALL)
    told = {}
    exec(code, told)
    problem, t = told['logistic'], jnp.linspace(0.1, 4, 9)[:, None]
    logistic = lambda t: 1 / (1 + 9 * jnp.exp(-t))  # noqa: E731
    np.testing.assert_allclose(problem.residual(logistic, t), 0, atol=1e-14)
    np.testing.assert_allclose(logistic(t), problem.truth(np.array(t)))
    at_start = random_solution(problem, 0)(along(problem, 1))
    np.testing.assert_array_equal(at_start, problem.truth(np.zeros((1, 1))))
