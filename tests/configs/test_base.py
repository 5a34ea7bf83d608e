"""The declared fields: where their names come from, what a run keeps, and configs of before."""

import json
import pathlib

import pytest
from ml_collections import ConfigDict

import models
import sde_lib
from applications.conditional import conditioning
from choices import InputError, Range
from configs import base, document, fields
from configs.fields import Field
from evaluation import quality
from experiments import kinds, latent, score_measures, validation
from tests import tiny_classifier

BEFORE = json.loads(
    (pathlib.Path(__file__).parents[1] / 'data' / 'config_c84a648.json').read_text()
)
# One set of fields for each kind and network.
ALL = [
    (kind, network)
    for kind, create in base.EXPERIMENTS.items()
    for network in fields.networks(create(None))
]


def declared(kind, network):
    return fields.flat(base.EXPERIMENTS[kind](network))


@pytest.mark.parametrize(
    ('names', 'table'),
    [
        (base.TASKS, ['none', *conditioning.TASKS]),
        (base.MEASURED_TASKS, conditioning.MEASURED_TASKS),
        (base.TASK_METHODS, conditioning.METHODS),
        (base.EXTRACTORS, score_measures.NETWORKS),
        (base.SPLITS, quality.OTHER_SPLITS),
        (base.EXPERIMENTS, kinds.EXPERIMENTS),
        (base.STAGES, latent.FROZEN),
    ],
)
def test_names_are_those_of_the_tables_that_configs_cannot_import(names, table):
    assert set(names) == set(table)


@pytest.mark.parametrize(('kind', 'network'), ALL)
def test_every_field_says_what_it_means_in_one_line(kind, network):
    for name, field in declared(kind, network).items():
        assert field.meaning, name
        assert '\n' not in field.meaning


@pytest.mark.parametrize(('kind', 'network'), ALL)
def test_choices_are_made_by_fields_that_can_have_them(kind, network):
    found = declared(kind, network)
    for name, field in found.items():
        for decides, names in field.of.items():
            for chosen in names:
                validation.check_value(decides, chosen, _element(found[decides])), name


def _element(field):
    """A field of one element, for a tuple."""
    if not field.is_tuple:
        return field
    return Field(None, field.meaning, field.allowed, type=field.of_type)


@pytest.mark.parametrize('name', models.MODELS)
def test_every_field_of_a_network_is_an_option_or_filled_by_an_experiment(name):
    filled = {'centered', 'sigma_min', 'sigma_max', 'num_scales', 'out_channels'}
    filled |= {'num_classes'} if name == 'ncsn' else set()
    own = models.all_fields(models.MODELS[name])
    assert {field.name for field in own if not field.metadata} <= filled
    kind = 'classifier' if name in models.CLASSIFIERS else 'score_model'
    section = set(base.EXPERIMENTS[kind](name)['model'])
    options = {field.name for field in own if field.metadata}
    of_output = {'parameterization', 'energy', 'mixing_logit', 'input_fourier'}
    assert section - options <= {'name', *of_output}
    assert options <= section


def test_fields_of_sdes_exist_for_those_that_have_them():
    for name, field in base.sde().items():
        if name != 'name':
            having = [sde for sde, cls in sde_lib.SDES.items() if name in cls.__dataclass_fields__]
            assert field.of == {'sde.name': tuple(having)}
            assert field.default is None


# What a run keeps: that this list changes is worth a look.
FREE_OF_FIXED_SECTIONS = {
    'model.precision',
    'data.source',
    'data.data_dir',
    'data.max_pixels',
    'training.num_steps',
    'training.log_every',
    'training.eval_every',
    'training.sample_every',
    'training.num_samples',
    'training.checkpoint_every',
    'training.keep_checkpoints',
    'training.keep_every',
    'training.keep_best',
    'training.init_from',
    'training.max_skipped',
}


@pytest.mark.parametrize(('kind', 'network'), ALL)
def test_a_run_keeps_what_its_checkpoints_depend_on(kind, network):
    is_fixed = base.is_fixed(kind)
    free_sections = {'mesh', 'sampling', 'task', 'eval', 'debug'}
    for name in declared(kind, network):
        free = name.split('.')[0] in free_sections or name in FREE_OF_FIXED_SECTIONS
        assert is_fixed(name) != free, name


# Configs of before


def test_a_config_of_before_is_completed_to_one_of_today():
    config = base.completed(BEFORE)
    validation.check(ConfigDict(config))
    assert config['experiment'] == 'score_model'
    assert config['data']['image_size'] == (8, 8)
    assert config['model']['input_fourier'] == (2, 3, 4, 5, 6, 7)
    newer = {'objective': 'denoising', 'init_from': None}
    newer |= {'projection': 'rademacher', 'num_projections': 1, 'fd_step': None}
    assert config['training'] == {**BEFORE['training'], 'log_sigma': (-1.5, 1.7), **newer}


def test_fields_that_are_newer_than_a_config_get_their_defaults():
    before = {name: section for name, section in BEFORE.items() if name != 'debug'}
    before['optim'] = {'lr': 0.5}
    config = base.completed(before)
    assert config['debug'] == {'nans': False}
    assert config['optim'] == {**base.get_config().optim.to_dict(), 'lr': 0.5}


def test_a_config_of_before_is_of_a_classifier_if_its_network_is_one():
    before = json.loads(json.dumps(tiny_classifier.get_config().to_dict()))
    del before['experiment']
    assert base.completed(before) == tiny_classifier.get_config().to_dict()


def test_a_config_of_what_is_not_known_is_refused():
    with pytest.raises(InputError, match="^model.name: unknown name 'unet'"):
        base.completed({'model': {'name': 'unet'}})
    with pytest.raises(InputError, match='^model.name: missing'):
        base.completed({'seed': 1})
    with pytest.raises(InputError, match="^experiment: unknown name 'gan'"):
        base.completed({'experiment': 'gan', 'model': {'name': 'ncsnpp'}})


# Another kind of experiment


def codes(name=None):
    """Fields of a kind of experiment that this project does not have."""
    return {
        **base.general('codes'),
        'model': {
            'name': Field(name or 'coder', 'which network', {'coder': None, 'small_coder': None}),
            'width': Field(4, 'of the code', Range(1, 8)),
        },
        'training': base.run(),
        'eval': base.evaluation(),
        'rate': {'bits': Field(8, 'of a code', of={'model.name': ('coder',)})},
    }


def test_one_entry_makes_a_kind_of_experiment(monkeypatch):
    monkeypatch.setitem(base.EXPERIMENTS, 'codes', codes)
    config = fields.config(codes())
    validation.check(config)
    config.model.width = 9
    with pytest.raises(InputError, match='^model.width: 9; a number of at least 1 and at most 8'):
        validation.check(config)
    config.model.width = 5
    config.model.name = 'small_coder'
    with pytest.raises(InputError, match="^rate.bits: 'small_coder' has no such field"):
        validation.check(config, ['rate.bits'])
    assert base.is_fixed('codes')('model.width')
    assert base.completed(config.to_dict()) == config.to_dict()
    assert (
        '| `rate.bits` | `8` | whole number | `codes`; `model.name`: `coder` |' in document.text()
    )
    assert '### coder, small_coder' in document.text()
