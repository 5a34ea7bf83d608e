"""Steps of training: what objectives are in closed form, noise, monitoring, and that equations are
solved."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from equations import PROBLEMS, errors, objectives, second_order, training
from equations.objectives import FIXED, Adversarial
from equations.training import Rate, Training
from models.tanh_mlp import TanhMLP

KEY = jax.random.key(0)
PUBLISHED = Rate(0.09465, 0.4914, 0.3199, 0.95003, 3)
OF_DISCRIMINATOR = Rate(0.01222, 0.5422, 0.2641, 0.95003, 3)


def adversarial(noise=True):
    return Adversarial(TanhMLP(6, 1, spectral=True), OF_DISCRIMINATOR.optimizer(), noise)


def create(objective, problem='exp', num_steps=300, dtype=jnp.float32, units=8, **more):
    problem = PROBLEMS[problem]
    network = TanhMLP(units, 1, problem.outputs, dtype=dtype)
    return Training(problem, network, objective, PUBLISHED, (20,), num_steps, **more)


# Objectives


@pytest.mark.parametrize(
    ('name', 'expected'),
    [('l2', 4.25 / 2), ('l1', 1.25), ('huber', (0.125 + 1.5) / 2)],
)
def test_fixed_objectives_are_means_over_all_numbers(name, expected):
    residual = jnp.array([[0.5], [-2.0]])
    found = FIXED[name](KEY, (), residual)
    np.testing.assert_allclose(found.value, expected, rtol=1e-6)
    ahead, behind = (FIXED[name](KEY, (), residual + h).value for h in (1e-2, -1e-2))
    np.testing.assert_allclose(found.gradient.sum(), (ahead - behind) / 2e-2, rtol=1e-3)


def test_the_log_of_cosh():
    found = FIXED['logcosh'](KEY, (), jnp.array([[0.5], [-2.0]]))
    np.testing.assert_allclose(found.value, np.log(np.cosh([0.5, 2.0])).mean(), rtol=1e-6)
    np.testing.assert_allclose(found.gradient[:, 0], np.tanh([0.5, -2.0]) / 2, rtol=1e-6)


class Parabola(nn.Module):
    """A discriminator that never learns: its logit is -r^2 / 2."""

    dtype = jnp.float32

    @nn.compact
    def __call__(self, z):
        return -jnp.square(z) / 2 + self.param('unused', nn.initializers.zeros, ())


def test_a_discriminator_that_is_a_parabola_is_least_squares_near_0():
    """L_G is then mean softplus(r^2 / 2), whose gradient is r sigmoid(r^2 / 2) / n: near 0 that of
    a fourth of the mean square.
    """
    objective = Adversarial(Parabola(), optax.set_to_zero())
    residual = jnp.array([[0.01], [-0.02], [3.0]])
    found = objective(KEY, objective.init(KEY, 1), residual)
    r = np.array(residual)
    np.testing.assert_allclose(found.gradient, r / (1 + np.exp(-(r**2) / 2)) / 3, rtol=1e-6)
    least_squares = FIXED['l2'](KEY, (), residual).gradient
    np.testing.assert_allclose(found.gradient[:2], least_squares[:2] / 4, rtol=1e-3)


MANY = 2000  # points
PLAYERS = {has_noise: adversarial(has_noise) for has_noise in (True, False)}
PLAY = {has_noise: jax.jit(objective) for has_noise, objective in PLAYERS.items()}


@pytest.fixture(scope='module')
def beginning():
    """The state of a discriminator that knows nothing."""
    return PLAYERS[True].init(KEY, 1)


def test_where_both_players_are_lost_both_losses_are_log_2_and_there_is_no_noise(beginning):
    params = beginning.variables['params']
    flat = {**params, 'Dense_3': jax.tree.map(jnp.zeros_like, params['Dense_3'])}
    state = beginning._replace(variables={**beginning.variables, 'params': flat})
    found = PLAY[True](KEY, state, jnp.zeros((MANY, 1)))
    np.testing.assert_allclose(found.value, np.log(2), rtol=1e-6)
    np.testing.assert_array_equal(found.gradient, 0)
    assert found.state.noise == 0


def test_noise_is_how_much_more_the_generator_loses():
    on_true, on_false = jnp.array([3.0, 1.0]), jnp.array([-2.0, -2.0])
    value = objectives.generator_loss(on_false)
    value_d = objectives.discriminator_loss(on_true, on_false)
    np.testing.assert_allclose(value, np.log1p(np.exp(2)), rtol=1e-6)
    expected = (np.log1p(np.exp([-3.0, -1.0])).mean() + np.log1p(np.exp(-2))) / 2
    np.testing.assert_allclose(value_d, expected, rtol=1e-6)


@pytest.mark.parametrize('has_noise', [True, False])
def test_residuals_get_noise_as_large_as_the_step_before_says(beginning, has_noise):
    """With it each number has a gradient of its own."""
    noisy = beginning._replace(noise=jnp.array(2.0))
    found = PLAY[has_noise](KEY, noisy, jnp.ones((MANY, 1)))
    assert (jnp.ptp(found.gradient) > 1e-3 / MANY) == has_noise


def test_a_discriminator_against_one_number_leads_it_to_0():
    """The network is the number itself, r = theta, at every point."""
    objective = Adversarial(TanhMLP(10, 1, spectral=True), optax.adam(0.02, 0.5, 0.5))

    def step(carry, i):
        theta, state = carry
        found = objective(jax.random.fold_in(KEY, i), state, jnp.full((10, 1), theta))
        rate = 0.05 * 0.99**i
        return (theta - rate * jnp.sign(found.gradient.sum()), found.state), found.value

    start = jnp.array(0.7), objective.init(KEY, 1)
    (theta, _), values = jax.lax.scan(step, start, jnp.arange(600))
    assert abs(theta) < 0.05
    np.testing.assert_allclose(values[-50:].mean(), np.log(2), atol=0.05)


# Steps


def test_points_move_by_a_third_of_their_spacing():
    run = create(FIXED['l2'])
    points = jnp.asarray(run.problem.grid((2001,)), jnp.float32)
    moved = dataclasses.replace(run.problem, residual=lambda x, z: x(z) * 0 + z - points)
    run = dataclasses.replace(run, problem=moved, shape=(2001,))
    _, report = jax.jit(run.step)(KEY, run.init(KEY), points, 0)
    # Relative standard error 1 / sqrt(2 n) = 1.6 %.
    np.testing.assert_allclose(jnp.sqrt(report.residual), 10 / 2000 / 3, rtol=0.06)


@pytest.fixture(scope='module')
def trained():
    """What a short training makes of six networks, by objective: states, last reports."""
    found = {}
    for name, objective in (('l2', FIXED['l2']), ('gan', adversarial())):
        run = create(objective)
        found[name] = (
            run,
            *jax.jit(lambda keys, run=run: jax.vmap(run.train)(keys))(jax.random.split(KEY, 6)),
        )
    return found


def test_a_decay_is_learned(trained):
    run, states, reports = trained['l2']
    assert np.median(errors.mean_squared(run, states.params)) < 1e-6
    assert np.median(reports.residual) < 1e-6
    assert reports.updated.all()


def test_a_decay_is_learned_against_a_discriminator(trained):
    """By the best of six: so small a network may be lost."""
    run, states, _ = trained['gan']
    assert errors.mean_squared(run, states.params).min() < 1e-5


@pytest.fixture(scope='module')
def stopping():
    """A step of a run that gives networks up, and its state before."""
    run = create(FIXED['l2'], stop_alarmed=True)
    return jax.jit(run.step), run.init(KEY)


def unchanged(after, before):
    same = jax.tree.map(lambda a, b: jnp.array_equal(a, b, equal_nan=True), after, before)
    return all(jax.tree.leaves(same))


def test_a_step_has_an_effect_unless_it_is_not_finite(stopping):
    step, state = stopping
    after, report = step(KEY, state, jnp.ones((3, 1)), 0)
    assert report.updated
    assert not unchanged(after.params, state.params)
    broken = state._replace(params=jax.tree.map(lambda a: a * jnp.inf, state.params))
    after, report = step(KEY, broken, jnp.ones((3, 1)), 0)
    assert not report.updated
    assert unchanged(after, broken)


def test_a_network_that_is_given_up_stays_as_it_is(stopping):
    step, state = stopping
    given_up = state._replace(alarmed=jnp.array(True))
    after, report = step(KEY, given_up, jnp.ones((3, 1)), 0)
    assert not report.updated
    assert unchanged(after, given_up)


@pytest.mark.parametrize(
    ('index', 'spread', 'expected'),
    [(44, 1.0, False), (45, 1.0, True), (74, 1.0, True), (75, 1.0, False), (60, 0.05, False)],
)
def test_monitoring_looks_between_15_and_25_percent(index, spread, expected):
    """The variance of a window of +-spread is its square."""
    run = create(FIXED['l2'], num_steps=300)
    window = 5 + spread * jnp.tile(jnp.array([1.0, -1.0]), 10)
    state = run.init(KEY)._replace(window=window)
    _, alarmed = run._monitored(state, jnp.full((4, 1), 5 - spread), jnp.array(index))
    assert alarmed == expected


def test_some_networks_at_once_are_all_networks(monkeypatch):
    monkeypatch.setattr(training, 'POINTS_AT_ONCE', 6)
    found = training.of_each(lambda x: x**2, jnp.arange(5), 3)
    np.testing.assert_array_equal(found, [0, 1, 4, 9, 16])


# Second order


def test_least_squares_on_the_grid_of_a_problem():
    """A network of five units, 46 parameters, is enough for a decay."""
    with jax.enable_x64(True):
        run = create(FIXED['l2'], 'exp_linear', dtype=jnp.float64, units=5)
        found = jax.jit(lambda key: second_order.minimise(run, key, 'lm', 60))(KEY)
        [error] = errors.mean_squared(run, jax.tree.map(lambda a: a[None], found.params))
        assert found.steps <= 60
    assert error < 1e-6


@pytest.mark.parametrize('method', ['lm', 'bfgs', 'lbfgs'])
def test_least_squares_of_a_line(method):
    """Residuals that are linear in two numbers: the solution is that of the normal equations."""
    with jax.enable_x64(True):
        matrix = jnp.array([[1.0, 2.0], [3.0, 1.0], [0.0, 1.0]])
        target = jnp.array([1.0, 2.0, 3.0])
        found = second_order.METHODS[method](lambda x, _: matrix @ x - target, jnp.zeros(2), 200)
        expected = np.linalg.lstsq(matrix, target)[0]
        np.testing.assert_allclose(found.params, expected, rtol=1e-6)
