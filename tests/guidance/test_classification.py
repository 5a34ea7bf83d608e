"""Classifiers of noisy images: Bayes' rule and the objective."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sde_lib
from guidance import classification

LINEAR = [sde_lib.SDES[name]() for name in sde_lib.SDES if name not in ('ddpm', 'smld')]
MEANS = 0.5 * jax.random.normal(jax.random.key(3), (3, 4))


def nearest_mean(x, sigma):
    """Logits of the means, in equal parts, under noise: the best network, up to a constant."""
    squares = jnp.sum((x[:, None] - MEANS) ** 2, -1)
    return -0.5 * squares / sigma[:, None] ** 2


def name_of(sde):
    return type(sde).__name__


# Probabilities


@pytest.mark.parametrize('sde', LINEAR, ids=name_of)
def test_the_gradient_turns_the_score_into_that_of_a_class(sde):
    """grad log p(x_t) + grad log p(y | x_t) = grad log p(x_t | y), for any linear SDE."""
    t, y = jnp.linspace(0.3, 0.9, 6) * sde.T, jnp.arange(6) % 3
    noise = jax.random.normal(jax.random.key(1), (6, 4))
    alpha, sigma = sde.alpha(t)[:, None], sde.sigma(t)[:, None]
    x = sde.perturb(MEANS[y], t, noise)

    def log_density(x):
        squares = jnp.sum((x[:, None] - alpha[:, :, None] * MEANS) ** 2, -1)
        return jax.scipy.special.logsumexp(-0.5 * squares / sigma**2, axis=1)

    log_probs = classification.class_log_probs(sde, nearest_mean, 0.0)
    score = jax.grad(lambda x: log_density(x).sum())(x)
    guide = jax.grad(lambda x: classification.log_prob(log_probs, y, x, t).sum())(x)
    expected = -(x - alpha * MEANS[y]) / sigma**2
    # Two terms of which large parts may cancel.
    scale = np.abs(score).max() + np.abs(expected).max()
    np.testing.assert_allclose(score + guide, expected, atol=1e-4 * scale, rtol=1e-3)
    assert np.abs(guide).max() > 1e-3 * scale


def test_class_probabilities_are_those_of_bayes_rule():
    sde, t = sde_lib.VP(), jnp.full(50, 0.4)
    x = jax.random.normal(jax.random.key(2), (50, 4))
    log_probs = classification.class_log_probs(sde, nearest_mean, 0.0)(x, t)
    joint = np.exp(
        -0.5 * ((x[:, None] - sde.alpha(t[0]) * MEANS) ** 2).sum(-1) / sde.sigma(t[0]) ** 2
    )
    np.testing.assert_allclose(np.exp(log_probs), joint / joint.sum(1, keepdims=True), rtol=1e-3)


def test_images_of_less_noise_than_in_training_are_told_the_least_of_it():
    told = []

    def network(x, sigma):
        told.append(sigma)
        return x

    sde, x = sde_lib.VP(), jnp.ones((3, 2))
    log_probs = classification.class_log_probs(sde, network, 0.1)(x, jnp.array([0.0, 0.05, 0.4]))
    expected = jnp.exp(-0.5 * sde.log_snr(jnp.array([0.1, 0.1, 0.4])))
    np.testing.assert_allclose(told[0], expected, rtol=1e-6)
    assert np.isfinite(log_probs).all()


# The objective


def draws(time_sampler, num=20_000):
    """The loss of the best network, which grows with t."""
    sde = sde_lib.VP()
    y = jnp.arange(num) % 3
    log_probs = classification.class_log_probs(sde, nearest_mean, 0.0)
    cross_entropy = classification.CrossEntropy(time_sampler, t_min=1e-2)
    return cross_entropy(log_probs, sde, jax.random.key(0), MEANS[y], y)


def test_proposals_of_times_do_not_change_the_mean():
    expected = draws('uniform')
    for name in ('stratified', 'importance', 'log_snr'):
        found = draws(name)
        error = np.hypot(*(a.std() / np.sqrt(len(a)) for a in (expected, found)))
        assert abs(found.mean() - expected.mean()) < 4 * error, name


def test_the_loss_is_that_of_guessing_if_logits_say_nothing():
    log_probs = classification.class_log_probs(
        sde_lib.VP(), lambda x, sigma: jnp.ones((len(x), 7)), 0.0
    )
    cross_entropy = classification.CrossEntropy('uniform', t_min=0.0)
    found = cross_entropy(
        log_probs, sde_lib.VP(), jax.random.key(0), jnp.zeros((5, 2)), jnp.arange(5)
    )
    np.testing.assert_allclose(found, np.log(7), rtol=1e-6)


def test_scores_count_the_most_probable_class():
    def log_probs(x, t):
        return jax.nn.log_softmax(x)

    x = jnp.log(jnp.array([[0.7, 0.2, 0.1], [0.3, 0.3001, 0.3999]]))
    found = classification.scores(log_probs, jnp.array([0, 1]), x, jnp.ones(2))
    np.testing.assert_array_equal(found.correct, [True, False])
    np.testing.assert_allclose(found.cross_entropy, -np.log([0.7, 0.3001]), rtol=1e-5)
