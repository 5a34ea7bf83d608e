"""Latent score models: what each stage trains, the evidence bound, and the whole program."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base, fields
from devices import sharding
from evaluation import quantities
from evaluation.batchwise import Checkpoint
from experiments import kinds, latent_measures
from experiments.score_model import MIXING_LOGIT
from reports import logs
from tests import tiny_latent
from tests.support import networks, program

MESH = sharding.create_mesh()


def make(stage, **training):
    """A config of a stage and its experiment."""
    config = tiny_latent.get_config()
    config.training.stage = stage
    config.training.update(training)
    if stage == 'autoencoder':
        config.training.t_min = None
    return config, kinds.create(config, MESH)


def batch_of(experiment, num=8):
    found = experiment.data('train').gather(np.arange(num))
    return {name: jnp.array(found[name]) for name in ('image', 'label')}


def random_params(experiment):
    abstract = jax.eval_shape(experiment.model.init_params, jax.random.key(0))
    return networks.randomised(abstract)


def by_index(config, model, params, pixels):
    """-log p(x | z) of each image, and its latents, by the keys of an evaluation."""
    image_keys = jax.vmap(jax.random.fold_in, (None, 0))(
        jax.random.key(config.seed), jnp.arange(len(pixels))
    )
    keys_pixels, keys_latents = jax.vmap(lambda key: jax.random.split(key, 4), out_axes=1)(
        image_keys
    )[:2]
    binary = model.of_each(keys_pixels, pixels)

    def noise(i, shape):
        return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, i), shape))(
            keys_latents
        )

    noises = [noise(i, shape) for i, shape in enumerate(model.autoencoder.latent_shapes)]
    latents, features = jax.jit(model.through)(params, binary, noises)
    return -model.distribution.log_prob(features, binary), latents


# What is trained


@pytest.mark.parametrize(
    ('stage', 'frozen'), [('autoencoder', ['prior']), ('prior', ['autoencoder']), ('joint', [])]
)
def test_a_step_changes_what_its_stage_trains(stage, frozen):
    """Even if parameters decay."""
    config, _ = make(stage)
    config.optim.weight_decay = 0.1
    experiment = kinds.create(config, MESH)
    params = random_params(experiment)
    before = experiment._update.init(params)
    after, metrics = jax.jit(experiment.step)(before, batch_of(experiment))
    assert np.isfinite(metrics.loss)
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), before.params, after.params)
    for part, of_part in changed.items():
        assert any(jax.tree.leaves(of_part)) == (part not in frozen), part


def test_all_stages_have_the_same_state():
    """So that one begins with the parameters of another."""
    states = [
        jax.eval_shape(make(stage)[1].init, jax.random.key(0))
        for stage in ('autoencoder', 'prior', 'joint')
    ]
    assert states[0] == states[1] == states[2]


def test_codes_weigh_more_from_step_to_step():
    _, experiment = make('joint', kl_warmup=10, kl_start=0.1)
    state = experiment._update.init(random_params(experiment))
    batch = batch_of(experiment)

    def loss_at(step):
        # The key of a step is of its number: compared are losses of one.
        of_params = experiment._weight(jnp.array(step))
        key = jax.random.key(0)
        return experiment._bound(state.params, key, batch, True, of_params).mean()

    first, middle, last, later = (float(loss_at(step)) for step in (0, 5, 10, 20))
    assert last == later
    np.testing.assert_allclose(middle - first, (0.55 - 0.1) / 0.9 * (last - first), rtol=1e-3)


def tiny_hierarchy():
    """A config whose autoencoder has two groups of codes, and one of a finer size."""
    config = fields.config(base.latent_score_model('residual_mlp'))
    config.data.update({'source': 'digits', 'image_size': (8, 8), 'channels': 1, 'binarize': True})
    config.autoencoder.update(
        {
            'name': 'convolutional',
            'nf': 4,
            'ch_mult': (1, 1),
            'first_halvings': 1,
            'code_channels': 2,
            'groups': 2,
            'finer_groups': (1,),
        }
    )
    config.model.update({'width': 8, 'num_blocks': 1, 'mixing_logit': -100.0})
    config.eval.update({'rtol': 1e-4, 'atol': 1e-4, 'divergence': 'exact'})
    return config


def normal_cross_entropy(process, key, codes, weight):
    """That by N(0, I), without an error."""
    return -weight * jax.scipy.stats.norm.logpdf(codes).sum((1, 2, 3))


def test_latents_of_finer_sizes_are_in_the_bound_of_all_stages():
    """With N(0, I) for the prior of codes, the joint bound is that of the autoencoder."""
    losses = []
    for stage in ('autoencoder', 'joint'):
        config = tiny_hierarchy()
        config.training.stage = stage
        experiment = kinds.create(config, MESH)
        experiment._cross_entropy = normal_cross_entropy
        params, batch = random_params(experiment), batch_of(experiment)
        loss = jax.jit(experiment.loss, static_argnums=3)
        losses.append(loss(params, jax.random.key(0), batch, False))
    np.testing.assert_allclose(*losses, rtol=1e-5)

    params['prior'][MIXING_LOGIT] = jnp.full(4, -100.0)
    evidence = latent_measures.evidence_program(config, experiment.model, MESH)
    found = jax.device_get(evidence.run(params, None, {**batch, 'index': jnp.arange(8)}))
    reconstruction, latents = by_index(config, experiment.model, params, batch['image'])
    divergences = [of_size.divergence().sum(axis=1) for of_size in latents]
    assert np.abs(divergences[1]).min() > 0.1
    np.testing.assert_allclose(found['finer'], divergences[1], rtol=1e-4)
    np.testing.assert_allclose(
        latent_measures.negative_evidence(found), reconstruction + sum(divergences), rtol=1e-4
    )


def test_images_with_finer_latents_are_the_same_in_every_order():
    config = tiny_hierarchy()
    config.sampling.update({'method': 'dpmpp_2m', 'steps': 2})
    experiment = kinds.create(config, MESH)
    draw = networks.quick_jit(experiment.drawing().draw)
    params, key = random_params(experiment), jax.random.key(0)
    images, swapped = (draw(params, key, jnp.array(order)) for order in ([0, 1], [1, 0]))
    np.testing.assert_array_equal(images['pixels'][::-1], swapped['pixels'])
    assert (images['pixels'][0] != images['pixels'][1]).any()


def test_balancing_ends_with_the_warm_up():
    config = tiny_hierarchy()
    config.training.update({'stage': 'autoencoder', 'kl_warmup': 10, 'kl_balancing': True})
    balanced = kinds.create(config, MESH)
    config.training.kl_balancing = False
    plain = kinds.create(config, MESH)
    params, batch, key = random_params(plain), batch_of(plain), jax.random.key(0)
    of_weight = [
        jax.jit(lambda weight, of=of: of._bound(params, key, batch, True, weight))
        for of in (balanced, plain)
    ]
    before, expected = (bound(jnp.float32(0.5)) for bound in of_weight)
    assert np.abs(before - expected).max() > 0.1
    after, expected = (bound(jnp.float32(1.0)) for bound in of_weight)
    np.testing.assert_allclose(after, expected, rtol=1e-5)


def test_the_autoencoder_learns_at_a_rate_of_its_own():
    """Adam's step is in proportion to it."""
    config, plain = make('joint')
    config.training.autoencoder_lr = 0.25
    slower = kinds.create(config, MESH)
    state, batch = plain._update.init(random_params(plain)), batch_of(plain)
    moved, less = (
        jax.tree.map(jnp.subtract, jax.jit(of.step)(state, batch)[0].params, state.params)
        for of in (plain, slower)
    )
    jax.tree.map(np.testing.assert_array_equal, moved['prior'], less['prior'])
    quarter = jax.tree.map(lambda a: 0.25 * a, moved['autoencoder'])
    # Differences of parameters have their rounding, 1e-8, and steps are 1e-4.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-7), less['autoencoder'], quarter
    )


def test_training_adds_the_spectral_penalty_that_an_evaluation_reports(tmp_path):
    weights = {'spectral_autoencoder': 0.25, 'spectral_prior': 0.5}
    config, penalised = make('joint', **weights)
    _, plain = make('joint')
    params = random_params(plain)
    state, batch = plain._update.init(params), batch_of(plain)
    losses = [float(jax.jit(of.step)(state, batch)[1].loss) for of in (plain, penalised)]
    config.eval.update({'bpd': False, 'samplers': ()})
    [measure] = latent_measures.create(config, penalised.model, penalised.data, tmp_path, MESH)
    found = measure(Checkpoint(params, tmp_path, 0)).quantities
    assert [q.name for q in found] == ['spectral_penalty_autoencoder', 'spectral_penalty_prior']
    expected = sum(w * q.value for w, q in zip(weights.values(), found, strict=True))
    np.testing.assert_allclose(losses[1] - losses[0], expected, rtol=1e-3)


def test_of_the_bound_no_warm_up_is_tested():
    config, experiment = make('joint', kl_warmup=10)
    params, batch = random_params(experiment), batch_of(experiment)
    key = jax.random.key(0)
    found = experiment.loss(params, key, batch, False)
    config.training.kl_warmup = 0
    expected = kinds.create(config, MESH).loss(params, key, batch, False)
    np.testing.assert_array_equal(found, expected)


def test_pixels_are_drawn_anew_in_every_step():
    _, experiment = make('joint')
    pixels = batch_of(experiment)['image']
    once, again = (
        experiment.model.augment(jax.random.key(seed), pixels, train=True) for seed in (0, 1)
    )
    assert set(np.unique(once)) == {0, 255}
    assert (once != again).any()


@pytest.mark.parametrize(
    ('autoencoder', 'decoder', 'channels'),
    [
        ('mlp', 'discretised_normal', 3),
        ('convolutional', 'bernoulli', 1),
        ('convolutional', 'discretised_logistic_mixture', 3),
    ],
)
def test_maps_of_codes_have_a_u_net_as_their_prior(autoencoder, decoder, channels):
    config = fields.config(base.latent_score_model('ncsnpp'))
    config.model.update({'nf': 8, 'ch_mult': (1,), 'attn_resolutions': ()})
    config.autoencoder.update({'name': autoencoder, 'decoder': decoder, 'code_channels': 2})
    config.data.update(
        {
            'source': 'digits',
            'image_size': (8, 8),
            'channels': channels,
            'binarize': decoder == 'bernoulli',
        }
    )
    experiment = kinds.create(config, MESH)
    key, batch = jax.random.key(0), experiment.batch_shapes(2)
    state = jax.eval_shape(experiment.init, key)
    _, metrics = jax.eval_shape(experiment.step, state, batch)
    assert metrics.loss.shape == ()
    drawn = jax.eval_shape(experiment.drawing().draw, state.evaluated, key, jnp.arange(2))
    assert drawn['pixels'].shape == (2, 8, 8, channels)


def test_the_autoencoder_multiplies_in_the_precision_of_the_prior():
    config, _ = make('joint')
    config.model.precision = 'highest'
    experiment = kinds.create(config, MESH)
    params = jax.eval_shape(experiment.model.init_params, jax.random.key(0))

    def there_and_back(params, pixels):
        noises = experiment.model.noises(jax.random.key(0), len(pixels))
        return experiment.model.through(params, pixels, noises).features

    pixels = experiment.batch_shapes(2)['image']
    program = str(jax.make_jaxpr(there_and_back)(params, pixels))
    # Of the tiny network two layers on either way.
    assert program.count('dot_general[') == 4
    assert program.count('precision=(Precision.HIGHEST, Precision.HIGHEST)') == 4


# The evidence bound


def evidence(stage, num=24):
    """The terms of the bound of a few images, of codes N(0, I)."""
    config, experiment = make(stage)
    config.eval.rtol = config.eval.atol = 1e-5
    params = random_params(experiment)
    params['prior'][MIXING_LOGIT] = jnp.full(3, -100.0)
    batch = {**batch_of(experiment, num), 'index': jnp.arange(num)}
    by_ode, sampled = (
        program(config, experiment.model, MESH).run(params, None, batch)
        for program in (latent_measures.evidence_program, latent_measures.sampled_program)
    )
    return jax.device_get((by_ode, sampled))


@pytest.mark.parametrize('stage', ['autoencoder', 'joint'])
def test_without_a_share_of_the_network_the_prior_is_normal(stage):
    """So is the bound that of an autoencoder: the ODE stands still, and no draw scatters."""
    found, sampled = evidence(stage)
    config, experiment = make(stage)
    model, params = experiment.model, random_params(experiment)
    pixels = batch_of(experiment, 24)['image']
    reconstruction, (codes,) = by_index(config, model, params, pixels)
    log_normal = jax.scipy.stats.norm.logpdf(codes.z).sum((1, 2, 3))
    np.testing.assert_allclose(found['log_prob'], log_normal, rtol=1e-5)
    np.testing.assert_allclose(found['log_q'], codes.log_q[:, 0], rtol=1e-5)
    np.testing.assert_allclose(found['reconstruction'], reconstruction, rtol=1e-5)
    for name in ('reconstruction', 'log_q'):
        np.testing.assert_array_equal(sampled[name], found[name])
    # -log N(z; 0, I) of codes with the noise of t_min, less what is left of them at T.
    sde, squares = model.codes.sde, jnp.sum(codes.z**2, axis=(1, 2, 3))
    kept, left = jax.nn.sigmoid(sde.log_snr(jnp.array([config.eval.t_min, sde.T])))
    expected = 0.5 * (3 * np.log(2 * np.pi * np.e) + (squares - 3) * (kept - left))
    expected += 1.5 * np.log1p(-left)
    np.testing.assert_allclose(sampled['cross_entropy'], expected, rtol=1e-5)


def test_the_summary_is_in_nats_and_in_bits():
    arrays = {
        'reconstruction': np.array([60.0, 62.0]),
        'log_q': np.array([-10.0, -12.0]),
        'log_prob': np.array([-30.0, -34.0]),
        'nfe': np.array([10, 20]),
    }
    sampled = {
        'reconstruction': np.array([60.0, 62.0, 64.0]),
        'log_q': np.array([-10.0, -12.0, -11.0]),
        'cross_entropy': np.array([30.5, 33.5, 32.0]),
    }
    found = {q.name: q for q in latent_measures.summary(arrays, sampled, dim=64)}
    assert found['nats'].value == 82
    assert found['nats'].standard_error == pytest.approx(2)
    assert found['bits_per_dim'].value == pytest.approx(82 / (64 * np.log(2)))
    assert found['nats_codes_cross_entropy_gap'].value == 0
    assert found['nats_codes_cross_entropy_gap'].standard_error == pytest.approx(0.5)
    assert found['nats_by_sampling'].value == pytest.approx((80.5 + 83.5 + 85) / 3)


# The program


def flags(workdir, mode, *more):
    return '--config=tests/tiny_latent.py', f'--workdir={workdir}', f'--mode={mode}', *more


@pytest.mark.slow
def test_it_is_trained_resumed_evaluated_drawn_and_reported(tmp_path):
    once, again, second = (tmp_path / name for name in ('once', 'again', 'second'))
    # A rate that falls to 0 at another step would be that of another run.
    constant = '--config.optim.cosine_decay=False'
    program.call(*flags(once, 'train', constant))
    for steps in (20, 40):
        program.call(*flags(again, 'train', constant, f'--config.training.num_steps={steps}'))
    rows = logs.read(once / 'logs' / 'metrics.jsonl')
    assert [row['test_loss'] for row in rows if 'test_loss' in row][-1] < 70
    arrays, others = (program.arrays(workdir, 40) for workdir in (once, again))
    for name, array in arrays.items():
        np.testing.assert_array_equal(others[name], array, err_msg=name)

    program.call(*flags(once, 'eval', constant))
    found = {q.label: q for q in quantities.read(once / 'eval' / '40' / 'metrics.json')}
    assert found['bits_per_dim_images'].value == 12
    assert found['nats'].standard_error > 0
    assert {'bits_per_dim', 'nats_codes_cross_entropy_gap', 'dpmpp_2m_nfe'} <= set(found)
    assert found['nats_by_sampling_images'].value == 180
    program.call(*flags(once, 'sample', constant))
    assert list((once / 'samples').glob('*dpmpp_2m*.png'))
    assert 'nats codes cross entropy gap' in (once / 'report.html').read_text()

    # Another stage begins with what this one has made.
    begin = f'--config.training.init_from={once}', '--config.training.stage=prior'
    program.call(*flags(second, 'train', *begin, '--config.training.num_steps=10'))
    arrays, others = program.arrays(once, 40), program.arrays(second, 10)
    kept = [name for name in arrays if 'params' in name and 'autoencoder' in name]
    assert kept
    for name in kept:
        np.testing.assert_array_equal(others[name], arrays[name], err_msg=name)
    assert json.loads((second / 'config.json').read_text())['training']['stage'] == 'prior'
