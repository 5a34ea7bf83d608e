"""Products and negations of Gaussian energies, against their closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import keys
import sampling
import sde_lib
from choices import ArgumentError
from guidance import composition
from parameterization import Process, energy_process
from sde_lib import expand

SDE = sde_lib.VP()


def gaussian(mean, std, sde=SDE):
    """The energy of data N(mean, std^2 I), each time without its normaliser."""

    def log_density(x, t):
        variance = (sde.alpha(t) * std) ** 2 + sde.sigma(t) ** 2
        residual = x - expand(sde.alpha(t), x) * jnp.asarray(mean)
        return -0.5 * jnp.sum(residual**2, axis=1) / variance

    return energy_process(sde, log_density)


ONE, OTHER = gaussian([1.0, 0.0], 0.5), gaussian([-0.5, 1.0], 1.0)
CASES = {'product': [1.0, 1.0], 'negation': [1.0, -0.5]}


def closed_form(weights):
    """Mean and variance of the composition of the data's laws."""
    precisions = np.array(weights) / np.array([0.5, 1.0]) ** 2
    means = np.array([[1.0, 0.0], [-0.5, 1.0]])
    return (precisions[:, None] * means).sum(0) / precisions.sum(), 1 / precisions.sum()


def draw(process, num, **fields):
    sampler = sampling.create('pc', spacing='log_snr', predictor='ancestral', **fields)
    image_keys = keys.per_image(jax.random.key(0), num)
    return np.asarray(jax.jit(lambda image_keys: sampler(image_keys, process, (2,)).x)(image_keys))


def errors(x, mean, variance):
    """Of mean and variance, in standard errors."""
    num = len(x)
    of_mean = (x.mean(0) - mean) / np.sqrt(variance / num)
    of_variance = (x.var(0) / variance - 1) / np.sqrt(2 / num)
    return np.concatenate([of_mean, of_variance])


@pytest.mark.parametrize('name', CASES)
def test_scores_and_densities_add_up_with_their_weights(name):
    weights, t = CASES[name], jnp.array([0.1, 0.5, 0.9])
    x = jax.random.normal(jax.random.key(1), (3, 2))
    composed = composition.compose([ONE, OTHER], weights)
    for function in ('score', 'log_density'):
        of_one, of_other = (getattr(process, function)(x, t) for process in (ONE, OTHER))
        expected = weights[0] * of_one + weights[1] * of_other
        np.testing.assert_allclose(getattr(composed, function)(x, t), expected, rtol=1e-5)


@pytest.mark.parametrize('name', CASES)
def test_metropolis_steps_lead_to_the_composition_and_the_reverse_sde_does_not(name):
    process, truth = composition.compose([ONE, OTHER], CASES[name]), closed_form(CASES[name])
    num = 4000
    plain = draw(process, num, steps=100)
    assert np.abs(errors(plain, *truth)).max() > 10
    corrected = draw(process, num, steps=100, corrector='mala', corrector_steps=6, snr=0.5)
    # The last predictor step is a hundredth of all, and takes the composition for its own.
    assert np.abs(errors(corrected, *truth)).max() < 5


def test_what_has_no_density_or_another_sde_is_refused():
    with pytest.raises(ArgumentError, match='^processes: not all have a log density'):
        composition.compose([ONE, Process(SDE, lambda x, t: -x)], [1, 1])
    with pytest.raises(ArgumentError, match='^processes: of different SDEs'):
        composition.compose([ONE, gaussian([0.0, 0.0], 1.0, sde_lib.SubVP())], [1, 1])
    with pytest.raises(ArgumentError, match='^weights: 1 for 2 processes'):
        composition.compose([ONE, OTHER], [1])
