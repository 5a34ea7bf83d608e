"""The training step: optimiser, moving average, determinism."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

import training

FIELDS = {'beta1': 0.9, 'beta2': 0.999, 'eps': 1e-8, 'weight_decay': 0.0, 'grad_clip': 1.0}


def rates(lr=1.0, warmup=0, decay_steps=0, num=12):
    """The rates of the first steps: Adam's updates of a constant gradient are -rate."""
    optimizer = training.create_adam(lr, warmup, decay_steps, **FIELDS)
    params = jnp.zeros(())
    state, updates = optimizer.init(params), []
    for _ in range(num):
        update, state = optimizer.update(jnp.ones(()), state, params, grad_norm=1.0)
        updates.append(-float(update))
    return np.array(updates)


def test_the_rate_is_constant_without_warm_up_and_decay():
    np.testing.assert_allclose(rates(), 1.0, rtol=1e-4)


def test_warm_up_is_linear():
    expected = np.minimum(np.arange(1, 13) / 5, 1)
    np.testing.assert_allclose(rates(warmup=5), expected, rtol=1e-4)


def test_cosine_decay_ends_at_zero():
    found = rates(warmup=2, decay_steps=10, num=12)
    expected = 0.5 * (1 + np.cos(np.pi * np.arange(9) / 8))
    np.testing.assert_allclose(found[2:11], expected, atol=1e-5)
    np.testing.assert_allclose(found[10:], 0.0, atol=1e-6)


def test_the_first_step_of_either_optimiser_is_the_rate_and_decay_is_decoupled():
    """Of Adam and Adamax the first mean over the first size is the sign of the gradient."""
    for name in ('adam', 'adamax'):
        optimizer = training.OPTIMIZERS[name](0.5, 0, 0, **{**FIELDS, 'weight_decay': 0.1})
        params = jnp.array([4.0, -2.0])
        gradient = jnp.array([0.3, -0.2])
        update, state = optimizer.update(gradient, optimizer.init(params), params, grad_norm=0.5)
        np.testing.assert_allclose(update, -0.5 * np.sign(gradient) - 0.05 * params, rtol=1e-4)
        # Then the root of a mean of squares falls, and a maximum that decays falls more slowly.
        small, _ = optimizer.update(0.5 * gradient, state, 0 * params, grad_norm=0.5)
        mean = (0.9 * 0.1 + 0.1 * 0.5) / (1 - 0.9**2)
        squares = (0.999 * 0.001 + 0.001 * 0.25) / (1 - 0.999**2)
        size = {'adam': squares**0.5, 'adamax': 0.999}[name]
        np.testing.assert_allclose(small, -0.5 * mean / size * np.sign(gradient), rtol=1e-3)


def test_drops_multiply_the_rate():
    schedule = training.rates(1.0, 2, 0, drop_at=(4, 6), drop=0.1)
    found = [float(schedule(count)) for count in range(8)]
    np.testing.assert_allclose(found, [0.5, 1, 1, 1, 0.1, 0.1, 0.01, 0.01], rtol=1e-5)


@pytest.mark.parametrize('substeps', [1, 4])
def test_substeps_of_sgd_have_the_rates_of_the_step_whose_place_they_take(substeps):
    """Weight decay is part of the gradient."""
    schedule = {'lr': 0.5, 'warmup': 2, 'decay_steps': 6, 'drop_at': (4,), 'drop': 0.1}
    optimizer = training.create_sgd(**schedule, weight_decay=0.1, grad_clip=0.0, substeps=substeps)
    params, gradient = jnp.float32(2), jnp.float32(3)
    state, moved = optimizer.init(params), []
    for _ in range(6 * substeps):
        update, state = optimizer.update(gradient, state, params, grad_norm=1.0)
        moved.append(float(update))
    rates = [float(training.rates(**schedule)(count)) for count in range(6)]
    expected = np.repeat(rates, substeps) / substeps * -(3 + 0.1 * 2)
    np.testing.assert_allclose(moved, expected, rtol=1e-5)


def test_gradients_are_clipped_by_their_global_norm():
    optimizer = training.create_adam(1.0, 0, 0, **{**FIELDS, 'eps': 1e3})
    params = {'a': jnp.zeros(3), 'b': jnp.zeros(4)}
    grads = jax.tree.map(lambda p: jnp.full_like(p, 100.0), params)
    norm = optax.tree.norm(grads)
    updates, _ = optimizer.update(grads, optimizer.init(params), params, grad_norm=norm)
    # With a huge eps Adam's first update is -gradient / eps.
    np.testing.assert_allclose(optax.tree.norm(updates), 1.0 / 1e3, rtol=1e-2)


def quadratic(warmup=False):
    """A step of descent to a noisy batch, and the state before the first."""
    averages = {training.EMA: training.MovingAverage(0.9, warmup)}
    update = training.Update(optax.sgd(0.1), averages, seed=3)

    def loss(params, key, batch):
        return 0.5 * jnp.sum((params - batch - jax.random.normal(key, params.shape)) ** 2)

    return functools.partial(update.step, loss), update.init(jnp.zeros(2))


def test_a_step_uses_the_key_of_its_number():
    step, state = quadratic()
    for k in range(3):
        noise = jax.random.normal(jax.random.fold_in(jax.random.key(3), k), (2,))
        expected = state.params - 0.1 * (state.params - noise)
        state, _ = step(state, jnp.zeros(2))
        np.testing.assert_allclose(state.params, expected, rtol=1e-6)
        assert state.step == k + 1


@pytest.mark.parametrize('warmup', [False, True])
def test_the_moving_average_decays_by_its_rate(warmup):
    step, state = quadratic(warmup)
    for k in range(4):
        rate = min(0.9, (1 + k) / (10 + k)) if warmup else 0.9
        before = state.evaluated
        state, _ = step(state, jnp.ones(2))
        expected = rate * before + (1 - rate) * state.params
        np.testing.assert_allclose(state.evaluated, expected, rtol=1e-5)


def test_averages_of_several_rates_go_side_by_side():
    """Each is what it would be alone, and parameters are the same with any."""

    def after(averages):
        update = training.Update(optax.sgd(0.1), averages, seed=3)
        state = update.init(jnp.ones(2))
        for _ in range(3):
            state, _ = update.step(lambda params, *_: jnp.sum(params**2), state, None)
        return state

    averages = {name: training.MovingAverage(rate) for name, rate in (('a', 0.5), ('b', 0.9))}
    together = after(averages)
    for name, average in averages.items():
        alone = after({name: average})
        np.testing.assert_array_equal(together.averages[name], alone.averages[name])
        np.testing.assert_array_equal(together.params, alone.params)
    assert (together.averages['a'] < together.averages['b']).all()


def test_scanned_steps_are_single_steps():
    step, state = quadratic()
    batches = jnp.arange(10.0).reshape(5, 2)
    together, metrics = jax.jit(functools.partial(training.run_steps, step))(state, batches)
    for batch in batches:
        state, _ = jax.jit(step)(state, batch)
    np.testing.assert_allclose(together.params, state.params, rtol=1e-6)
    np.testing.assert_allclose(together.evaluated, state.evaluated, rtol=1e-6)
    assert metrics.loss.shape == (5,)


# Numbers that are not finite


def treacherous():
    """A step whose batches say by what loss and gradient are multiplied, and what is added to the
    loss; and the state before the first.
    """
    optimizer = training.create_adam(0.1, 2, 9, **FIELDS)
    update = training.Update(optimizer, {training.EMA: training.MovingAverage(0.9)}, seed=3)

    def loss(params, key, batch):
        return batch[0] * jnp.sum((params - 1) ** 2) + lax.stop_gradient(batch[1])

    return functools.partial(update.step, loss), update.init(jnp.arange(3.0))


GOOD, NAN_LOSS, INFINITE_GRADIENT = [1.0, 0.0], [1.0, jnp.nan], [jnp.inf, 0.0]
HUGE_GRADIENT = [1e30, 0.0]  # Its norm is infinite.


@pytest.mark.parametrize('bad', [NAN_LOSS, INFINITE_GRADIENT, HUGE_GRADIENT])
def test_a_step_that_is_not_finite_changes_nothing_but_the_count(bad):
    step, state = treacherous()
    state, _ = jax.jit(step)(state, jnp.array(GOOD))
    after, metrics = jax.jit(step)(state, jnp.array(bad))
    assert (after.step, after.skipped, metrics.skipped) == (2, 1, 1)
    for name in ('params', 'opt_state', 'averages'):
        kept, before = (jax.tree.leaves(getattr(s, name)) for s in (after, state))
        for a, b in zip(kept, before, strict=True):
            np.testing.assert_array_equal(a, b, err_msg=name)


@pytest.mark.parametrize('sizes', [(8,), (1,) * 8, (3, 5)])
def test_skipped_updates_in_a_row_are_counted_across_dispatches(sizes):
    step, state = treacherous()
    batches = jnp.array([NAN_LOSS, GOOD, *[NAN_LOSS] * 3, INFINITE_GRADIENT, GOOD, NAN_LOSS])
    counts, start, run = [], 0, jax.jit(functools.partial(training.run_steps, step))
    for size in sizes:
        state, metrics = run(state, batches[start : start + size])
        counts += metrics.skipped.tolist()
        start += size
    assert counts == [1, 0, 1, 2, 3, 4, 0, 1]
    assert state.skipped == 1
