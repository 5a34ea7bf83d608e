"""Bits/dim of a batch of images: what they depend on, what is reported, and what is refused."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import keys
import likelihood
import sde_lib
from choices import ArgumentError
from datasets import quantization
from evaluation import bits_per_dim
from evaluation.bits_per_dim import BitsPerDim, Estimator
from evaluation.quantities import LOWER
from solvers.ode import ODESolver
from tests.support import gaussian

VP = sde_lib.VP()
PROCESS = gaussian.isotropic().process(VP)
KEY = jax.random.key(3)
PIXELS = jnp.asarray(np.random.default_rng(0).integers(0, 256, (11, *gaussian.SHAPE), np.uint8))
EVERYTHING = Estimator(
    centered=True,
    solver=ODESolver('dopri5', rtol=1e-2, atol=1e-2),
    num_probes=2,
    num_dequantizations=2,
    importance_weighted=True,
    variational_draws=2,
    round_trip=True,
)


@functools.cache
def measured(first, last):
    """What is found of these images as one batch."""
    run = jax.jit(functools.partial(EVERYTHING.of_batch, lambda label: PROCESS))
    index = jnp.arange(first, last)
    return jax.device_get(run(KEY, index, PIXELS[first:last], None))


def test_what_is_found_of_an_image_does_not_depend_on_its_batch():
    """Images 3 to 7 are in both; what is drawn for an image is its own."""
    early, late = measured(0, 8), measured(3, 11)
    for name in BitsPerDim._fields:
        of_both = zip(
            *map(jax.tree.leaves, (getattr(early, name), getattr(late, name))), strict=True
        )
        for found, again in of_both:
            np.testing.assert_allclose(found[3:], again[:5], rtol=1e-4, atol=1e-4)
    assert np.ptp(early.by_draw, axis=(1, 2)).min() > 0


def test_the_bits_are_those_of_the_dequantised_image():
    """One draw of one image, from the functions that it is made of."""
    solver = ODESolver('dopri5')
    estimator = Estimator(centered=True, solver=solver, num_probes=2, variational_draws=0)
    index, pixels = jnp.array([5]), PIXELS[:1]
    found = jax.jit(functools.partial(estimator.of_batch, lambda label: PROCESS))(
        KEY, index, pixels, None
    )
    keys_noise, keys_rest = keys.split(keys.fold_in(keys.of_images(KEY, index), 0), 2)
    x = quantization.dequantize_each(keys_noise, pixels, True)
    np.testing.assert_array_equal(quantization.to_uint8(x, True), pixels)
    log_prob = likelihood.log_prob(
        keys.split(keys_rest, 2)[0],
        PROCESS,
        x,
        solver=solver,
        t_min=VP.t_min,
        divergence='rademacher',
        num_probes=2,
    )
    expected = 7 - np.asarray(log_prob.by_probe) / 4 / np.log(2)
    np.testing.assert_allclose(found.by_draw[:, 0], expected, rtol=1e-4)
    assert found.variational is found.importance_weighted is found.round_trip_error is None


def test_images_of_classes_are_measured_by_the_process_of_their_own():
    processes = [gaussian.isotropic(std).process(VP) for std in (0.4, 0.7)]

    def process_of(label):
        def score(x, t):
            return jnp.where(label == 0, processes[0].score(x, t), processes[1].score(x, t))

        return PROCESS.with_score(score)

    estimator = dataclasses.replace(EVERYTHING, round_trip=False, variational_draws=0)
    labels = jnp.array([0, 1, 1, 0])
    found = estimator.of_batch(process_of, KEY, jnp.arange(4), PIXELS[:4], labels)
    for label, process in enumerate(processes):
        alone = estimator.of_images(process, keys.of_images(KEY, jnp.arange(4)), PIXELS[:4])
        own = labels == label
        np.testing.assert_allclose(found.by_draw[own], alone.by_draw[own], rtol=1e-4)


# Reports


def test_a_summary_has_means_with_their_errors():
    found = measured(0, 8)
    quantities = {q.name: q for q in bits_per_dim.summary(found, 'rademacher')}
    bits = quantities['bits_per_dim']
    np.testing.assert_allclose(bits.value, found.by_draw.mean(), rtol=1e-6)
    errors = [quantities[f'bits_per_dim_error_of_{of}'].value for of in PARTS]
    assert np.square(errors).sum() >= bits.standard_error**2 * (1 - 1e-6)
    assert quantities['bits_per_dim_images'].value == 8
    worst = quantities['round_trip_grey_levels_worst_image'].value
    assert 0 < quantities['round_trip_grey_levels'].value <= worst
    for bound in ('importance_weighted', 'variational'):
        assert quantities[f'bits_per_dim_{bound}'].standard_error > 0
        assert quantities[f'bits_per_dim_{bound}'].better == LOWER
    assert bits.better == quantities['bits_per_dim_nfe'].better == LOWER
    values = [(q.value, q.standard_error) for q in quantities.values()]
    json.dumps(values, allow_nan=False, default=float)


PARTS = ('data', 'dequantization', 'probes')


def test_what_is_not_known_or_not_asked_for_is_not_reported():
    """Of one image there is no standard error; of one probe no part of it."""
    found = BitsPerDim(np.full((1, 1, 1), 3.0), np.array([20]))
    quantities = bits_per_dim.summary(found, 'rademacher')
    assert [q.name for q in quantities] == [
        'bits_per_dim',
        'bits_per_dim_images',
        'bits_per_dim_nfe',
    ]
    assert quantities[0].standard_error is None


# What the numbers depend on

OTHER = {
    'centered': False,
    'solver': ODESolver('tsit5', rtol=1e-2, atol=1e-2),
    't_min': 1e-3,
    'divergence': 'gaussian',
    'num_probes': 3,
    'num_dequantizations': 3,
    'importance_weighted': False,
    'variational_draws': 3,
    'round_trip': False,
}


@pytest.mark.parametrize('field', [field.name for field in dataclasses.fields(Estimator)])
def test_the_text_of_an_estimator_changes_with_every_field(field):
    other = dataclasses.replace(EVERYTHING, **{field: OTHER[field]})
    assert repr(other) != repr(EVERYTHING)
    assert repr(dataclasses.replace(other, **{field: getattr(EVERYTHING, field)})) == repr(
        EVERYTHING
    )


@pytest.mark.parametrize(
    ('field', 'value'), [('solver', 'tsit5'), ('rtol', 0.1), ('atol', 0.1), ('per_image', False)]
)
def test_the_text_of_an_estimator_changes_with_every_field_of_its_solver(field, value):
    solver = dataclasses.replace(EVERYTHING.solver, **{field: value})
    assert repr(dataclasses.replace(EVERYTHING, solver=solver)) != repr(EVERYTHING)


# Refusals


@pytest.mark.parametrize(
    ('fields', 'argument', 'message'),
    [
        ({'divergence': 'trace'}, 'divergence', "unknown name 'trace'"),
        ({'solver': ODESolver('euler')}, 'solver', "'euler' estimates no error"),
        ({'num_dequantizations': 1}, 'importance_weighted', 'num_dequantizations is 1'),
        ({'num_probes': 1}, 'importance_weighted', 'num_probes is 2 or more'),
    ],
)
def test_what_is_no_bound_is_refused(fields, argument, message):
    with pytest.raises(ArgumentError, match=f'^{argument}: .*{message}'):
        dataclasses.replace(EVERYTHING, **fields)


def test_the_exact_divergence_needs_one_probe_for_a_bound():
    one = dataclasses.replace(EVERYTHING, num_probes=1, divergence='exact')
    assert (one.num_probes, one.importance_weighted) == (1, True)
