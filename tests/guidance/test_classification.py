"""Classifiers of noisy images: Bayes' rule, gradients, the objective, and the program."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import serialization
from ml_collections import ConfigDict

import run_lib
import sde_lib
from choices import InputError
from configs import base
from experiments import experiment, validation
from guidance import classification
from tests import tiny_classifier, tiny_config
from tests.support import networks, program

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


def test_the_gradient_of_a_network_is_that_of_finite_differences():
    built = experiment.create_experiment(tiny_classifier.get_config())
    params = networks.init(built.network, (2, *built.image_shape))
    x, t = jax.random.normal(jax.random.key(1), (2, *built.image_shape)), jnp.array([0.3, 0.7])

    def log_prob(x):
        log_probs = built.class_log_probs(params)
        return classification.log_prob(log_probs, jnp.array([0, 2]), x, t)

    direction = networks.quick_jit(jax.grad(lambda x: log_prob(x).sum()))(x)
    length = jnp.sqrt(jnp.sum(direction**2, (1, 2, 3), keepdims=True))
    step = 1e-2 * direction / length
    forward, backward = (networks.quick_jit(log_prob)(x + sign * step) for sign in (1, -1))
    # Float32, and ReLU's kinks.
    np.testing.assert_allclose((forward - backward) / 2e-2, length.ravel(), rtol=0.03)


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


# Experiments


def test_clean_images_and_each_level_are_scored():
    config = tiny_classifier.get_config()
    built = experiment.create_experiment(config)
    params = jax.eval_shape(built.init_params, jax.random.key(0))
    batch = {'image': jnp.zeros((6, 8, 8, 1), jnp.uint8), 'label': jnp.zeros(6, jnp.int32)}
    scores = experiment.create_class_scores(config, built)
    found = jax.eval_shape(lambda p: scores(p, jax.random.key(0), batch), params)
    assert found.correct.shape == found.cross_entropy.shape == (3, 6)


def field_names(config):
    sections = {
        name: fields
        for name, fields in config.items()
        if name not in ('experiment', 'seed', 'model')
    }
    return {f'{section}.{name}' for section, fields in sections.items() for name in fields}


def test_a_classifier_refuses_every_field_that_only_score_models_have():
    only = field_names(base.get_config()) - field_names(base.classifier())
    assert {'sampling.steps', 'task.name', 'training.weighting', 'eval.bpd'} < only
    for field in only:
        config, score = tiny_classifier.get_config(), tiny_config.get_config()
        section, _, name = field.partition('.')
        with config.unlocked():
            if section not in config:
                config[section] = ConfigDict()
            config[section][name] = score[section][name]
        message = f"^{field}: there is no such field of experiment 'classifier'; .*'score_model'"
        with pytest.raises(InputError, match=message):
            validation.check(config)


def create_all(config):
    built = experiment.create_experiment(config)
    return experiment.create_loss(config, built), experiment.create_class_scores(config, built)


@pytest.mark.parametrize(
    ('field', 'value', 'message'),
    [
        ('training.time_sampler', 'levels', 'does not go with VE'),
        ('data.image_size', (10, 8), 'data.image_size: 10x8'),
        ('model.channel_mean', (0.1, 0.2), 'model.channel_mean: .0.1, 0.2., and images have 1'),
    ],
)
def test_what_does_not_go_together_is_refused(field, value, message):
    config = tiny_classifier.get_config()
    section, name = field.split('.')
    config[section][name] = value
    with pytest.raises(InputError, match=message):
        create_all(config)


# The program


def toy_images(num, rng):
    """Class k is bright in the k-th quarter of the image, among noise."""
    labels = rng.integers(0, 4, num)
    images = rng.integers(0, 120, (num, 8, 8, 1))
    for image, label in zip(images, labels, strict=True):
        row, column = divmod(label, 2)
        image[4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 100
    return images.astype(np.uint8), labels


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    """Separable images."""
    rng = np.random.default_rng(0)
    (train, train_labels), (test, test_labels) = toy_images(200, rng), toy_images(50, rng)
    path = tmp_path_factory.mktemp('data') / 'toy.npz'
    arrays = {'train_images': train, 'test_images': test}
    np.savez(path, **arrays, train_labels=train_labels, test_labels=test_labels)
    return f'npz:{path}'


CONFIG = '--config=tests/tiny_classifier.py'


@pytest.mark.slow
def test_a_short_training_beats_chance_on_several_devices(source, tmp_path):
    flags = CONFIG, f'--workdir={tmp_path}', f'--config.data.source={source}'
    for mode in ('train', 'eval'):
        printed = program.succeed(*flags, f'--mode={mode}', devices=2)
    found = json.loads((tmp_path / 'eval' / '40' / 'metrics.json').read_text())
    assert found['accuracy_clean'] > 0.9
    assert found['accuracy_t=0.5T'] > 0.4  # Chance is 0.25, with a standard error of 0.06.
    assert found['cross_entropy_clean'] < found['cross_entropy_t=1T']
    assert 0 < found['test_loss'] < np.log(4) * 1.1
    assert 'accuracy_t=1T' in printed
    assert not (tmp_path / 'samples').exists()

    assert program.refusal(*flags, '--mode=sample') == (
        "error: --mode=sample: 'wideresnet' is a classifier, and draws no images"
    )


def test_data_without_labels_are_refused(source, tmp_path):
    config = tiny_classifier.get_config()
    images = np.load(source.removeprefix('npz:'))['train_images']
    np.savez(tmp_path / 'unlabelled.npz', images=images)
    config.data.source = f'npz:{tmp_path / "unlabelled.npz"}'
    with pytest.raises(InputError, match='has no labels to classify by'):
        run_lib.train(config, tmp_path / 'new')
    config.data.source, config.model.num_classes = source, 3
    with pytest.raises(InputError, match='model.num_classes: 3, and there is a label 3'):
        run_lib.train(config, tmp_path / 'new')
    assert not (tmp_path / 'new').exists()


def test_a_published_classifier_is_its_parameters_alone(tmp_path):
    config = tiny_classifier.get_config()
    built = experiment.create_experiment(config)
    params = networks.init(built.network, (1, *built.image_shape))
    # As flax of that time wrote them.
    params['pre-pool-bn'] = {k: v.reshape(1, 1, 1, -1) for k, v in params['pre-pool-bn'].items()}
    (tmp_path / 'classifier').write_bytes(serialization.msgpack_serialize(jax.device_get(params)))
    run_lib.import_checkpoint(config, tmp_path / 'run', tmp_path / 'classifier')
    mesh = run_lib.sharding.create_mesh()
    restored = run_lib.restore(config, tmp_path / 'run', built, mesh)
    assert restored.step == 0
    for found in (restored.params, restored.ema_params):
        jax.tree.map(
            lambda a, b: np.testing.assert_array_equal(a.ravel(), b.ravel()), found, params
        )
