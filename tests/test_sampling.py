"""Solvers against the published steps, exact scores, and each other."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import keys
import sde_lib
from parameterization import Process
from sampling import GridSampler, ProbabilityFlow
from solvers import correctors, grids, predictors
from solvers.correctors import AnnealedLangevin, Langevin
from solvers.grid_solver import PredictorCorrector
from solvers.grids import TimeGrid
from solvers.ode import ODESolver
from tests.support import counting, golden, mixture

# The published steps


class PublishedVP(sde_lib.VP):
    """The continuous sigma beside the chain's transitions: the published annealed Langevin."""

    def transition(self, s, t):
        level = jnp.floor(t * 999)
        return sde_lib.DDPM().transition(level / 1000, (level + 1) / 1000)


class PublishedSubVP(sde_lib.SubVP):
    """Transitions by Euler-Maruyama, the published discretisation of sub-VP."""

    def transition(self, s, t):
        return 1 + self.f(t) * (t - s), self.diffusion(t) * jnp.sqrt(t - s)


VP, SUBVP, VE = PublishedVP(), PublishedSubVP(), sde_lib.VE()
DDPM, SMLD = sde_lib.DDPM(), sde_lib.SMLD()


@pytest.mark.parametrize(
    ('recorded', 'step', 'sde'),
    [
        ('vp/euler_maruyama', predictors.EulerMaruyama(), VP),
        ('subvp/euler_maruyama', predictors.EulerMaruyama(), SUBVP),
        ('ve/euler_maruyama', predictors.EulerMaruyama(), VE),
        ('vp/reverse_diffusion', predictors.ReverseDiffusion(), DDPM),
        ('subvp/reverse_diffusion', predictors.ReverseDiffusion(), SUBVP),
        ('ve/reverse_diffusion', predictors.ReverseDiffusion(), SMLD),
        ('vp/ancestral_sampling', predictors.AncestralFixedLarge(), DDPM),
        ('ve/ancestral_sampling', predictors.Ancestral(), SMLD),
        ('vp/langevin', Langevin(batch_mean=True), DDPM),
        ('ve/langevin', Langevin(batch_mean=True), SMLD),
        ('vp/ald', AnnealedLangevin(), VP),
        ('ve/ald', AnnealedLangevin(), VE),
    ],
)
def test_steps_agree_with_the_published(recorded, step, sde):
    data = golden.load('steps')
    x, t = jnp.asarray(data['x']), jnp.asarray(data['t'])
    level = jnp.floor(t * 999)
    is_chain = isinstance(sde, sde_lib.Chain)
    after, before = ((level + 1) / 1000, level / 1000) if is_chain else (t, t - 1 / 1000)
    noise = jnp.asarray(data['predictor_noise'])
    if isinstance(step, Langevin | AnnealedLangevin):
        step, noise = dataclasses.replace(step, snr=float(data['snr'])), data['corrector_noise']
    process = Process(sde, lambda x, _: golden.score_fn(x, t))
    found = step(process, jnp.asarray(noise), x, after, before)
    for key in ('x', 'x_mean'):
        expected = data[f'{recorded}/{key}']
        # VE's noise has a scale of 6 at t = 1, of which the published difference of squares loses
        # one part in 1e5: the recording itself is that far from the same formula in float64.
        atol = max(golden.ATOL, 1e-6 * np.abs(expected).max())
        np.testing.assert_allclose(getattr(found, key), expected, rtol=golden.RTOL, atol=atol)


# Samplers on a mixture with known scores


def on_grid(*parts, steps=400, t_min=1e-3, **fields):
    """A sampler by predictor and corrector."""
    solver, grid = PredictorCorrector(*parts), TimeGrid(steps, 'log_snr')
    return GridSampler(solver, grid=grid, t_min=t_min, **fields)


def draw(sampler, process, num, dim=2, seed=0):
    """Samples of one compiled program."""
    image_keys = keys.per_image(jax.random.key(seed), num)
    return jax.jit(lambda image_keys: sampler(image_keys, process, (dim,)))(image_keys)


def assert_is_distributed_as(x, data, name=''):
    """Means, covariances and the shares of components agree within five standard errors and 2 %."""
    truth = np.asarray(data.sample(jax.random.key(99), 200_000))
    num = len(x)
    scale = np.sqrt(np.trace(np.cov(truth.T)))
    np.testing.assert_allclose(
        x.mean(axis=0), truth.mean(axis=0), atol=5 * scale / np.sqrt(num), err_msg=name
    )
    np.testing.assert_allclose(
        np.cov(x.T), np.cov(truth.T), atol=scale**2 * (5 / np.sqrt(num) + 0.02), err_msg=name
    )
    nearest = np.argmin(np.linalg.norm(np.asarray(x)[:, None] - data.means, axis=-1), axis=1)
    expected = np.argmin(np.linalg.norm(truth[:, None] - data.means, axis=-1), axis=1)
    for part in range(len(data.means)):
        share = np.mean(expected == part)
        assert abs(np.mean(nearest == part) - share) < 5 * np.sqrt(share / num) + 0.01, name


LINEAR = [sde for name, sde in sde_lib.SDES.items() if name != 'geometric']


@pytest.mark.parametrize('sde', [cls() for cls in LINEAR], ids=lambda sde: type(sde).__name__)
@pytest.mark.parametrize('predictor', ['reverse_diffusion', 'ancestral'])
def test_predictors_draw_from_the_mixture_on_every_sde(sde, predictor):
    data = mixture.example()
    sampler = on_grid(predictors.PREDICTORS[predictor](), t_min=max(1e-3 * sde.T, sde.t_min))
    drawn = draw(sampler, data.process(sde), 4000)
    assert_is_distributed_as(drawn.x, data)


@pytest.mark.parametrize('name', ['vp', 'subvp', 've'])
def test_euler_maruyama_draws_from_the_mixture(name):
    data, sde = mixture.example(), sde_lib.create(name)
    sampler = on_grid(predictors.EulerMaruyama(), steps=1000)
    drawn = draw(sampler, data.process(sde), 4000)
    assert_is_distributed_as(drawn.x, data)


@pytest.mark.parametrize('corrector', ['langevin', 'annealed_langevin'])
@pytest.mark.parametrize('name', ['vp', 'subvp', 've'])
def test_correctors_keep_the_marginals(name, corrector):
    """200 small Langevin steps at one time leave samples of p_t distributed as p_t.

    In 64 dimensions: step sizes from each image's norms vary with its state in few dimensions.
    """
    data, sde, t = mixture.example(64), sde_lib.create(name), 0.4
    step, process = correctors.CORRECTORS[corrector](snr=0.03), data.process(sde)
    key_data, key_noise, key_chain = jax.random.split(jax.random.key(0), 3)
    times = jnp.full(2000, t)
    noise = jax.random.normal(key_noise, (2000, 64))
    start = sde.perturb(data.sample(key_data, 2000), times, noise)

    def advance(x, key):
        noise = jax.random.normal(key, x.shape)
        return step(process, noise, x, times, times - 1e-3).x, None

    x, _ = jax.jit(lambda x: jax.lax.scan(advance, x, jax.random.split(key_chain, 200)))(start)
    # Standard error of the total variance: under 1 %. Step sizes in proportion to |noise|^2 add
    # noise of 2 / 64 = 3 % more variance.
    np.testing.assert_allclose(x.var(axis=0).sum(), start.var(axis=0).sum(), rtol=0.05)
    np.testing.assert_allclose(x.mean(axis=0), start.mean(axis=0), atol=0.15)
    assert np.abs(x - start).mean() > 0.1  # They did move.


@pytest.mark.parametrize('name', [name for name in sde_lib.SDES if name not in ('ddpm', 'smld')])
def test_probability_flow_draws_from_the_mixture_on_every_sde(name):
    data, sde = mixture.example(), sde_lib.create(name)
    solver = ODESolver(rtol=1e-3, atol=1e-3)
    sampler = ProbabilityFlow(solver, t_min=max(1e-3, sde.t_min), denoise=False)
    assert_is_distributed_as(draw(sampler, data.process(sde), 4000).x, data)


def test_without_noise_ancestral_sampling_solves_the_probability_flow():
    """DDIM (eta = 0) converges to the ODE's solution from the same prior sample, at order 1."""
    process = mixture.example().process(sde_lib.VP())
    flow = ProbabilityFlow(ODESolver(rtol=1e-6, atol=1e-6), t_min=1e-3, denoise=False)
    exact = draw(flow, process, 64).x

    def error(steps):
        sampler = on_grid(predictors.DDIM(), steps=steps, denoise=False)
        return np.abs(draw(sampler, process, 64).x - exact).mean()

    order = np.log2(error(100) / error(200))
    assert abs(order - 1) < 0.25


# What every sampler promises


LANGEVIN = Langevin(snr=0.1)
SAMPLERS = {
    'pc': on_grid(predictors.ReverseDiffusion(), LANGEVIN, 2, steps=20),
    'ode': ProbabilityFlow(ODESolver(rtol=1e-4, atol=1e-4), t_min=1e-3, denoise=False),
}


@pytest.mark.parametrize('name', SAMPLERS)
def test_a_sample_does_not_depend_on_its_batch(name):
    process = mixture.example().process(sde_lib.VP())
    alone = draw(SAMPLERS[name], process, 1)
    together = draw(SAMPLERS[name], process, 8)
    # Rounding differs between the two programs, and moves adaptive steps within their tolerance.
    atol = 1e-5 if name == 'pc' else 3e-4
    np.testing.assert_allclose(alone.x[0], together.x[0], atol=atol)


@pytest.mark.parametrize(
    ('sampler', 'expected'),
    [
        (on_grid(predictors.Ancestral(), steps=20), 20),
        (SAMPLERS['pc'], 60),
        (on_grid(None, LANGEVIN, steps=20), 20),
        *[
            (ProbabilityFlow(ODESolver(solver, 1e-4, 1e-4), t_min=1e-3, denoise=denoise), None)
            for solver in ('heun', 'bosh3', 'tsit5', 'dopri5', 'dopri8')
            for denoise in (False, True)
        ],
    ],
)
def test_nfe_is_the_number_of_network_calls(sampler, expected):
    """Counted by a callback in the score, for one image: a batch runs until its slowest is done."""
    process, calls = counting.counted(mixture.example().process(sde_lib.VP()))
    drawn = jax.block_until_ready(draw(sampler, process, 1))
    assert int(drawn.nfe[0]) == len(calls)
    assert expected in (None, len(calls))


def test_many_corrections_are_no_larger_a_program_than_one():
    calls = []

    def score_fn(x, t):
        calls.append(1)
        return -x

    sampler, process = on_grid(None, LANGEVIN, 100, steps=20), Process(sde_lib.VP(), score_fn)
    drawn = jax.eval_shape(
        lambda image_keys: sampler(image_keys, process, (2,)),
        keys.per_image(jax.random.key(0), 1),
    )
    assert drawn.x.shape == (1, 2)
    assert len(calls) <= 3  # JAX traces the body of a loop more than once.


def test_a_trajectory_leads_from_the_prior_to_the_samples():
    sde, process = sde_lib.VE(), mixture.example().process(sde_lib.VE())
    sampler = on_grid(predictors.Ancestral(), steps=10, denoise=False)
    drawn = draw(dataclasses.replace(sampler, trajectory=True), process, 3)
    assert drawn.trajectory.shape == (11, 3, 2)
    np.testing.assert_array_equal(drawn.trajectory[-1], drawn.x)
    prior = sde.prior_std * keys.normal(keys.per_image(jax.random.key(0), 3), 0, (2,))
    np.testing.assert_allclose(drawn.trajectory[0], prior, rtol=1e-6)
    assert draw(sampler, process, 3).trajectory is None


def test_at_zero_temperature_all_samples_are_one():
    process = mixture.example().process(sde_lib.VP())
    # Langevin's step is in proportion to the norm of the noise: none.
    drawn = draw(dataclasses.replace(SAMPLERS['pc'], temperature=0.0), process, 4)
    np.testing.assert_allclose(drawn.x, np.broadcast_to(drawn.x[:1], (4, 2)), atol=1e-6)


@pytest.mark.parametrize('name', ['log_snr', 'karras', 'uniform'])
def test_grids_of_a_chain_are_levels(name):
    sde = sde_lib.DDPM()
    times = TimeGrid(200, name).times(sde, sde.t_min)
    np.testing.assert_allclose(times * 1000, np.round(times * 1000), atol=1e-3)
    assert (np.diff(times) < 0).all()
    np.testing.assert_array_equal(times[jnp.array([0, -1])], jnp.array([sde.T, sde.t_min]))


@pytest.mark.parametrize('grid', grids.TIME_GRIDS.values())
@pytest.mark.parametrize('name', ['vp', 've', 'edm', 'cosine'])
def test_grids_fall_from_the_end_to_t_min(name, grid):
    sde = sde_lib.create(name)
    t_min = max(1e-3, sde.t_min)
    times = grid(sde, 50, sde.T, t_min)
    assert times.shape == (51,)
    np.testing.assert_array_equal(times[jnp.array([0, -1])], jnp.array([sde.T, t_min]))
    assert (np.diff(times) < 0).all()


def test_karras_grid_is_that_of_edm():
    sde = sde_lib.EDM()
    i = np.arange(18)
    ends = 80 ** (1 / 7), 0.002 ** (1 / 7)
    expected = (ends[0] + i / 17 * (ends[1] - ends[0])) ** 7
    np.testing.assert_allclose(grids.karras_grid(sde, 17, 80.0, 0.002), expected, rtol=1e-4)
