"""Fields, types, what is allowed, and what belongs to a choice that is not made."""

import math

import pytest
from ml_collections import ConfigDict

from choices import InputError, Range
from configs import base, fields
from experiments import validation
from tests import tiny_config
from tests.experiments import test_configs

# A kind of experiment and a network for every field that there is, the first of those that have it:
# of a name that is nonsense the default network's other fields are the ones that are looked for.
FIELDS = {
    name: (kind, network)
    for kind, create in reversed(base.EXPERIMENTS.items())
    for network in reversed(fields.networks(create(None)) or (None,))
    for name in fields.flat(create(network))
}


def declared(name):
    kind, network = FIELDS[name]
    return fields.flat(base.EXPERIMENTS[kind](network))[name]


def with_value(name, value):
    """The default fields of an experiment that has a field, with another value of it."""
    kind, network = FIELDS[name]
    tree = fields.config(base.EXPERIMENTS[kind](network)).to_dict()
    *path, last = name.split('.')
    section = tree[path[0]] if path else tree
    section[last] = value
    return ConfigDict(tree)


def tiny(**values):
    """A config file, and what the command line has made of it."""
    config = tiny_config.get_config()
    config.update_from_flattened_dict(values)
    return config


@pytest.mark.parametrize('name', test_configs.ALL)
def test_experiments_pass(name):
    validation.check(test_configs.load(name))


@pytest.mark.parametrize('name', test_configs.EXPERIMENTS)
def test_experiments_pass_with_every_sampler_and_task_of_the_command_line(name):
    for field, names in (('sampling.method', base.METHODS), ('task.name', base.TASKS)):
        for chosen in names:
            config = test_configs.load(name)
            config.update_from_flattened_dict({field: chosen})
            validation.check(config, [field])


@pytest.mark.parametrize(('kind', 'network'), sorted(set(FIELDS.values())))
def test_the_defaults_pass_with_every_network(kind, network):
    validation.check(fields.config(base.EXPERIMENTS[kind](network)))


# Values


@pytest.mark.parametrize('field', FIELDS)
def test_no_field_takes_any_type(field):
    for value in ({'a': 1}, object, b'a', [[1]], ['a', 1.5]):
        with pytest.raises(InputError, match=f'^{field}'):
            validation.check(with_value(field, value))


def outside(allowed):
    """Numbers next to the ends of a range, and what is in none."""
    yield from (math.inf, -math.inf, math.nan)
    if isinstance(allowed, Range):
        yield allowed.low if allowed.without_low else allowed.low - 1e-9 - abs(allowed.low) * 1e-9
        yield allowed.high if allowed.without_high else 2 * allowed.high + 1


@pytest.mark.parametrize('field', [f for f in FIELDS if declared(f).of_type in (int, float)])
def test_numbers_out_of_range_are_refused(field):
    found = declared(field)
    for number in outside(found.allowed):
        length = int(found.length.low) if found.length else 1
        value = (number,) * (length or 1) if found.is_tuple else number
        with pytest.raises(InputError, match=f'^{field}: '):
            validation.check(with_value(field, value))


@pytest.mark.parametrize(
    'field', [f for f in FIELDS if declared(f).of_type is str and declared(f).allowed]
)
def test_names_that_no_table_has_are_refused_whatever_is_chosen(field):
    value = ('nonsense',) if declared(field).is_tuple else 'nonsense'
    known = ', '.join(declared(field).allowed).replace('+', r'\+')
    with pytest.raises(InputError, match=f"^{field}: unknown name 'nonsense'.*; known: {known}$"):
        validation.check(with_value(field, value))


def test_fields_that_are_missing_or_misspelt_are_refused():
    config = tiny()
    with config.unlocked():
        del config.optim.lr
    with pytest.raises(InputError, match=r'^optim.lr: missing; configs/base.py has 0.0002$'):
        validation.check(config)
    with config.unlocked():
        config.optim.lrr = 1.0
    with pytest.raises(InputError, match=r"^optim.lrr: .*no such field \(did you mean 'optim.lr'"):
        validation.check(config)


@pytest.mark.parametrize('field', ['experiment', 'model.name'])
def test_a_config_says_what_it_is_of(field):
    config = with_value(field, None)
    with pytest.raises(InputError, match=f'^{field}: (missing, or no string|None is no str)'):
        validation.check(config)


# What is not chosen


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({'sampling.sde_solver': 'sea'}, "'pc' and .* it belongs to sampling.method = 'sde', or"),
        ({'sampling.sde_solver': 'shark'}, "'pc' and .* it belongs to sampling.method = 'sde', or"),
        ({'sampling.method': 'sde', 'sampling.window': 3}, "'sde' and .* = 'picard'"),
        ({'eval.samplers': ('pc',), 'sampling.solver': 'heun'}, "'pc' and .* = 'ode'"),
        ({'sampling.snr': 0.1}, "'none' has no such field; it belongs to sampling.corrector"),
        ({'sde.sigma_max': 3.0}, "'vp' has no such field; it has: beta_min, beta_max; it belongs"),
        ({'task.factor': 2}, "'none' has no such field; .*task.name = 'superresolve'"),
        ({'eval.cache_dir': 'x'}, r'eval.quality = \(\) has no such field; .*eval.quality = '),
        (
            {'eval.bpd': False, 'eval.rtol': 1.0},
            'eval.bpd = False has no such field; .*eval.bpd = True',
        ),
    ],
)
def test_what_the_command_line_says_of_another_choice_is_refused(values, message):
    field = list(values)[-1]
    with pytest.raises(InputError, match=f'^{field}: {message}'):
        validation.check(tiny(**values), values)


@pytest.mark.parametrize(
    'values',
    [
        {'sampling.method': 'sde', 'sampling.sde_solver': 'sea'},
        {'eval.samplers': ('sde',), 'sampling.sde_solver': 'sea'},
        {'sampling.solver': 'heun'},  # eval.samplers has ode.
        {'sampling.corrector': 'langevin', 'sampling.snr': 0.1},
        {'sampling.method': 'ode', 'sampling.adaptive': False, 'sampling.steps': 8},
        {'sde.name': 've', 'sde.sigma_max': 3.0},
        {'task.name': 'inpaint', 'task.method': 'pigdm', 'task.data_std': 0.3},
        {'eval.quality': ('classifier',), 'eval.classifier_workdir': 'x'},
    ],
)
def test_what_the_command_line_says_of_what_is_chosen_passes(values):
    validation.check(tiny(**values), values)


def test_a_choice_that_would_need_another_is_told_with_it():
    values = {'task.name': 'class', 'task.data_std': 0.3}
    config = tiny(**values, **{'task.method': 'pigdm'})
    message = "^task.data_std: it belongs to task.method, and 'class' has no such field"
    with pytest.raises(InputError, match=message):
        validation.check(config, values)


def test_a_config_file_may_speak_of_samplers_that_are_not_chosen():
    validation.check(tiny(**{'sampling.sde_solver': 'sea', 'sampling.snr': 0.1}))


@pytest.mark.parametrize(
    ('field', 'value', 'decides'),
    [
        ('sde.sigma_max', 3.0, 'sde.name'),
        ('training.log_sigma', (0.0, 1.0), 'training.time_sampler'),
    ],
)
def test_a_config_file_may_not_set_what_its_run_has_not(field, value, decides):
    chosen = {} if decides == 'sde.name' else {decides: 'uniform'}
    config = tiny(**{field: value}, **chosen)
    with pytest.raises(InputError, match=f'^{field}: .* has no such field'):
        validation.check(config)
    # Where the command line has chosen, the file spoke of another choice.
    validation.check(config, [decides])
