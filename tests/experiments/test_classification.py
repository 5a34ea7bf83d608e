"""The experiment of classifiers: gradients of networks, what is refused, and the program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import serialization
from ml_collections import ConfigDict

import run_lib
from choices import InputError
from configs import base
from devices import sharding
from evaluation import quantities
from experiments import kinds, run_files, validation
from guidance import classification
from tests import tiny_classifier, tiny_config
from tests.support import networks, program


def test_the_gradient_of_a_network_is_that_of_finite_differences():
    built = kinds.create(tiny_classifier.get_config()).model
    params = networks.init(built.network, (2, *built.image_shape))
    x, t = jax.random.normal(jax.random.key(1), (2, *built.image_shape)), jnp.array([0.3, 0.7])

    def log_prob(x):
        log_probs = built.class_log_probs(params)
        return classification.log_prob(log_probs, jnp.array([0, 2]), x, t)

    direction = networks.quick_jit(jax.grad(lambda x: log_prob(x).sum()))(x)
    length = jnp.sqrt(jnp.sum(direction**2, (1, 2, 3), keepdims=True))
    step = 0.1 * direction / length
    forward, backward = (networks.quick_jit(log_prob)(x + sign * step) for sign in (1, -1))
    # Of shorter steps float32 loses the difference, and longer ones meet more of ReLU's kinks.
    np.testing.assert_allclose((forward - backward) / 0.2, length.ravel(), rtol=0.03)


def test_clean_images_and_each_level_are_scored():
    experiment = kinds.create(tiny_classifier.get_config())
    params = jax.eval_shape(experiment.model.init_params, jax.random.key(0))
    batch = {'image': jnp.zeros((6, 8, 8, 1), jnp.uint8), 'label': jnp.zeros(6, jnp.int32)}
    times = jnp.array([0.0, 0.5, 1.0])
    key = jax.random.key(0)
    found = jax.eval_shape(lambda p: experiment.class_scores(times, p, key, batch), params)
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
        kinds.create(config)


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
    measured = quantities.read(tmp_path / 'eval' / '40' / 'metrics.json')
    found = {(quantity.name, quantity.of): quantity.value for quantity in measured}
    assert found['accuracy', 'clean'] > 0.9
    assert found['accuracy', 't=0.5T'] > 0.4  # Chance is 0.25, with a standard error of 0.06.
    assert found['cross_entropy', 'clean'] < found['cross_entropy', 't=1T']
    assert 0 < found['test_loss', None] < np.log(4) * 1.1
    assert 't=1T_accuracy' in printed
    assert not (tmp_path / 'samples').exists()

    assert program.refusal(*flags, '--mode=sample') == (
        "error: --mode=sample: experiment 'classifier' draws no images"
    )


def test_a_published_classifier_is_its_parameters_alone(tmp_path):
    config = tiny_classifier.get_config()
    mesh = sharding.create_mesh()
    experiment = kinds.create(config, mesh)
    params = networks.init(experiment.model.network, (1, 8, 8, 1))
    # As flax of that time wrote them.
    params['pre-pool-bn'] = {k: v.reshape(1, 1, 1, -1) for k, v in params['pre-pool-bn'].items()}
    (tmp_path / 'classifier').write_bytes(serialization.msgpack_serialize(jax.device_get(params)))
    run_lib.import_checkpoint(config, tmp_path / 'run', tmp_path / 'classifier')
    restored = run_files.restore(config, tmp_path / 'run', experiment, mesh)
    assert restored.step == 0
    for found in (restored.params, restored.evaluated):
        jax.tree.map(
            lambda a, b: np.testing.assert_array_equal(a.ravel(), b.ravel()), found, params
        )
