"""Times of an objective: their densities in closed form, and what importance sampling is for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import losses
import sde_lib
import time_sampling
from parameterization import Process

KEY = jax.random.key(0)
LINEAR = [sde_lib.SDES[name]() for name in sde_lib.SDES if name not in ('ddpm', 'smld')]
# The proposal of each weighting.
PROPOSALS = {
    'likelihood': 'importance',
    'sigma2': 'importance_sigma2',
    'reweighted': 'importance_reweighted',
}


def name_of(sde):
    return type(sde).__name__


@pytest.mark.parametrize('sampler', ['stratified', *PROPOSALS.values(), 'log_snr'])
@pytest.mark.parametrize('sde', LINEAR, ids=name_of)
def test_the_stated_density_of_times_is_the_true_one(sde, sampler):
    """Of n sorted stratified times, neighbours are 1 / (n density) apart."""
    num, t_min = 8192, max(1e-3, sde.t_min)
    t, inverse_density = time_sampling.TIME_SAMPLERS[sampler](jax.random.key(0), sde, t_min, num)
    order = np.argsort(t)
    t, inverse_density = np.asarray(t)[order], np.asarray(inverse_density)[order]
    assert t[0] >= t_min
    assert t[-1] <= sde.T
    # Over 32 neighbours float32's rounding of t is small against their distance; the density
    # changes little over them, but for the few at the ends, which are far apart.
    spacing = (t[32:] - t[:-32]) * num / 32 / (sde.T - t_min)
    middle = inverse_density[16:-16]
    np.testing.assert_allclose(spacing[128:-128], middle[128:-128], rtol=0.02)


def test_uniform_times_are_uniform():
    drawn = time_sampling.uniform(jax.random.key(0), sde_lib.VP(), 1e-5, 10_000)
    # Standard error of the mean 0.0029, of the variance 0.00075.
    assert abs(drawn.t.mean() - 0.5) < 4 * 0.0029
    assert abs(drawn.t.var() - 1 / 12) < 4 * 0.00075


@pytest.mark.parametrize('sde', LINEAR, ids=name_of)
def test_importance_makes_the_likelihood_weighting_constant_on_normal_data(sde):
    """For N(0, I) data and the exact score, E |residual|^2 = sigmoid(log_snr)."""
    drawn = time_sampling.importance(jax.random.key(0), sde, max(1e-3, sde.t_min), 1024)
    expected_square = jax.nn.sigmoid(sde.log_snr(drawn.t))
    values = losses.likelihood(sde, drawn.t) * drawn.inverse_density * expected_square
    np.testing.assert_allclose(values, values.mean(), rtol=2e-3)


def test_stratified_times_visit_every_stratum_once():
    drawn = time_sampling.stratified(jax.random.key(3), sde_lib.VP(), 1e-5, 100)
    np.testing.assert_array_equal(np.floor(np.asarray(drawn.t) * 100), np.arange(100))


# Importance sampling


def drawn(sde, weighting, t_min, num, key=KEY):
    """Times of the proposal for a weighting, of this weight / (2 p), and E |residual|^2 there."""
    times = time_sampling.TIME_SAMPLERS[PROPOSALS[weighting]](key, sde, t_min, num)
    density = times.inverse_density * (sde.T - t_min)
    weight = 0.5 * losses.WEIGHTINGS[weighting](sde, times.t) * density
    return times.t, weight, jax.nn.sigmoid(sde.log_snr(times.t))


def quadrature(sde, integrand, t_min):
    """The integral from t_min to T, in float64 by Gauss-Legendre in log(t)."""
    nodes, weights = np.polynomial.legendre.leggauss(40)
    edges = np.linspace(np.log(t_min), np.log(sde.T), 33)
    half = 0.5 * np.diff(edges)[:, None]
    t = jnp.asarray(np.exp(edges[:-1, None] + half * (1 + nodes)).reshape(-1))
    return float((np.asarray(t * integrand(t)).reshape(32, -1) * half * weights).sum())


EXACT = [
    *[('likelihood', sde) for sde in LINEAR],
    ('sigma2', sde_lib.VP()),
    ('sigma2', sde_lib.VE()),
    *[
        ('reweighted', sde)
        for sde in (sde_lib.VP(), sde_lib.CosineVP(), sde_lib.VE(), sde_lib.EDM())
    ],
]


@pytest.mark.parametrize(('weighting', 'sde'), EXACT, ids=str)
def test_closed_forms_make_the_loss_of_normal_data_constant(weighting, sde):
    """And equal to its integral, since the proposal is normalised."""
    with jax.enable_x64(True):
        t_min = max(1e-3, sde.t_min)
        _, weight, square = drawn(sde, weighting, t_min, 1024)
        values = weight * square
        expected = 0.5 * quadrature(
            sde,
            lambda t: losses.WEIGHTINGS[weighting](sde, t) * jax.nn.sigmoid(sde.log_snr(t)),
            t_min,
        )
    np.testing.assert_allclose(values, expected, rtol=1e-6)


@pytest.mark.parametrize('weighting', PROPOSALS)
@pytest.mark.parametrize('sde', LINEAR, ids=name_of)
def test_every_proposal_makes_it_nearly_constant_in_float32(sde, weighting):
    """Tables have cells in which the density changes by 1 %."""
    _, weight, square = drawn(sde, weighting, sde.t_min, 1024)
    values = np.asarray(weight * square)
    np.testing.assert_allclose(values, values.mean(), rtol=0.03)
    assert values.std() < 6e-3 * values.mean()


@pytest.mark.parametrize('weighting', PROPOSALS)
@pytest.mark.parametrize('sde', LINEAR, ids=name_of)
def test_a_proposal_does_not_change_the_mean_over_times(sde, weighting):
    """Of squared residuals of data of standard deviations 0.5, 1 and 2, against quadrature."""
    t_min, num = max(1e-3, sde.t_min), 20_000
    with jax.enable_x64(True):
        t, weight, _ = drawn(sde, weighting, t_min, num)
        for std in (0.5, 1.0, 2.0):
            loss = lambda t, std=std: jax.nn.sigmoid(sde.log_snr(t) + 2 * np.log(std))  # noqa: E731
            expected = 0.5 * quadrature(
                sde, lambda t, loss=loss: losses.WEIGHTINGS[weighting](sde, t) * loss(t), t_min
            )
            # Tables are exact too: strata leave less than a thousandth.
            np.testing.assert_allclose((weight * loss(t)).mean(), expected, rtol=1e-3)


def test_the_normaliser_of_vp_is_known():
    """Z = int_0.01^1 alpha^2 dt = 0.2660037, by quadrature; Vahdat et al.'s code has 0.2666."""
    t_min = 0.01
    _, weight, square = drawn(sde_lib.VP(), 'sigma2', t_min, 64)
    np.testing.assert_allclose(2 * weight * square, 0.2660037, rtol=2e-5)


def test_of_the_geometric_sde_uniform_times_are_the_proposal_for_the_likelihood():
    sde, num = sde_lib.GeometricVP(), 1000
    t = np.sort(drawn(sde, 'likelihood', 1e-5, num)[0])
    # But for sigma_min^2 = 3e-5 in alpha^2 + sigma^2, and rounding.
    np.testing.assert_allclose(np.diff(t), 1 / num, rtol=2e-2)
    assert abs(t.mean() - 0.5) < 1 / num


@pytest.mark.parametrize('weighting', PROPOSALS)
def test_tables_agree_with_closed_forms(weighting, monkeypatch):
    sde, t_min = sde_lib.VP(), 1e-3
    weight = {
        'likelihood': lambda t: losses.likelihood(sde, t),
        'sigma2': jnp.ones_like,
        'reweighted': lambda t: losses.reweighted(sde, t),
    }[weighting]
    found = time_sampling._tabulated(weight, KEY, sde, t_min, 1000)
    expected = time_sampling.TIME_SAMPLERS[PROPOSALS[weighting]](KEY, sde, t_min, 1000)
    np.testing.assert_allclose(found.t, expected.t, rtol=5e-3)
    np.testing.assert_allclose(found.inverse_density, expected.inverse_density, rtol=0.02)


@pytest.mark.parametrize(
    'sde',
    [
        *LINEAR,
        sde_lib.VP(0.1, 200.0),
        sde_lib.VP(5.0, 5.001),
        sde_lib.CosineVP(-40.0, 40.0),
        sde_lib.EDM(1e-6, 1e6),
    ],
    ids=str,
)
@pytest.mark.parametrize('weighting', PROPOSALS)
def test_all_draws_are_usable_however_the_schedule_ends(sde, weighting, monkeypatch):
    """Also those at the ends, and next to them, that float32 has: one of so large a weight, once in
    millions of draws, would ruin a run.
    """
    ulp = 2.0**-24
    fractions = jnp.array([0, ulp**2, ulp, 0.5, 1 - 2 * ulp, 1 - ulp])
    monkeypatch.setattr(time_sampling, '_strata', lambda key, num: fractions)
    t, weight, square = drawn(sde, weighting, sde.t_min, len(fractions))
    assert (t >= sde.t_min).all()
    assert (t <= sde.T).all()
    np.testing.assert_allclose(weight * square, (weight * square)[3], rtol=0.05)


def test_strata_stay_below_one(monkeypatch):
    """At 1 itself the density may be zero."""
    monkeypatch.setattr(jax.random, 'uniform', lambda key: jnp.float32(1 - 2**-24))
    assert time_sampling._strata(KEY, 128).max() < 1


@pytest.mark.parametrize('weighting', PROPOSALS)
def test_uniform_and_importance_sampling_have_one_mean(weighting):
    """The objective's, at t_min = 0.01: a factor 1 - t_min that one of them lacked would show."""
    sde = sde_lib.VP()
    x0 = jax.random.normal(jax.random.key(1), (400_000, 8))
    # The score of N(0, 0.25) for data N(0, 1).
    process = Process(sde, lambda x, t: -x / (1 - 0.75 * sde.alpha(t)[:, None] ** 2))
    uniform, proposed = (
        losses.DenoisingScoreMatching(weighting, sampler, 0.01)(process, KEY, x0).mean()
        for sampler in ('stratified', PROPOSALS[weighting])
    )
    # The noise of 3,200,000 squares leaves about 0.1 %.
    np.testing.assert_allclose(proposed, uniform, rtol=3e-3)


def test_a_learned_schedule_draws_from_a_table():
    """Of arrays it is not known whether erf will do."""
    sde = jax.tree.map(jnp.float32, sde_lib.VP())
    found = time_sampling.importance_sigma2(KEY, sde, 1e-3, 100)
    expected = time_sampling.importance_sigma2(KEY, sde_lib.VP(), 1e-3, 100)
    np.testing.assert_allclose(found.t, expected.t, rtol=5e-3)
