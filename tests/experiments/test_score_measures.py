"""What `eval` finds of score models: how it follows from config.eval, and what is found again."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import run_lib
from choices import InputError
from configs import base
from configs.fields import flat
from devices import sharding
from evaluation.batchwise import Checkpoint
from evaluation.extractors import Network
from experiments import kinds, score_measures
from tests import tiny_classifier, tiny_config
from tests.support import random_run

MESH = sharding.create_mesh()


def make(**fields):
    """A config with these fields of `eval`, and its experiment."""
    config = tiny_config.get_config()
    config.model.nf = 4
    config.eval.update(fields)
    return config, kinds.create(config, MESH)


@functools.cache
def noisy_params():
    """Parameters for a network whose output is not zero."""
    params = jax.jit(make()[1].model.init_params)(jax.random.key(0))
    return jax.tree.map(lambda a: a + 0.1 * jnp.cos(jnp.arange(a.size).reshape(a.shape)), params)


# Bits per dimension


@pytest.mark.slow
def test_every_image_counts_when_the_batch_size_does_not_divide(tmp_path):
    """Images 8 to 10 are those of a batch from 3 on: what is drawn for an image is its own."""
    config, experiment = make(num_bpd_images=11, batch_size=8, variational_draws=2)
    data, params = experiment.data('test'), noisy_params()
    program = score_measures.bits_per_dim_program(config, experiment.model, MESH)
    parts = [
        program.run(params, jax.random.key(1), {**data.gather(index), 'index': index})
        for index in (np.arange(8), np.arange(3, 11))
    ]
    measure = score_measures.bits_per_dim_measure(config, experiment.model, data, MESH)
    found = {q.name: q for q in measure(Checkpoint(params, tmp_path, 0)).quantities}
    arrays = np.load(tmp_path / 'bits_per_dim.npz')
    assert found['bits_per_dim_images'].value == 11
    for name in parts[0]:
        expected = np.concatenate([parts[0][name], parts[1][name][5:]])
        np.testing.assert_allclose(arrays[name], expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(arrays['bits_per_dim'], arrays['by_draw'].mean((1, 2)), rtol=1e-6)
    np.testing.assert_allclose(found['bits_per_dim'].value, arrays['by_draw'].mean(), rtol=1e-6)


@pytest.mark.slow
def test_networks_of_classes_are_given_those_of_the_images():
    config, _ = make(num_dequantizations=2, num_probes=2, importance_weighted=True)
    config.model.num_classes = 10
    model = kinds.create(config).model
    params = jax.eval_shape(model.init_params, jax.random.key(0))
    program = score_measures.bits_per_dim_program(config, model, MESH)
    found = jax.eval_shape(program.run, params, jax.random.key(0), program.batch)
    assert found['by_draw'].shape == (8, 2, 2)
    assert {found[name].shape for name in ('variational', 'importance_weighted', 'nfe')} == {(8,)}


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'solver': 'rk45'}, "^eval.solver: unknown name 'rk45'"),
        ({'solver': 'euler'}, "^eval.solver: 'euler' estimates no error"),
        ({'importance_weighted': True}, '^eval.importance_weighted: .*num_dequantizations is 1'),
        ({'t_min': 1.0}, '^eval.t_min: 1.0, and the last time of the SDE is 1'),
        ({'t_min': 0.0}, '^eval.t_min: 0.0, where there is no noise'),
    ],
)
def test_estimators_that_cannot_be_are_refused_by_their_fields(fields, message):
    config, experiment = make(**fields)
    with pytest.raises(InputError, match=message):
        score_measures.create_estimator(config, experiment.model)


def test_one_step_size_for_a_batch_is_refused_to_networks_of_classes():
    config, _ = make(per_image_steps=False)
    config.model.num_classes = 10
    with pytest.raises(InputError, match='eval.per_image_steps: False'):
        score_measures.create_estimator(config, kinds.create(config).model)


# What is found again

OTHER = {
    'eval.t_min': 1e-3,
    'eval.divergence': 'gaussian',
    'eval.num_probes': 3,
    'eval.num_dequantizations': 3,
    'eval.importance_weighted': True,
    'eval.variational_draws': 3,
    'eval.round_trip': True,
    'eval.solver': 'tsit5',
    'eval.rtol': 0.2,
    'eval.atol': 0.2,
    'eval.per_image_steps': False,
}
# How many images are measured, and not what is found of one.
# The products of the network are known by the test below.
OF_THE_SET = {'eval.num_bpd_images', 'eval.precision'}


def estimator(**fields):
    config, experiment = make(num_probes=2, num_dequantizations=2)
    config.update_from_flattened_dict(fields)
    return score_measures.create_estimator(config, experiment.model)


@pytest.mark.parametrize(
    'field',
    sorted(
        name
        for name, field in flat({'eval': base.score_evaluation()}).items()
        if 'eval.bpd' in field.of and name not in OF_THE_SET
    ),
)
def test_every_field_of_the_likelihood_is_one_of_the_estimator(field):
    """So that parts of an evaluation with another value are not taken for its own."""
    assert repr(estimator()) == repr(estimator())
    assert repr(estimator(**{field: OTHER[field]})) != repr(estimator())


def parts(config, directory, monkeypatch):
    """The directories of parts that an evaluation looks into, without making any."""
    config.sampling.num_samples = 2
    experiment = kinds.create(config, MESH)
    measures, seen = experiment.measures(directory), []

    def keep(path, *_):
        seen.append(path)
        raise KeyboardInterrupt

    for module in ('evaluation.batchwise', 'experiments.score_measures'):
        monkeypatch.setattr(f'{module}.resumable.keep', keep)
    for measure in measures:
        with pytest.raises(KeyboardInterrupt):
            measure(Checkpoint(None, directory, 7))
    return dict(zip(('bits_per_dim', 'pc', 'ode', 'exhibits'), seen, strict=True))


@pytest.mark.parametrize(
    ('field', 'value', 'changed'),
    [
        ('sampling.steps', 7, {'pc'}),
        ('sampling.denoise', False, {'pc', 'ode'}),
        ('sampling.rtol', 1e-3, {'ode', 'exhibits'}),
        ('sampling.t_min', 1e-3, {'pc', 'ode', 'exhibits'}),
        ('sampling.batch_size', 1, {'pc', 'ode'}),
        ('sampling.seed', 7, {'pc', 'ode'}),
        ('model.precision', 'highest', {'pc', 'ode', 'exhibits'}),
        ('eval.rtol', 1e-3, {'bits_per_dim'}),
        ('eval.precision', 'default', {'bits_per_dim'}),
        ('eval.num_bpd_images', 9, {'bits_per_dim'}),
        ('eval.batch_size', 4, {'bits_per_dim'}),
        ('training.num_steps', 60, set()),
        ('eval.samplers', ('pc', 'ode'), set()),
    ],
)
def test_parts_are_found_again_until_what_they_depend_on_changes(
    field, value, changed, tmp_path, monkeypatch
):
    config, other = (make(exhibits=True, samplers=('pc', 'ode'))[0] for _ in range(2))
    other.update_from_flattened_dict({field: value})
    before, after = (parts(c, tmp_path, monkeypatch) for c in (config, other))
    assert {name for name in before if before[name] != after[name]} == changed


# Quality


@pytest.mark.slow
def test_eval_mode_compares_samples_and_the_training_split(tmp_path):
    """The whole way, by networks with random parameters; twice, to equal numbers."""
    for name, config in (('run', tiny_config), ('classifier', tiny_classifier)):
        random_run.create(tmp_path / name, config.get_config(), 3)
    config = tiny_config.get_config()
    config.eval.loss = config.eval.bpd = False
    config.eval.samplers = ('pc',)
    config.eval.num_samples = 12
    config.eval.quality = ('classifier',)
    config.eval.classifier_workdir = str(tmp_path / 'classifier')
    numbers = []
    for _ in range(2):
        run_lib.evaluate(config, tmp_path / 'run')
        found = json.loads((tmp_path / 'run' / 'eval' / '3' / 'metrics.json').read_text())
        numbers.append([row for row in found['quantities'] if row.get('by') == 'classifier'])
    assert numbers[0] == numbers[1]
    names = {of: {row['name'] for row in numbers[0] if row['of'] == of} for of in ('pc', 'train')}
    assert names['pc'] == names['train'] >= {'fd', 'kd', 'recall'}
    assert len(list((tmp_path / 'run' / 'features').glob('classifier_*.npz'))) == 2


def create_quality(tmp_path, **fields):
    given = {'quality': ('classifier',), 'classifier_workdir': None, 'num_samples': 12, **fields}
    config, experiment = make(**given)
    return score_measures.create_quality(
        config, experiment.model.image_shape, experiment.data, tmp_path, MESH
    )


@pytest.mark.slow
def test_a_classifier_is_known_by_its_parameters_and_its_noise(tmp_path):
    for seed in (1, 2):
        random_run.create(tmp_path / str(seed), tiny_classifier.get_config(), seed)
    other = tiny_classifier.get_config()
    other.training.t_min = 1e-3
    random_run.create(tmp_path / 'other', other, 1)
    prints = [
        create_quality(tmp_path, classifier_workdir=str(tmp_path / name)).networks[0].fingerprint
        for name in ('1', '1', '2', 'other')
    ]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3


@pytest.mark.parametrize(
    ('field', 'value', 'why'),
    [
        ('quality', ('clip',), 'eval.quality: unknown name .clip.*classifier, inception'),
        ('quality', ('classifier',), 'eval.classifier_workdir: None; a classifier is needed'),
        ('quality', ('inception',), 'eval.inception_weights: None, and no INCEPTION_WEIGHTS'),
        ('reference', 'val', 'eval.reference: unknown name .val.*train'),
        ('num_samples', 3, 'eval.num_samples: 3; eval.quality needs at least 10'),
        ('num_samples', None, 'sampling.num_samples: 6; eval.quality needs at least 10'),
        ('max_features', 3, 'eval.max_features: 3; eval.quality needs at least 10'),
    ],
)
def test_what_cannot_be_compared_is_refused_by_its_field(field, value, why, tmp_path, monkeypatch):
    monkeypatch.delenv('INCEPTION_WEIGHTS', raising=False)
    if field != 'quality':
        network = Network('classifier', {}, lambda params, pixels: (pixels, pixels), '')
        monkeypatch.setitem(score_measures.NETWORKS, 'classifier', lambda *_: network)
    with pytest.raises(InputError, match=f'^{why}'):
        create_quality(tmp_path, **{field: value})
