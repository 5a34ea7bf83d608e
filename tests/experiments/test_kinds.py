"""The kinds of experiments: a table makes them, and nothing else tells them apart."""

import ast
import pathlib

import pytest
from ml_collections import ConfigDict

from choices import InputError
from configs import base
from experiments import kinds
from experiments.experiment import Experiment

ROOT = pathlib.Path(__file__).parents[2]
# What sees experiments through their interface alone.
ROOMS = (
    *('run_lib.py', 'main.py', 'analysis', 'evaluation', 'reports'),
    *(
        f'experiments/{name}.py'
        for name in ('experiment', 'initial', 'periodic', 'programs', 'run_files')
    ),
)
CLASSES = {'ScoreMatching', 'Classification', 'ScoreModel', 'Classifier'}
# Modules of experiments that know of none in particular.
OF_ANY = {
    *('experiment', 'images_by_seed', 'images_together', 'initial', 'kinds', 'periodic'),
    *('programs', 'run_files', 'validation'),
}


def files():
    for room in ROOMS:
        path = ROOT / room
        yield from sorted(path.rglob('*.py')) if path.is_dir() else [path]


in_each_file = pytest.mark.parametrize(
    'path', list(files()), ids=lambda p: str(p.relative_to(ROOT))
)


def parsed(path):
    return ast.parse(path.read_text())


def named(tree):
    """Names and attributes of a piece of code, its constants, and what it imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute):
            yield node.id if isinstance(node, ast.Name) else node.attr
        elif isinstance(node, ast.ImportFrom):
            yield from (alias.name for alias in node.names)


def test_a_kind_that_does_not_exist_is_refused():
    with pytest.raises(InputError, match=r"^experiment: unknown name 'score_modl' \(did you mean"):
        kinds.create(ConfigDict({'experiment': 'score_modl'}))


@pytest.mark.parametrize('kind', kinds.EXPERIMENTS)
def test_a_kind_has_all_of_the_interface(kind):
    methods = {name for name in vars(Experiment) if not name.startswith('_')}
    assert len(methods) == 8
    assert methods <= set(dir(kinds.EXPERIMENTS[kind]))


@in_each_file
def test_no_class_of_a_kind_is_known_outside(path):
    assert not CLASSES & set(named(parsed(path)))


@in_each_file
def test_modules_of_a_kind_are_not_imported_outside(path):
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ImportFrom) and (node.module or '').startswith('experiments'):
            of_module = node.module.split('.')[1:2]
            assert set(of_module or [alias.name for alias in node.names]) <= OF_ANY
        if isinstance(node, ast.Import):
            assert not any(alias.name.startswith('experiments.') for alias in node.names)


@in_each_file
def test_nothing_is_compared_with_the_name_of_a_kind(path):
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Compare):
            compared = list(ast.walk(node))
            constants = {part.value for part in compared if isinstance(part, ast.Constant)}
            assert not constants & set(base.EXPERIMENTS), f'{path}:{node.lineno}'
            attributes = {part.attr for part in compared if isinstance(part, ast.Attribute)}
            assert 'experiment' not in attributes, f'{path}:{node.lineno}'
        if isinstance(node, ast.MatchValue) and isinstance(node.value, ast.Constant):
            assert node.value.value not in base.EXPERIMENTS, f'{path}:{node.lineno}'
