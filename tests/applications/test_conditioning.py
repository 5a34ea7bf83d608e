"""What conditional samplers promise, made from a config as `main.py` makes them."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import sde_lib
from applications.conditional import conditioning
from applications.conditional.conditioning import Given
from choices import InputError
from configs import base
from datasets import quantization
from datasets.classes import Classes
from experiments import validation
from experiments.classifier import Classifier
from experiments.reading import ImageFormat
from guidance import measurements
from parameterization import Process
from tests.support import counting, gaussian, mixture

VP = sde_lib.VP()
KEY = jax.random.key(0)
SHAPE = (4, 4, 3)
MASK = np.arange(16).reshape(4, 4) % 3 == 0
# The rest of an image is drawn around 0.2.
PRIOR_MEAN, PRIOR_STD = 0.2, 0.5


def exact(sde):
    """Independent pixels."""

    def score(x, t):
        alpha, sigma = (sde_lib.expand(a, x) for a in (sde.alpha(t), sde.sigma(t)))
        return (alpha * PRIOR_MEAN - x) / ((alpha * PRIOR_STD) ** 2 + sigma**2)

    return Process(sde, score)


def model_of(process=None, num_classes=0, shape=SHAPE):
    """A stand-in for a score model."""
    return types.SimpleNamespace(
        sde=VP,
        num_classes=num_classes,
        image_shape=shape,
        process=process or (lambda params, label=None: exact(VP)),
    )


def config_of(**fields):
    """A config for few steps; names with a dot are of other sections."""
    config = base.get_config()
    config.sampling.update({'steps': 8, 't_min': 1e-2, 'rtol': 1e-2, 'atol': 1e-2})
    config.sampling.predictor = 'ancestral'
    config.task.update({'name': 'inpaint', 'samples_each': 2})
    config.update_from_flattened_dict(fields)
    return config


TASKS = {
    'inpaint': measurements.known_pixels(MASK, 3),
    'colourise': measurements.grey(),
    'superresolve': measurements.block_mean(4, 4, 2),
}
# (task.method, sampling.method)
WAYS = [('projection', 'pc'), ('dps', 'pc'), ('pigdm', 'pc'), ('pigdm', 'ode')]
each_way = pytest.mark.parametrize('way', WAYS, ids='-'.join)
PIXELS = np.random.default_rng(0).integers(0, 256, (4, *SHAPE), np.uint8)


def sampler(way, model=None, task='inpaint'):
    """`draw(key, indices)`, of eight images with four measurements."""
    config = config_of(**{'task.method': way[0], 'sampling.method': way[1]})
    a = TASKS[task]
    draw = conditioning.create_measured_sampler(config, model or model_of(), a)
    given = Given(y=a.measure(quantization.to_float(jnp.asarray(PIXELS), True)))
    return jax.jit(lambda key, indices: draw(None, key, indices, given))


@each_way
def test_an_image_is_the_same_alone_and_in_a_batch(way):
    draw = sampler(way)
    together, alone = draw(KEY, jnp.arange(8)), draw(KEY, jnp.array([5]))
    # Step sizes of the ODE follow error estimates, which differ in the last digits.
    np.testing.assert_allclose(alone.x[0], together.x[5], atol=1e-5 if way[1] == 'pc' else 1e-3)
    np.testing.assert_array_equal(alone.nfe[0], together.nfe[5])


@each_way
def test_known_pixels_come_back_to_the_bit_and_others_vary(way):
    drawn = np.asarray(quantization.to_uint8(sampler(way)(KEY, jnp.arange(8)).x, True))
    for i in range(8):
        np.testing.assert_array_equal(drawn[i][MASK], PIXELS[i // 2][MASK])
    assert (drawn[0][~MASK] != drawn[1][~MASK]).mean() > 0.9


@pytest.mark.parametrize('task', ['colourise', 'superresolve'])
def test_means_come_back(task):
    x = sampler(('projection', 'pc'), task=task)(KEY, jnp.arange(8)).x
    original = quantization.to_float(jnp.asarray(PIXELS), True).repeat(2, 0)
    a = TASKS[task]
    np.testing.assert_allclose(a.measure(x), a.measure(original), atol=2e-6)


@each_way
def test_nfe_is_the_number_of_network_calls(way):
    """Counted by a callback in the score, of one image."""
    process, calls = counting.counted(exact(VP))
    model = model_of(lambda params, label=None: process)
    drawn = jax.block_until_ready(sampler(way, model)(KEY, jnp.array([3])))
    assert int(drawn.nfe[0]) == len(calls)


def test_measurements_do_not_depend_on_those_beside_them():
    a, x = TASKS['superresolve'], jax.random.normal(KEY, (4, *SHAPE))
    few, many = (conditioning.observe(a, KEY, x[:n], 0.5) for n in (2, 4))
    np.testing.assert_allclose(few, many[:2], atol=1e-6)
    # Twelve values of each of four images.
    assert abs(float((many - a.measure(x)).std()) - 0.5) < 4 * 0.5 / np.sqrt(2 * 48)


# Classes


class MixtureNetwork(nn.Module):
    """Which component an image x_0 + sigma noise is of, exactly."""

    num_classes: int = 3

    @nn.compact
    def __call__(self, x, sigma):
        data = mixture.example()
        squares = jnp.sum((x[:, None] - data.means) ** 2, axis=-1)
        return -0.5 * squares / (data.std**2 + sigma[:, None] ** 2)


def classifier():
    return Classifier(
        sde=sde_lib.VE(sigma_max=200.0),
        network=MixtureNetwork(),
        format=ImageFormat((2,), centered=True, dequantized=False, random_flip=False),
        t_min=1e-5,
    )


def mixture_model(num_classes=0):
    """The scores of the mixture and of its components."""
    data = mixture.example()

    def process(params, label=None):
        def score(x, t):
            alpha, variance = VP.alpha(t)[:, None], (VP.alpha(t) * data.std) ** 2 + VP.sigma(t) ** 2
            return (alpha * data.means[label] - x) / variance[:, None]

        if label is None or isinstance(label, int):
            return data.process(VP)
        return Process(VP, score)

    return model_of(process, num_classes, (2,))


def drawn_by(guided_by, guidance, num):
    """Images of the three components in turn, without errors of discretisation."""
    config = config_of(
        **{'task.name': 'class', 'task.guidance': guidance, 'training.label_dropout': 0.1}
    )
    config.sampling.update({'method': 'ode', 't_min': 1e-3, 'rtol': 1e-3, 'atol': 1e-3})
    model = mixture_model(3 if guided_by == 'network' else 0)
    judge = classifier() if guided_by == 'classifier' else None
    draw = conditioning.create_class_sampler(config, model, judge, [0, 1, 2])
    given = Given(classifier={} if judge else None)
    return jax.jit(draw)(None, KEY, jnp.arange(num), given).x


def test_a_classifier_draws_each_class_in_turn():
    """With its mean and standard deviation, at a guidance of 1."""
    parts = drawn_by('classifier', 1.0, 600).reshape(200, 3, 2)
    data = mixture.example()
    np.testing.assert_allclose(parts.mean(0), data.means, atol=4.5 * data.std / np.sqrt(200))
    np.testing.assert_allclose(parts.std(0), data.std, rtol=4.5 / np.sqrt(400))


def test_network_and_classifier_draw_the_same_images_at_any_guidance():
    """They have the same score; in float64, for steps by the tolerance multiply what is rounded."""
    with jax.enable_x64(True):
        by_network, by_classifier = (drawn_by(name, 2.0, 30) for name in ('network', 'classifier'))
    np.testing.assert_allclose(by_network, by_classifier, atol=0.02)


def test_guidance_without_a_classifier_takes_two_evaluations():
    nfe = {}
    for guidance in (1.0, 2.0):
        config = config_of(**{'task.name': 'class', 'task.guidance': guidance})
        config.training.label_dropout = 0.1
        draw = conditioning.create_class_sampler(config, mixture_model(3), None, [0])
        nfe[guidance] = int(draw(None, KEY, jnp.arange(1), Given()).nfe[0])
    assert nfe == {1.0: 8, 2.0: 16}


def test_a_classifier_of_one_sde_serves_another():
    """Its earliest time becomes the time with as much noise."""
    ve = classifier()
    vp = ve.under(VP)
    t = jnp.float32(vp.t_min)
    np.testing.assert_allclose(VP.log_snr(t), ve.sde.log_snr(jnp.float32(ve.t_min)), rtol=1e-3)


# Refusals

OF_ANOTHER = {
    'task.factor': 2,
    'task.classifier': 'runs',
    'task.blur_std': 1.0,
    'task.matrix': 'a.npy',
}
OF_MEASURED = {
    'task.images': 'a.png',
    'task.measured': True,
    'task.noise_std': 0.1,
    'task.method': 'dps',
    'task.mask': 'a.png',
}


@pytest.mark.parametrize(
    ('fields', 'word'),
    [
        ({'task.name': 'paint'}, r"task.name: unknown name 'paint' \(did you mean 'inpaint'"),
        ({}, "task.mask: task 'inpaint' needs one"),
        ({'task.name': 'deblur'}, "task.blur_std: task 'deblur' needs one"),
        ({'task.mask': 'a.png', 'task.label': 1}, 'task.label: 1, and the network knows of no'),
        ({'task.mask': 'a.png', 'sampling.batch_mean_norm': True}, 'sampling.batch_mean_norm'),
    ],
)
def test_fields_that_do_not_go_together_are_refused(fields, word):
    with pytest.raises(InputError, match=word):
        conditioning.check_fields(config_of(**fields), model_of())


@pytest.mark.parametrize(
    ('chosen', 'field', 'value'),
    [
        *(('inpaint', field, value) for field, value in OF_ANOTHER.items()),
        *(('class', field, value) for field, value in OF_MEASURED.items()),
        ('none', 'task.label', 1),
    ],
)
def test_what_only_other_tasks_use_is_refused_on_the_command_line(chosen, field, value):
    config = config_of(**{'task.name': chosen, field: value})
    validation.check(config, ['task.name'])
    with pytest.raises(InputError, match=f"^{field}: '{chosen}'.* no such field"):
        validation.check(config, ['task.name', field])


@pytest.mark.parametrize('method', ['dps', 'pigdm'])
def test_projection_has_no_strength(method):
    fields = {'task.guidance': 2.0}
    validation.check(config_of(**fields, **{'task.method': method}), [*fields, 'task.method'])
    with pytest.raises(InputError, match="task.guidance: 'inpaint' and 'projection' have no such"):
        validation.check(config_of(**fields), fields)


@pytest.mark.parametrize(
    ('fields', 'word'),
    [
        ({'task.method': 'replace'}, 'task.method: unknown name'),
        ({'task.noise_std': 0.1}, "task.noise_std: 0.1, and 'projection' takes measurements for"),
        ({'sampling.method': 'ode'}, "task.method: 'projection' needs a sampler with a time grid"),
        ({'task.method': 'dps', 'sampling.method': 'ode'}, "task.method: 'dps' needs a sampler"),
    ],
)
def test_methods_that_cannot_do_it_are_refused(fields, word):
    with pytest.raises(InputError, match=word):
        conditioning.create_measured_sampler(config_of(**fields), model_of(), TASKS['inpaint'])


@pytest.mark.parametrize(
    ('num_classes', 'judge', 'fields', 'word'),
    [
        (0, None, {}, 'task.classifier: a network that knows no classes needs one'),
        (3, None, {'task.guidance': 2.0}, 'task.guidance: 2.0 needs a network that was trained'),
        (3, None, {'task.label': 3}, 'task.label: 3; one of 0 to 2'),
        (0, classifier(), {'task.label': -1}, 'task.label: -1; one of 0 to 2'),
    ],
)
def test_classes_that_do_not_exist_are_refused(num_classes, judge, fields, word):
    config, model = config_of(**{'task.name': 'class', **fields}), mixture_model(num_classes)

    def create():
        existing = conditioning.existing(config, model, judge, Classes())
        return conditioning.create_class_sampler(config, model, judge, existing)

    with pytest.raises(InputError, match=word):
        create()


def test_classes_are_those_that_training_had_images_of():
    known = Classes(('cat', 'dog', 'owl'), (5, 0, 7))
    model = mixture_model(4)

    def existing(label, known):
        config = config_of(**{'task.name': 'class', 'task.label': label})
        return conditioning.existing(config, model, None, known)

    assert existing(None, known) == [0, 2]
    assert existing(2, known) == [2]
    with pytest.raises(InputError, match=r'task.label: 1, and no .* 2 classes: cat \(5\), owl'):
        existing(1, known)
    # Of a workdir that knows nothing of its data.
    assert existing(None, Classes()) == [0, 1, 2, 3]
    np.testing.assert_array_equal(conditioning.in_turn([0, 2])(np.arange(5)), [0, 2, 0, 2, 0])


@pytest.mark.parametrize(
    ('name', 'fields', 'array', 'word'),
    [
        ('inpaint', {'mask': 'm.png'}, np.zeros((4, 4), bool), 'task.mask: m.png is all black'),
        ('inpaint', {'mask': 'm.png'}, np.ones((4, 4), bool), 'task.mask: m.png is all white'),
        ('superresolve', {'factor': 3}, None, 'task.factor: 3; above 1, and a divisor of 4 and 4'),
        ('linear', {'matrix': 'a.npy'}, np.ones((2, 5)), r'\(2, 5\); numbers \[m, 48\] needed'),
    ],
)
def test_measurements_that_make_no_sense_are_refused(name, fields, array, word):
    config = config_of(**{'task.name': name, **{f'task.{k}': v for k, v in fields.items()}})
    with pytest.raises(InputError, match=word):
        conditioning.create_measurement(config.task, SHAPE, array)


def test_grey_images_are_not_coloured():
    with pytest.raises(InputError, match='data.channels: 1, and'):
        conditioning.create_measurement(
            config_of(**{'task.name': 'colourise'}).task, (4, 4, 1), None
        )


def test_gaussians_of_the_other_tests_are_what_they_say():
    """Their exact score is the gradient of their density under noise."""
    data, t = gaussian.correlated(), jnp.full(3, 0.3)
    alpha, sigma = VP.alpha(t[0]), VP.sigma(t[0])
    covariance = alpha**2 * data.covariance + sigma**2 * np.eye(4)
    x = jax.random.normal(KEY, (3, *gaussian.SHAPE))

    def log_density(x):
        centred = x.reshape(3, 4) - alpha * data.mean
        return -0.5 * jnp.sum(centred @ np.linalg.inv(covariance) * centred)

    np.testing.assert_allclose(data.process(VP).score(x, t), jax.grad(log_density)(x), atol=1e-4)
