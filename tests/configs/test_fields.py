"""What follows from declarations of fields: configs, tuples, what a run keeps, what exists."""

import dataclasses

import pytest

from choices import OneOf, Range, option
from configs import fields
from configs.fields import Field

SOLVER = {
    'method': Field('pc', 'which sampler', OneOf(('pc', 'ode'))),
    'adaptive': Field(True, 'whether steps adapt', of={'solver.method': ('ode',)}),
    'steps': Field(
        10, 'how many', of={'solver.method': ('pc',), 'solver.adaptive': (False,)}, free=True
    ),
}
TREE = {
    'seed': Field(1, 'of all'),
    'solver': SOLVER,
    'report': fields.changeable({'name': Field(None, 'how it is called', type=str)}),
    'sizes': {'sides': Field((), 'of squares', Range(1), type=int)},
}


@dataclasses.dataclass(frozen=True)
class Straight:
    """A path with one option, and a field that users do not set."""

    rate: float = option(2.0, 'how fast', Range(0))
    inner: int = 3


@dataclasses.dataclass(frozen=True)
class Curved:
    """A path with two options, one of them like that of the other."""

    rate: float = option(1.0, 'how fast', Range(0))
    stops: tuple[int, ...] = option((), 'where it stops', Range(1), length=Range(0, 3))


@pytest.mark.parametrize(
    ('field', 'of_type'),
    [
        (Field(1, ''), int),
        (Field(True, ''), bool),
        (Field((1.0, 2.0), ''), float),
        (Field((), '', type=str), str),
        (Field(None, '', type=float), float),
    ],
)
def test_the_type_is_that_of_the_default_where_that_shows_it(field, of_type):
    assert field.of_type is of_type
    assert field.is_tuple == isinstance(field.default, tuple)


def test_a_config_has_all_defaults_and_takes_values_of_their_types_alone():
    config = fields.config(TREE)
    assert config.to_dict() == {
        'seed': 1,
        'solver': {'method': 'pc', 'adaptive': True, 'steps': 10},
        'report': {'name': None},
        'sizes': {'sides': ()},
    }
    config.report.name = 'first'
    with pytest.raises(TypeError):
        config.report.name = 3


def test_the_options_of_a_dataclass_become_fields():
    found = fields.of_options(dataclasses.fields(Curved))
    assert found == {
        'rate': Field(1.0, 'how fast', Range(0)),
        'stops': Field((), 'where it stops', Range(1), type=int, length=Range(0, 3)),
    }
    assert list(fields.of_options(dataclasses.fields(Straight))) == ['rate']


def test_options_of_several_dataclasses_exist_for_those_that_have_them():
    found = fields.of_any({'straight': Straight, 'curved': Curved}, 'path.name')
    assert found['rate'].of == {'path.name': ('straight', 'curved')}
    assert found['stops'].of == {'path.name': ('curved',)}
    assert (found['rate'].default, found['rate'].of_type) == (None, float)


def test_a_run_keeps_what_is_not_free():
    is_fixed = fields.is_fixed(TREE)
    kept = {name for name in fields.flat(TREE) if is_fixed(name)}
    assert kept == {'seed', 'solver.method', 'solver.adaptive', 'sizes.sides'}


def test_a_run_keeps_unknown_fields_of_sections_that_it_keeps():
    is_fixed = fields.is_fixed(TREE)
    assert is_fixed('solver.order')
    assert not is_fixed('report.colour')
    assert not is_fixed('another.name')


@pytest.mark.parametrize(
    ('method', 'adaptive', 'found'),
    [
        ('pc', True, {'method', 'steps'}),
        ('ode', True, {'method', 'adaptive'}),
        ('ode', False, {'method', 'adaptive', 'steps'}),
        (['ode', 'pc'], True, {'method', 'adaptive', 'steps'}),
    ],
)
def test_a_field_exists_where_one_of_its_choices_is_made(method, adaptive, found):
    declared = fields.flat({'solver': SOLVER})
    values = {'solver.method': method, 'solver.adaptive': adaptive, 'solver.steps': 10}
    exist = {name for name in declared if fields.exists(name, declared, values)}
    assert exist == {f'solver.{name}' for name in found}


def test_a_choice_counts_only_where_the_field_that_makes_it_exists():
    own = {'of_adaptive': Field(1, '', of={'solver.adaptive': (True,)})}
    declared = fields.flat({'solver': {**SOLVER, **own}})
    values = {'solver.method': 'pc', 'solver.adaptive': True}
    assert not fields.exists('solver.of_adaptive', declared, values)


def test_completing_adds_defaults_and_makes_tuples_and_keeps_the_rest():
    found = fields.completed({'seed': 5, 'sizes': {'sides': [1, 2]}, 'old': {'field': 0}}, TREE)
    assert found == {
        'seed': 5,
        'solver': {'method': 'pc', 'adaptive': True, 'steps': 10},
        'report': {'name': None},
        'sizes': {'sides': (1, 2)},
        'old': {'field': 0},
    }
