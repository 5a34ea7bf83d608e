"""Autoencoders: shapes, bounds and densities of codes."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from choices import ArgumentError
from models import vae
from models.vae import AUTOENCODERS, Latents, Posterior
from tests.support import networks

SMALL = {'mlp': {'width': 8}, 'convolutional': {'nf': 4, 'ch_mult': (1, 2)}}


def create(name, **fields):
    fields = {'image_shape': (6, 8, 3), 'num_features': 5} | SMALL[name] | fields
    return AUTOENCODERS[name](code_channels=3, **fields)


def example(network, num=2):
    """Images, noise and parameters of which none is zero."""
    x = jax.random.normal(jax.random.key(1), (num, *network.image_shape))
    noises = [jax.random.normal(jax.random.key(2), (num, *s)) for s in network.latent_shapes]
    abstract = jax.eval_shape(network.init, jax.random.key(0), x, noises)
    return networks.randomised(abstract), x, noises


# A hierarchy of three groups of codes, and of two and one at both finer sizes.
DEEP = {'groups': 3, 'finer_groups': (2, 1), 'ch_mult': (1, 1, 2), 'image_shape': (8, 4, 3)}
CASES = {
    'mlp': ('mlp', {}, [(1, 1, 3)]),
    'a map': ('convolutional', {}, [(3, 4, 3)]),
    'a hierarchy': ('convolutional', DEEP, [(2, 1, 9), (4, 2, 6), (8, 4, 3)]),
    'with a margin': ('convolutional', {'margin': 1, 'first_halvings': 1}, [(2, 2, 3)]),
}
CASES['with a margin'][1]['image_shape'] = (6, 6, 3)


@pytest.mark.parametrize(('name', 'fields', 'shapes'), CASES.values(), ids=CASES)
def test_there_and_back_is_what_the_latents_are_decoded_to(name, fields, shapes):
    """The latents alone say what comes back, whatever q was told on the way."""
    network = create(name, **fields)
    params, x, noises = example(network)
    assert list(network.latent_shapes) == shapes
    latents, features = jax.jit(network.apply)(params, x, noises)
    assert [of_size.z.shape[1:] for of_size in latents] == shapes
    assert tuple(of_size.log_q.shape[1] for of_size in latents) == network.num_groups
    assert features.shape == (2, *network.image_shape[:2], 5)
    decoded = network.apply(params, [of_size.z for of_size in latents], method='decode')
    np.testing.assert_allclose(decoded, features, atol=1e-5)


def test_a_group_depends_on_those_before_it_alone():
    """So the product of their densities is one: its Jacobian is triangular, and its determinant
    that of the standard deviations, which log q says.
    """
    network = create('convolutional', **DEEP)
    params, x, noises = example(network, 1)
    sizes = [math.prod(shape) for shape in network.latent_shapes]

    def in_order(states):
        """The numbers of all groups, one group after the other."""
        parts = network.apply(params, states, method='_split')
        return jnp.concatenate([part.ravel() for part in parts])

    def latents(flat):
        parts = jnp.split(flat, np.cumsum(sizes)[:-1])
        states = [p.reshape(n.shape) for p, n in zip(parts, noises, strict=True)]
        found = network.apply(params, x, states)[0]
        return in_order([of_size.z for of_size in found]), found

    flat = jnp.concatenate([noise.ravel() for noise in noises])
    jacobian, found = jax.jit(jax.jacfwd(latents, has_aux=True))(flat)
    # Its columns in the order of groups too.
    columns = in_order(
        [
            jnp.arange(start, start + size, dtype=float).reshape(noise.shape)
            for start, size, noise in zip(np.cumsum([0, *sizes]), sizes, noises, strict=False)
        ]
    )
    jacobian = np.asarray(jacobian, np.float64)[:, np.asarray(columns, int)]
    np.testing.assert_allclose(np.triu(jacobian, 1), 0, atol=1e-6)
    assert np.abs(np.tril(jacobian, -1)).max() > 1e-3
    log_q = sum(float(of_size.log_q.sum()) for of_size in found)
    of_noise = jax.scipy.stats.norm.logpdf(flat).sum()
    expected = of_noise - np.log(np.abs(np.diag(jacobian))).sum()
    np.testing.assert_allclose(log_q, expected, rtol=1e-4)


def test_the_divergence_of_a_group_is_that_of_its_channels():
    z = jax.random.normal(jax.random.key(0), (2, 3, 4, 6))
    log_q = jnp.array([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]])
    each = jax.scipy.stats.norm.logpdf(z).sum((1, 2))
    expected = log_q - jnp.stack([each[:, i : i + 2].sum(1) for i in (0, 2, 4)], 1)
    np.testing.assert_allclose(Latents(z, log_q).divergence(), expected, rtol=1e-4)


def test_what_lies_in_the_margin_is_never_seen():
    """As if images were larger, and their border zero."""
    narrow = create('convolutional', margin=1, image_shape=(6, 6, 3))
    wide = create('convolutional', image_shape=(8, 8, 3))
    params, x, noises = example(narrow)
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    (found,), features = narrow.apply(params, x, noises)
    (expected,), wider = wide.apply(params, padded, noises)
    np.testing.assert_array_equal(found.z, expected.z)
    np.testing.assert_array_equal(features, wider[:, 1:-1, 1:-1])


@pytest.mark.parametrize(
    ('fields', 'refusal'),
    [
        ({'ch_mult': (1, 1, 1)}, '^image_size: 6x8, the margin included, cannot be halved 2'),
        ({'finer_groups': (1, 1)}, '^finer_groups: .* 2 sizes, the last one that of codes'),
    ],
)
def test_sizes_that_there_are_not_are_refused(fields, refusal):
    with pytest.raises(ArgumentError, match=refusal):
        assert create('convolutional', **fields).latent_shapes


def test_heads_are_bounded_and_hardly_changed_near_zero():
    heads = jnp.array([[-1e6, 0.1, 1e6, -0.1]])
    found = vae.bounded(heads)
    np.testing.assert_allclose(found.mean, [[-5, 0.1]], rtol=1e-3)
    np.testing.assert_allclose(found.log_std, [[5, -0.1]], rtol=1e-3)


def test_densities_of_samples_have_the_closed_form_divergence_in_the_mean():
    """KL(N(m, s^2) || N(0, I)) is the sum of (m^2 + s^2 - 1) / 2 - log s."""
    num = 200_000
    key_codes, key_noise = jax.random.split(jax.random.key(0))
    mean, log_std = jax.random.normal(key_codes, (2, 1, 1, 1, 3))
    codes = Posterior(*(jnp.broadcast_to(a, (num, 1, 1, 3)) for a in (mean, log_std)))
    noise = jax.random.normal(key_noise, (num, 1, 1, 3))
    prior = jax.scipy.stats.norm.logpdf(codes.sample(noise)).sum(axis=(1, 2, 3))
    found = np.asarray(codes.log_prob_of(noise) - prior, np.float64)
    expected = np.sum(0.5 * (mean**2 + np.exp(2 * log_std) - 1) - log_std)
    assert abs(found.mean() - expected) < 4 * found.std() / np.sqrt(num)


def test_the_density_of_a_sample_is_that_of_scipy():
    codes = Posterior(*jax.random.normal(jax.random.key(0), (2, 4, 1, 1, 3)))
    noise = jax.random.normal(jax.random.key(1), codes.mean.shape)
    each = jax.scipy.stats.norm.logpdf(codes.sample(noise), codes.mean, jnp.exp(codes.log_std))
    np.testing.assert_allclose(codes.log_prob_of(noise), each.sum(axis=(1, 2, 3)), rtol=1e-4)
