"""Objectives against the published code, closed forms, and the scores that minimise them."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import losses
import parameterization
import sde_lib
from choices import ArgumentError
from parameterization import Process
from sde_lib import expand
from tests.support import golden, mixture

LINEAR = [sde_lib.SDES[name]() for name in sde_lib.SDES if name not in ('ddpm', 'smld')]


def name_of(sde):
    return type(sde).__name__


# The published code


@pytest.mark.parametrize('mean', [False, True])
@pytest.mark.parametrize('weighting', ['sigma2', 'likelihood'])
@pytest.mark.parametrize('name', ['vp', 'subvp', 've'])
def test_continuous_loss_agrees_with_the_published(name, weighting, mean):
    sde, data = sde_lib.create(name), golden.load('losses')
    x0, t, noise = (jnp.asarray(data[key]) for key in ('data', 't', 'z'))
    squares = losses.residual(Process(sde, golden.score_fn), x0, t, noise) ** 2
    found = losses.WEIGHTINGS[weighting](sde, t) * losses.reduce_pixels(squares, mean)
    expected = data[f'{name}/dsm_mean{mean:d}_lw{weighting == "likelihood":d}']
    np.testing.assert_allclose(found.mean(), expected, rtol=golden.RTOL)


@pytest.mark.parametrize('mean', [False, True])
@pytest.mark.parametrize('name', ['smld', 'ddpm'])
def test_discrete_loss_agrees_with_the_published(name, mean):
    sde, data = sde_lib.create(name), golden.load('losses')
    labels = jnp.asarray(data['labels'])
    level = sde.num_scales - 1 - labels if name == 'smld' else labels
    t = (level + 1) / sde.num_scales

    def network(x, label):
        return 0.1 * jnp.tanh(x) * sde_lib.expand(1 + label / 100, x)

    parameterize = parameterization.PARAMETERIZATIONS[name]
    process = Process(sde, functools.partial(parameterize, sde, network))
    residual = losses.residual(process, jnp.asarray(data['data']), t, jnp.asarray(data['z']))
    found = losses.reduce_pixels(residual**2, mean).mean()
    np.testing.assert_allclose(found, data[f'{name}_mean{mean:d}'], rtol=golden.RTOL)


# The minimiser


@pytest.mark.parametrize('weighting', list(losses.WEIGHTINGS))
@pytest.mark.parametrize('sde', LINEAR, ids=name_of)
def test_the_minimiser_on_gaussian_data_is_the_known_score(sde, weighting):
    """Data N(0, v): with score = -c x / (alpha^2 v + sigma^2), the loss at one t is least for c =
    1.

    The residual sigma score + noise is linear in c, so the minimising c is a ratio of sample means;
    its standard error comes from the same samples.
    """
    v, num = 0.5**2, 40_000
    key_x, key_noise = jax.random.split(jax.random.key(0))
    x0 = 0.5 * jax.random.normal(key_x, (num, 1))
    noise = jax.random.normal(key_noise, (num, 1))
    for fraction in (0.02, 0.3, 0.9):
        t = jnp.full(num, sde.t_min + fraction * (sde.T - sde.t_min))
        variance = sde.alpha(t[0]) ** 2 * v + sde.sigma(t[0]) ** 2

        def exact(x, t, variance=variance):
            return -x / variance

        # The residual at c is noise + c u.
        u = losses.residual(Process(sde, exact), x0, t, noise) - noise
        weight = losses.WEIGHTINGS[weighting](sde, t)[:, None]
        c = -np.mean(weight * noise * u) / np.mean(weight * u**2)
        standard_error = np.std(noise * u + u**2) / np.mean(u**2) / np.sqrt(num)
        assert abs(c - 1) < 4 * standard_error + 1e-5


def test_log_normal_times_have_the_mean_and_deviation_asked_for():
    sde = sde_lib.EDM()  # sigma / alpha = t.
    seen = []

    def score_fn(x, t):
        seen.append(t)
        return jnp.zeros_like(x)

    loss = losses.DenoisingScoreMatching('edm', 'log_normal', log_sigma=(-1.0, 0.5))
    loss(Process(sde, score_fn), jax.random.key(0), jnp.zeros((4000, 1)))
    # One time in each of 4,000 equal parts: the error is a part of a part, and the tails' width.
    np.testing.assert_allclose(jnp.log(seen[0]).mean(), -1.0, atol=1e-3)
    np.testing.assert_allclose(jnp.log(seen[0]).std(), 0.5, atol=2e-3)


def test_descent_on_the_loss_finds_the_variance_of_gaussian_data():
    """The model score is that of N(0, v) data, with v unknown; the data's variance is 0.25."""
    sde = sde_lib.VP()
    loss = losses.DenoisingScoreMatching(time_sampler='stratified', t_min=1e-3)
    optimizer = optax.adam(optax.cosine_decay_schedule(0.1, 300))

    def objective(log_v, key):
        def score_fn(x, t):
            return -x / sde_lib.expand(sde.alpha(t) ** 2 * jnp.exp(log_v) + sde.sigma(t) ** 2, x)

        key_data, key_loss = jax.random.split(key)
        x0 = 0.5 * jax.random.normal(key_data, (4096, 1))
        return loss(Process(sde, score_fn), key_loss, x0).mean()

    def step(carry, key):
        log_v, opt_state = carry
        updates, opt_state = optimizer.update(jax.grad(objective)(log_v, key), opt_state)
        return (log_v + updates, opt_state), None

    start = jnp.zeros(()), optimizer.init(jnp.zeros(()))
    (log_v, _), _ = jax.lax.scan(step, start, jax.random.split(jax.random.key(0), 300))
    # About 300,000 images count in the last, small steps: a standard error near 1 %.
    np.testing.assert_allclose(jnp.exp(log_v), 0.25, rtol=0.03)


# The cross-entropy


def normal(sde, std):
    """The process of N(0, std^2)."""

    def score(x, t):
        return -x / expand((sde.alpha(t) * std) ** 2 + sde.sigma(t) ** 2, x)

    return Process(sde, score)


def expected_cross_entropy(process, std, t_min):
    """The mean of `losses.cross_entropy` over N(0, std^2), for a score that is linear in x.

    By Gauss-Legendre over log signal-to-noise ratios, in float64; a linear residual has as its mean
    square that of x_0 alone and that of the noise alone.
    """
    sde = process.sde
    nodes, weights = np.polynomial.legendre.leggauss(200)
    ends = np.asarray(sde.log_snr(jnp.array([sde.T, t_min])), np.float64)
    half = 0.5 * (ends[1] - ends[0])
    t = sde.time_at_log_snr(jnp.asarray(ends[0] + half * (1 + nodes)))
    ones, zeros = jnp.ones((len(t), 1)), jnp.zeros((len(t), 1))
    squares = (
        losses.residual(process, std * ones, t, zeros) ** 2
        + losses.residual(process, zeros, t, ones) ** 2
    )[:, 0]
    in_log_snr = losses.likelihood(sde, t) * squares * (sde.sigma(t) / sde.diffusion(t)) ** 2
    integral = 0.5 * float((half * weights * in_log_snr).sum())
    return integral + float(losses.noise_entropy(sde, t_min, ones))


@pytest.mark.parametrize('std', [0.3, 1.0, 2.0])
@pytest.mark.parametrize('sde', LINEAR, ids=name_of)
def test_the_cross_entropy_of_normal_data_is_their_entropy(sde, std):
    """That of x at t_min, without what p_T has left of x_0: log(1 + std^2 SNR(T)) / 2."""
    t_min = 0.0 if isinstance(sde, sde_lib.GeometricVP) else sde.t_min
    with jax.enable_x64(True):
        found = expected_cross_entropy(normal(sde, std), std, t_min)
        early, last = jnp.float64(t_min), jnp.float64(sde.T)
        variance = (sde.alpha(early) * std) ** 2 + sde.sigma(early) ** 2
        left = 0.5 * np.log1p(std**2 * np.exp(sde.log_snr(last)))
        expected = 0.5 * np.log(2 * np.pi * np.e * variance) - left
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize('std', [0.3, 1.0, 2.0])
@pytest.mark.parametrize('sde', LINEAR, ids=name_of)
def test_the_cross_entropy_with_the_normal_score_is_that_of_the_normal_density(sde, std):
    """-E[log N(x; 0, alpha^2 + sigma^2)] at t_min; as before without what is left at T."""
    t_min = sde.t_min
    with jax.enable_x64(True):
        found = expected_cross_entropy(Process(sde, sde.normal_score), std, t_min)
        ends = jnp.array([t_min, sde.T])
        total, share = (
            sde.alpha(ends) ** 2 + sde.sigma(ends) ** 2,
            jax.nn.sigmoid(sde.log_snr(ends)),
        )
        gained = (std**2 - 1) * share
        left = np.log1p(np.exp(sde.log_snr(ends[1]))) + gained[1]
        expected = 0.5 * (np.log(2 * np.pi * np.e * total[0]) + gained[0] - left)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    ('std', 't_min', 'exact', 'with_normal_score'),
    [
        (0.3, 1e-5, 0.214969, 0.963937),
        (0.3, 1e-2, 0.224939, 0.964843),
        (1.0, 1e-5, 1.418917, 1.418917),
        (2.0, 1e-5, 2.111999, 2.918851),
    ],
)
def test_cross_entropies_of_vp_in_numbers(std, t_min, exact, with_normal_score):
    """The entropy of N(0, std^2) and -E[log N(x; 0, 1)] within 1e-4, if t_min is early."""
    sde = sde_lib.VP()
    with jax.enable_x64(True):
        found = expected_cross_entropy(normal(sde, std), std, t_min)
        of_normal = expected_cross_entropy(Process(sde, sde.normal_score), std, t_min)
    np.testing.assert_allclose([found, of_normal], [exact, with_normal_score], atol=2e-6)
    if t_min < 1e-4:
        entropy = 0.5 * np.log(2 * np.pi * np.e * std**2)
        np.testing.assert_allclose(found, entropy, atol=1e-4)
        np.testing.assert_allclose(of_normal, 0.5 * (np.log(2 * np.pi) + std**2), atol=1e-4)


@pytest.mark.parametrize(
    ('sde', 't_min', 'expected'),
    [
        (sde_lib.VP(), 1e-5, 1.418917),
        (sde_lib.SubVP(), 1e-2, 1.417921),
        (sde_lib.VE(), 1e-5, 1.418789),
        (sde_lib.GeometricVP(), 0.0, 1.418453),
    ],
    ids=str,
)
def test_cross_entropies_of_standard_normal_data_in_numbers(sde, t_min, expected):
    """Near log(2 pi e) / 2 = 1.418939: off by the noise at t_min, and by what p_T has left."""
    with jax.enable_x64(True):
        found = expected_cross_entropy(normal(sde, 1.0), 1.0, t_min)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize('sampler', ['importance', 'importance_sigma2', 'stratified'])
def test_draws_of_the_cross_entropy_have_its_mean(sampler):
    """By importance to less than 1 %, which a factor T - t_min would change the integral by."""
    sde, std, t_min, num, dim = sde_lib.VP(), 0.3, 0.01, 100_000, 8
    x0 = std * jax.random.normal(jax.random.key(1), (num, dim))
    draws = losses.cross_entropy(normal(sde, std), jax.random.key(0), x0, sampler, t_min)
    with jax.enable_x64(True):
        expected = dim * expected_cross_entropy(normal(sde, std), std, t_min)
        constant = float(losses.noise_entropy(sde, t_min, x0))
    standard_error = draws.std() / np.sqrt(num)
    assert abs(draws.mean() - expected) < 4 * standard_error
    assert sampler != 'importance' or 4 * standard_error < 0.01 * (expected - constant)


# Weightings


def test_edm_weighting_with_its_preconditioning_has_unit_weight_on_the_network():
    """lambda c_out^2 = 1 (Karras et al. 2022, eq. 8 and table 1)."""
    sde = sde_lib.EDM()
    t = jnp.geomspace(0.002, 80.0, 20)
    x = jnp.zeros((20, 1))
    of_zero, of_one = (
        parameterization.edm(sde, lambda x, label, out=out: jnp.full_like(x, out), x, t)
        for out in (0.0, 1.0)
    )
    slope = sde_lib.expand(sde.sigma(t), x) * (of_one - of_zero)
    np.testing.assert_allclose(losses.edm(sde, t) * slope[:, 0] ** 2, 1.0, rtol=1e-5)


# The objectives without a residual, and all of them by one number

DATA = mixture.example()


def wider(sde, x, t):
    """The log density of a mixture that is not that of the data."""
    model = mixture.example()
    alpha = expand(sde.alpha(t), x)
    variance = (0.6 * sde.alpha(t)) ** 2 + sde.sigma(t) ** 2
    squares = ((x[:, None] - 0.8 * alpha[:, None] * model.means) ** 2).sum(axis=2)
    return jax.scipy.special.logsumexp(-0.5 * squares / variance[:, None], axis=1)


def energy(sde):
    """A process that is wrong by some tens of per cent, as an energy."""
    return parameterization.energy_process(sde, functools.partial(wider, sde))


def field(sde):
    """Its score alone."""
    return Process(sde, energy(sde).score)


@functools.cache
def expected_loss(sde, weighting, times, width=300):
    """The mean denoising loss at each of these times, by quadrature over the plane:

        weight (|sigma (score - exact)|^2 + dim - |sigma exact|^2) / dim.

    The first term is the Fisher divergence, and the others are the known constant.
    """
    unit = jnp.stack(jnp.meshgrid(*2 * [jnp.linspace(-1, 1, width)]), -1).reshape(-1, 2)

    @jax.jit
    def at_time(t):
        x, each = (3 * sde.alpha(t) + 6 * sde.sigma(t)) * unit, jnp.full(len(unit), t)
        score, exact = field(sde).score(x, each), DATA.process(sde).score(x, each)
        error, square = jnp.sum((score - exact) ** 2, 1), jnp.sum(exact**2, 1)
        weight = losses.WEIGHTINGS[weighting](sde, each)
        loss = weight * (sde.sigma(t) ** 2 * (error - square) + 2) / 2
        return jnp.average(loss, weights=jnp.exp(DATA.log_prob(x, sde, t)))

    return np.array([at_time(jnp.float32(t)) for t in times], np.float64)


def draws(objective, process, num):
    """Losses of so many images."""
    key_data, key_loss = jax.random.split(jax.random.key(1))
    x0 = DATA.sample(key_data, num)
    return np.asarray(jax.jit(lambda: objective(process, key_loss, x0))(), np.float64)


def assert_mean(found, expected, largest_error):
    """Within three standard errors, of which one is no more than this share of it."""
    error = found.std() / np.sqrt(len(found))
    assert error < largest_error * abs(expected)
    assert abs(found.mean() - expected) < 3 * error


@pytest.mark.parametrize(
    ('make', 'name'),
    [(field, name) for name in losses.OBJECTIVES if name != 'fd_denoising']
    + [(energy, name) for name in losses.OBJECTIVES],
)
def test_all_objectives_are_one_number(make, name):
    """In continuous time: the Fisher divergence and a known constant, of fields and of energies."""
    sde, t_min = sde_lib.VP(), 0.05
    nodes, weights = np.polynomial.legendre.leggauss(20)
    times = tuple(t_min + (sde.T - t_min) * 0.5 * (1 + nodes))
    expected = np.average(expected_loss(sde, 'sigma2', times), weights=weights)
    objective = losses.OBJECTIVES[name]('sigma2', 'stratified', t_min)
    assert_mean(draws(objective, make(sde), 100_000), expected, 0.03)


@pytest.mark.parametrize(
    ('name', 'make', 'sde', 'weighting', 'options'),
    [
        ('fd_sliced_vr', field, 've', 'edm', {'projection': 'sphere'}),
        ('fd_sliced', energy, 'subvp', 'reweighted', {'num_projections': 3}),
        ('sliced', field, 'geometric', 'likelihood', {'projection': 'gaussian'}),
        ('fd_denoising', energy, 'edm', 'likelihood', {'fd_step': 0.05}),
    ],
)
def test_an_objective_of_one_noise_level_is_its_fisher_divergence(
    name, make, sde, weighting, options
):
    """Under any SDE and weighting, as half of a sum."""
    sde, t = sde_lib.create(sde), 0.4
    (expected,) = expected_loss(sde, weighting, (t,))
    objective = losses.OBJECTIVES[name](weighting, 'fixed', t, reduce_mean=False, **options)
    assert_mean(draws(objective, make(sde), 100_000), expected, 0.03)


def test_differences_are_relative_to_the_noise():
    """The bias of x^4 at 100 times the scale is that of x^4: none is left of a step of its own."""
    sde = sde_lib.EDM()  # sigma = t, alpha = 1

    def quartic(x, t):
        return -jnp.sum((x / expand(t, x)) ** 4, axis=1)

    process = parameterization.energy_process(sde, quartic)
    for t in (0.05, 5.0):
        objective = losses.FDSlicedScoreMatching('sigma2', 'fixed', t, fd_step=0.3)
        found, exact = (
            draw(process, jax.random.key(0), jnp.zeros((3, 1)))
            for draw in (objective, losses.SlicedScoreMatching('sigma2', 'fixed', t))
        )
        # Of the second derivative of -y^4, -12 y^2, a difference h makes -12 y^2 - 2 h^2; and of
        # the first, -4 y^3, it makes -4 y^3 - 4 h^2 y, which counts by its square.
        y = jax.random.normal(jax.random.split(jax.random.key(0), 3)[1], (3, 1))[:, 0]
        bias = 2 * (-2 * 0.3**2) + (4 * y**3 + 4 * 0.3**2 * y) ** 2 - (4 * y**3) ** 2
        np.testing.assert_allclose(found - exact, bias, rtol=1e-3, atol=1e-4)


def test_a_gradient_by_differences_is_that_of_forward_mode():
    """Their cosine, at the same directions, for a network in float32."""
    key, sde = jax.random.key(0), sde_lib.VP()
    shapes = {'w': (8, 32), 'v': (32, 8)}
    params = {n: jax.random.normal(key, shape) / 4 for n, shape in shapes.items()}
    x0 = jax.random.normal(jax.random.key(1), (64, 8))

    def gradient(objective):
        def loss(params):
            process = Process(sde, lambda x, t: jnp.tanh(x @ params['w']) @ params['v'] - x)
            return objective(process, key, x0).mean()

        return jnp.concatenate(
            [g.ravel() for g in jax.tree.leaves(jax.jit(jax.grad(loss))(params))]
        )

    for name in ('sliced', 'sliced_vr'):
        exact, found = (gradient(losses.OBJECTIVES[n](t_min=0.01)) for n in (name, f'fd_{name}'))
        cosine = exact @ found / jnp.linalg.norm(exact) / jnp.linalg.norm(found)
        assert cosine > 0.999


def test_denoising_of_an_energy_has_its_least_loss_at_the_known_score():
    """Data N(0, 2.3) and noise 0.5: -x / (2.3 + 0.25) has the loss 2.3 / (0.25 * 2.55), 3.6078, in
    units of the score; by differences of a quadratic energy it is the same.
    """
    sde, tau2 = sde_lib.EDM(), 2.3
    x0 = math.sqrt(tau2) * jax.random.normal(jax.random.key(1), (200_000, 1))

    def loss(name, variance):
        process = parameterization.energy_process(
            sde, lambda x, t: -0.5 * jnp.sum(x**2, axis=1) / variance
        )
        objective = losses.OBJECTIVES[name]('sigma2', 'fixed', 0.5)
        return np.asarray(objective(process, jax.random.key(0), x0)) / 0.25

    least = tau2 / (0.25 * (tau2 + 0.25))
    assert round(least, 4) == 3.6078
    for name in ('denoising', 'fd_denoising'):
        assert_mean(loss(name, tau2 + 0.25), least, 0.01)
        # 15 % off, the loss rises by some of its standard errors.
        others = [loss(name, factor * (tau2 + 0.25)).mean() for factor in (0.85, 1.15)]
        assert loss(name, tau2 + 0.25).mean() < min(others)


def test_a_field_has_no_density_to_denoise():
    process = Process(sde_lib.VP(), lambda x, t: -x)
    with pytest.raises(ArgumentError, match="^objective: 'fd_denoising' is for energies"):
        losses.FDDenoisingScoreMatching().check(process)
    with pytest.raises(ArgumentError, match="^objective: 'fd_denoising' is for energies"):
        losses.FDDenoisingScoreMatching()(process, jax.random.key(0), jnp.zeros((2, 1)))


@pytest.mark.slow
@pytest.mark.parametrize('name', ['fd_sliced', 'fd_denoising'])
def test_training_finds_the_variance_of_normal_data(name):
    """E = x^2 / (2 s^2) at a noise level of 0.1: s^2 is that of the data and the noise, within 2 %.

    Of a million images that count in the last, small steps sqrt(2 / 1e6), 0.1 %, is the standard
    error of a variance; the noise of the objective comes on top.
    """
    sde, tau2 = sde_lib.EDM(), 2.3
    objective = losses.OBJECTIVES[name]('sigma2', 'fixed', 0.1)
    optimizer = optax.adam(optax.cosine_decay_schedule(0.05, 400))

    def mean_loss(log_s2, key):
        process = parameterization.energy_process(
            sde, lambda x, t: -0.5 * jnp.sum(x**2, axis=1) * jnp.exp(-log_s2)
        )
        key_data, key_loss = jax.random.split(key)
        x0 = math.sqrt(tau2) * jax.random.normal(key_data, (8192, 1))
        return objective(process, key_loss, x0).mean()

    def step(carry, key):
        log_s2, opt_state = carry
        updates, opt_state = optimizer.update(jax.grad(mean_loss)(log_s2, key), opt_state)
        return (log_s2 + updates, opt_state), None

    start = jnp.zeros(()), optimizer.init(jnp.zeros(()))
    (log_s2, _), _ = jax.lax.scan(step, start, jax.random.split(jax.random.key(0), 400))
    np.testing.assert_allclose(jnp.exp(log_s2), tau2 + 0.01, rtol=0.02)


# Input


@pytest.mark.parametrize(
    ('sde', 'name'), [(sde_lib.SubVP(), 'levels'), (sde_lib.DDPM(), 'uniform')]
)
def test_levels_and_chains_come_together(sde, name):
    loss = losses.DenoisingScoreMatching(time_sampler=name, t_min=1e-3)
    message = f'^time_sampler: {name!r} does not go with {type(sde).__name__}'
    with pytest.raises(ArgumentError, match=message):
        loss(Process(sde, golden.score_fn), jax.random.key(0), jnp.zeros((2, 1)))


def test_unknown_names_are_refused():
    with pytest.raises(ArgumentError, match='^weighting: .* sigma2, likelihood, reweighted, edm'):
        losses.DenoisingScoreMatching(weighting='snr')
    with pytest.raises(ArgumentError, match="^time_sampler: unknown name 'level'.*'levels'"):
        losses.DenoisingScoreMatching(time_sampler='level')


# Codes that are learned with their prior


CODES = 0.7 * jax.random.normal(jax.random.key(5), (6, 1, 1, 3))
SCALE = jnp.array([0.5, 0.9, 1.3])


def scaled_process(scale, sde=None):
    """Codes whose score is a parameter times that of N(0, I)."""
    sde = sde or sde_lib.VP()
    score = jax.tree_util.Partial(lambda scale, x, t: scale * sde.normal_score(x, t), scale)
    return Process(sde, score)


def gradients(objective, code_weight=1.0):
    """Of the sum over images, in the parameter and in the codes."""

    def total(scale, codes):
        return objective(scaled_process(scale), jax.random.key(7), codes, code_weight).sum()

    return jax.grad(total, (0, 1))(SCALE, CODES)


def by_two_terms(weighting, code_weight, scale, codes):
    """The objective at shared times as it is defined: a residual with parameters that are fixed,
    and one with codes that are.
    """
    sde, fixed = sde_lib.VP(), jax.lax.stop_gradient
    key_t, key_noise = jax.random.split(jax.random.key(7))
    times = losses.CODE_TIMES[weighting](key_t, sde, sde.t_min, len(codes))
    noise = jax.random.normal(key_noise, codes.shape)

    def term(scale, codes, name):
        residual = losses.residual(scaled_process(scale), codes, times.t, noise)
        weight = losses.WEIGHTINGS[name](sde, times.t) * times.inverse_density
        return (sde.T - sde.t_min) * weight * losses.reduce_pixels(residual**2, mean=False)

    of_codes = code_weight * term(fixed(scale), codes, 'likelihood')
    return (of_codes + term(scale, fixed(codes), weighting)).sum()


@pytest.mark.parametrize('weighting', losses.CODE_TIMES)
@pytest.mark.parametrize('code_weight', [1.0, 0.3])
def test_shared_times_route_the_gradients_of_two_terms(weighting, code_weight):
    objective = losses.CodeCrossEntropy(weighting, control_variate=False)
    found = gradients(objective, code_weight)
    expected = jax.grad(lambda *args: by_two_terms(weighting, code_weight, *args), (0, 1))(
        SCALE, CODES
    )
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(b).max())


@pytest.mark.parametrize('importance', [True, False])
def test_with_the_likelihood_weighting_the_objective_is_the_cross_entropy(importance):
    """In its value and in both gradients: algorithm 1."""
    objective = losses.CodeCrossEntropy(importance=importance, control_variate=False)
    name = 'importance' if importance else 'uniform'

    def plain(process, key, codes, code_weight):
        return losses.cross_entropy(process, key, codes, name)

    for a, b in zip(gradients(objective), gradients(plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(b).max())
    key = jax.random.key(7)
    np.testing.assert_allclose(
        objective(scaled_process(SCALE), key, CODES),
        losses.cross_entropy(scaled_process(SCALE), key, CODES, name),
        rtol=1e-5,
    )


@pytest.mark.parametrize('shared', [True, False])
@pytest.mark.parametrize('weighting', losses.CODE_TIMES)
def test_parameters_do_not_feel_the_weight_of_codes(weighting, shared):
    objective = losses.CodeCrossEntropy(weighting, shared)
    (once, codes), (again, other) = (gradients(objective, weight) for weight in (1.0, 0.1))
    np.testing.assert_allclose(again, once, rtol=1e-5)
    np.testing.assert_allclose(other, 0.1 * codes, rtol=1e-4, atol=1e-6)


def test_with_times_of_their_own_codes_do_not_feel_the_weighting():
    found = [gradients(losses.CodeCrossEntropy(name, False)) for name in losses.CODE_TIMES]
    for parameters, codes in found[1:]:
        np.testing.assert_array_equal(codes, found[0][1])
        assert not np.allclose(parameters, found[0][0], rtol=0.05)


@pytest.mark.parametrize('weighting', losses.CODE_TIMES)
@pytest.mark.parametrize('shared', [True, False])
@pytest.mark.parametrize('importance', [True, False])
def test_the_mean_is_the_cross_entropy_whatever_the_prior_is_trained_by(
    weighting, shared, importance
):
    """Of N(0, I), where the score is exact, -log N(z; 0, I) less log(1 + SNR(T)) / 2 a number."""
    sde, num = sde_lib.VP(), 40_000
    codes = jnp.broadcast_to(jnp.array([0.5, -1.0, 2.0]), (num, 1, 1, 3))
    objective = losses.CodeCrossEntropy(weighting, shared, importance, False, t_min=0.01)
    process = Process(sde, jax.tree_util.Partial(sde.normal_score))
    found = np.asarray(objective(process, jax.random.key(0), codes), np.float64)
    x = codes[0].ravel()
    start, end = sde.alpha(jnp.float32(0.01)), jnp.exp(sde.log_snr(jnp.float32(sde.T)))
    # Of codes with the noise of t_min, whose squares have this mean.
    squares = jnp.sum(start**2 * x**2 + 1 - start**2)
    expected = 0.5 * (3 * np.log(2 * np.pi) + squares - 3 * np.log1p(end))
    assert abs(found.mean() - expected) < 4 * found.std() / np.sqrt(num) + 1e-3


@pytest.mark.parametrize('shared', [True, False])
@pytest.mark.parametrize('weighting', losses.CODE_TIMES)
def test_with_the_control_variate_codes_see_no_noise_of_a_normal_score(weighting, shared):
    """In its value and in its gradient, draw by draw; parameters have the same gradient."""
    sde = sde_lib.VP()
    objective = losses.CodeCrossEntropy(weighting, shared)
    plain = dataclasses.replace(objective, control_variate=False)

    def drawn(codes):
        return objective(scaled_process(jnp.ones(3)), jax.random.key(7), codes, 0.3)

    def known(codes):
        integral = losses.normal_integral(sde, codes, sde.t_min)
        return 0.3 * (losses.noise_entropy(sde, sde.t_min, codes) + integral)

    np.testing.assert_allclose(drawn(CODES), known(CODES), rtol=1e-4)
    found, expected = (jax.grad(lambda z, f=f: f(z).sum())(CODES) for f in (drawn, known))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(gradients(objective)[0], gradients(plain)[0], rtol=1e-5)


@pytest.mark.parametrize('shared', [True, False])
def test_the_control_variate_changes_no_mean(shared):
    """Nor of the gradient in the codes, of a score that is not normal; and it has less noise."""
    num, code = 40_000, jnp.array([0.5, -1.0, 2.0])
    process, found = scaled_process(jnp.array([0.9, 1.0, 1.1])), []
    for control in (False, True):
        objective = losses.CodeCrossEntropy(
            shared_times=shared, control_variate=control, t_min=0.01
        )
        codes = jnp.broadcast_to(code, (num, 1, 1, 3))
        slopes = jax.grad(lambda z, o=objective: o(process, jax.random.key(0), z).sum())(codes)
        found.append(np.asarray(slopes, np.float64).reshape(num, 3))
    plain, controlled = found
    error = (controlled - plain).std(axis=0) / np.sqrt(num)
    assert (np.abs((controlled - plain).mean(axis=0)) < 4 * error).all()
    assert (controlled.std(axis=0) < 0.5 * plain.std(axis=0)).all()


def test_an_unknown_weighting_of_codes_is_refused():
    with pytest.raises(ArgumentError, match="^weighting: unknown name 'edm'"):
        losses.CodeCrossEntropy('edm')


def test_groups_are_balanced_by_what_they_say_for_their_size():
    divergence = jnp.array([[3.0, -1.0, 0.0], [5.0, 1.0, 0.0]])
    share = np.array([4.01 / 4, 1.01 / 2, 0.01])
    found = losses.balance(divergence, jnp.array([4.0, 2.0, 1.0]))
    np.testing.assert_allclose(found, share / share.mean(), rtol=1e-5)
