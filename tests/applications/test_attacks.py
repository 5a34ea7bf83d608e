"""Attacks on classifiers of which the worst images are known, and what a defence is worth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import keys
from applications.purification import attacks, robustness
from applications.purification.attacks import APGD, PGD
from applications.purification.robustness import Defence
from choices import ArgumentError

SHAPE = (2, 3, 1)
NUM = 6
KEYS = keys.per_image(jax.random.key(0), NUM)
RADIUS = jnp.full(NUM, 0.25)
WEIGHTS = jax.random.normal(jax.random.key(1), (6, 2))
X = jax.random.uniform(jax.random.key(2), (NUM, *SHAPE), minval=-0.7, maxval=0.7)
LABELS = jnp.array([0, 1, 0, 1, 0, 1])
KINDS = {'pgd': PGD, 'apgd': APGD}


def linear(x):
    return x.reshape(len(x), -1) @ WEIGHTS


def identity(image_keys, x):
    return x


def curved(x):
    """Logits with bends, of which no step is the best one."""
    return jnp.sin(3 * linear(x)) + linear(jnp.tanh(2 * x))


def shifted(image_keys, x):
    """A random purifier whose derivative is the identity."""
    return x + 0.1 * keys.normal(image_keys, 0, x.shape[1:])


def worst(norm):
    """The images in the ball where a linear classifier is most wrong; no pixel is near 1."""
    slope = (1 - 2 * LABELS)[:, None] * (WEIGHTS[:, 1] - WEIGHTS[:, 0])
    if norm == 'linf':
        step = jnp.sign(slope)
    else:
        step = slope / jnp.linalg.norm(slope, axis=1, keepdims=True)
    return X + 0.25 * step.reshape(X.shape)


@pytest.mark.parametrize('norm', attacks.NORMS)
@pytest.mark.parametrize('kind', KINDS)
def test_a_linear_classifier_is_brought_to_its_worst_image(kind, norm):
    loss = attacks.blind(linear, identity, LABELS)
    found = KINDS[kind](norm=norm, steps=30)(KEYS, loss, X, RADIUS)
    # On a sphere the last steps, 0.02 long, turn around the best point.
    np.testing.assert_allclose(found, worst(norm), atol={'linf': 1e-5, 'l2': 0.05}[norm])


@pytest.mark.parametrize('norm', attacks.NORMS)
@pytest.mark.parametrize('kind', KINDS)
def test_attacked_images_are_images_of_the_ball(kind, norm):
    x = jnp.clip(2 * X, -1, 1)
    attack = KINDS[kind](norm=norm, steps=7, restarts=2)
    found = attack(KEYS, attacks.blind(curved, identity, LABELS), x, RADIUS)
    assert np.abs(found).max() <= 1
    away = np.asarray(found - x).reshape(NUM, -1)
    size = np.abs(away).max(1) if norm == 'linf' else np.linalg.norm(away, axis=1)
    assert np.all(size <= 0.25 * (1 + 1e-5))
    assert np.all(size > 0.1)


def test_pixels_at_the_ends_of_their_range_are_attacked():
    """Clipping is no part of what is differentiated: black and white have a gradient."""
    x = jnp.sign(X)
    found = PGD(steps=10)(KEYS, attacks.blind(linear, identity, LABELS), x, RADIUS)
    wanted = jnp.clip(x + worst('linf') - X, -1, 1)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert np.mean(np.abs(found - x) > 0.2) > 0.3


def test_images_that_are_wrong_already_are_attacked_on():
    """What is counted are images as the attack leaves them, of all."""
    wrong = linear(X).argmin(1)
    found = PGD(steps=10)(KEYS, attacks.blind(linear, identity, wrong), X, RADIUS)
    assert np.all(np.abs(found - X).max((1, 2, 3)) > 0.24)


def test_each_image_has_its_own_radius_and_its_own_key():
    loss, radius = attacks.blind(curved, identity, LABELS), jnp.linspace(0.0, 0.25, NUM)
    attack = jax.jit(lambda k, x, r: PGD(steps=3)(k, loss, x, r))
    found = attack(KEYS, X, radius)
    np.testing.assert_allclose(np.abs(found - X).max((1, 2, 3)), radius, atol=1e-6, rtol=0.05)

    own = attacks.blind(curved, identity, LABELS[3:4])
    alone = PGD(steps=3)(KEYS[3:4], own, X[3:4], radius[3:4])
    np.testing.assert_allclose(found[3:4], alone, atol=1e-6)


def test_restarts_keep_the_best_start():
    loss = attacks.blind(curved, identity, LABELS)
    one, many = (PGD(steps=3, restarts=n)(KEYS, loss, X, 2 * RADIUS) for n in (1, 8))
    before, after = (loss(KEYS, x) for x in (one, many))
    assert np.all(after >= before - 1e-6)
    assert np.any(after > before + 1e-3)


def test_apgd_looks_at_its_steps_as_published():
    """Of 100 steps: Croce and Hein 2020, section 3.3."""
    looks = APGD(steps=100).looks()
    np.testing.assert_array_equal(np.flatnonzero(looks), [22, 41, 57, 70, 80, 87, 93, 99])
    np.testing.assert_array_equal(np.cumsum(looks)[looks > 0], np.flatnonzero(looks))


def test_apgd_climbs_higher_than_steps_of_one_length():
    """Its steps are as short in the end as a curved loss needs them, and it returns the best."""
    loss = attacks.blind(curved, identity, LABELS)
    by = {kind: KINDS[kind](norm='l2', steps=40)(KEYS, loss, X, RADIUS) for kind in KINDS}
    losses = {kind: loss(KEYS, x) for kind, x in by.items()}
    assert np.mean(losses['apgd']) > np.mean(losses['pgd']) - 1e-4


# Expectations over draws


def test_the_variance_of_a_gradient_falls_with_the_draws():
    """As 1 / draws: 200 images of one kind, and a standard error of a tenth."""
    image_keys, x = keys.per_image(jax.random.key(3), 400), jnp.zeros((400, 1))

    def loss(image_keys, x):
        return jnp.sum(keys.normal(image_keys, 0, (1,)) * x, axis=1)

    variances = [
        np.var(attacks.expected(loss, draws, image_keys, x).gradient) for draws in (1, 4, 16)
    ]
    np.testing.assert_allclose(variances, [1, 1 / 4, 1 / 16], rtol=4 * np.sqrt(2 / 400))


def test_the_identity_for_a_derivative_is_right_of_what_only_adds():
    found = [
        attacks.expected(kind(curved, shifted, LABELS), 3, KEYS, X)
        for kind in (attacks.bpda, attacks.full)
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), *found)


def test_the_identity_for_a_derivative_is_wrong_of_what_turns_around():
    def turned(image_keys, x):
        return -x

    slopes = [
        attacks.expected(kind(linear, turned, LABELS), 1, KEYS, X).gradient
        for kind in (attacks.bpda, attacks.full)
    ]
    np.testing.assert_allclose(slopes[0], -slopes[1], atol=1e-6)


# What a defence is worth


def test_no_defence_is_worth_the_same_under_all_attacks():
    """An attack that returns clean images, or that stops at what is wrong, would be seen here."""
    defence = Defence(curved, identity)

    def score(knows):
        attack = PGD(steps=8, draws=1 if knows == 'blind' else 3)
        x = robustness.attacked(KEYS, defence, attack, knows, X, LABELS, RADIUS)
        return x, robustness.judge(KEYS, defence, x, LABELS, 3)

    by = {knows: score(knows) for knows in attacks.LOSSES}
    for knows in ('bpda', 'full'):
        np.testing.assert_allclose(by[knows][0], by['blind'][0], atol=1e-5)
    accuracies = {knows: found.by_mean.mean() for knows, (_, found) in by.items()}
    clean = robustness.judge(KEYS, defence, X, LABELS, 1).by_mean.mean()
    assert len(set(map(float, accuracies.values()))) == 1
    assert accuracies['full'] < clean


def test_a_verdict_is_of_all_runs():
    """A defence that answers at random: one run is right half of the time, and ten never are."""
    image_keys = keys.per_image(jax.random.key(4), 400)
    labels = jnp.zeros(400, jnp.int32)

    def classify(x):
        return jnp.stack([x[:, 0], jnp.zeros(len(x))], axis=1)

    def purify(image_keys, x):
        return keys.normal(image_keys, 0, (1,)) + 0.5 * x

    found = robustness.judge(image_keys, Defence(classify, purify), jnp.ones((400, 1)), labels, 10)
    # P(z > -0.5) = 0.691 and its tenth power; P(mean of ten > -0.5) = 0.943. Four standard errors.
    assert abs(found.single.mean() - 0.691) < 4 * np.sqrt(0.691 * 0.309 / 4000)
    assert abs(found.always.mean() - 0.691**10) < 4 * np.sqrt(0.025 / 400)
    assert abs(found.by_mean.mean() - 0.943) < 4 * np.sqrt(0.943 * 0.057 / 400)


def test_attackers_who_know_something_else_are_refused():
    with pytest.raises(ArgumentError, match="knows: unknown name 'grey'; known: blind, bpda, full"):
        robustness.attacked(KEYS, Defence(linear, identity), PGD(), 'grey', X, LABELS, RADIUS)
    with pytest.raises(ArgumentError, match="norm: unknown name 'l1'; known: linf, l2"):
        PGD(norm='l1')
