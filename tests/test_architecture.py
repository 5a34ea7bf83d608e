"""The plan of the house: which room imports which, and what each may know of the world outside.

A room is a package or a module of the root.
"""

import ast
import itertools
import pathlib
import re

import pytest

from configs import base, fields

ROOT = pathlib.Path(__file__).parents[1]

# Every room imports only what stands after it.
METHOD = (
    *('gradient_noise', 'equations', 'training', 'sampling', 'likelihood', 'bounds', 'losses'),
    *('implicit', 'directional', 'guidance', 'time_sampling', 'solvers', 'parameterization'),
    *('sde_lib', 'models', 'keys', 'choices', 'shapes'),
)
HOUSE = (
    *('main', 'command_line', 'run_lib'),
    *('applications',),
    *('analysis', 'experiments', 'reports', 'evaluation'),
    *('configs', 'published', 'datasets', 'storage', 'devices'),
    *METHOD,
)
# Those that have to do with files, with clocks, and with what is told while they run.
OUTSIDE = {
    ('os', 'pathlib', 'shutil', 'tempfile', 'io'): {
        *('run_lib', 'analysis', 'experiments', 'reports', 'evaluation'),
        *('configs', 'published', 'datasets', 'storage', 'devices'),
    },
    ('time', 'datetime'): {'run_lib', 'reports', 'evaluation'},
    ('absl', 'logging', 'tqdm'): {'main', 'command_line', 'evaluation', 'storage', 'devices'},
}
# A config is read here, and travels no further.
READ_CONFIGS = ('main', 'command_line', 'run_lib', 'applications', 'experiments', 'configs')
READING_FILES = ('analysis/compile_ahead.py',)
OF_APPLICATIONS = ('__init__.py', 'run.py', 'measures.py', 'conditioning.py', 'settings.py')
# Of tests/test_*.py: what they test is no single module.
OF_THE_WHOLE = {
    *('architecture', 'bad_input', 'every_sampler', 'fuzz', 'interruptions', 'kills'),
}


def files(room):
    """The files of a room."""
    package = ROOT / room
    return sorted(package.rglob('*.py')) if package.is_dir() else [ROOT / f'{room}.py']


def imports(path):
    """What a file imports, by dotted names: modules, and what is taken out of them."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f'{path}: a relative import'
            yield from (f'{node.module}.{alias.name}' for alias in node.names)


def imported(room):
    """The first parts of the names that a room imports, its own excepted."""
    found = itertools.chain.from_iterable(map(imports, files(room)))
    return {name.split('.')[0] for name in found} - {room}


def documented(tree):
    """The nodes of a tree that may have a docstring."""
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    return [node for node in ast.walk(tree) if isinstance(node, kinds)]


# The plan


def test_every_room_has_its_place():
    packages = {path.parent.name for path in ROOT.glob('*/__init__.py')} - {'tests'}
    assert set(HOUSE) == packages | {path.stem for path in ROOT.glob('*.py')}
    assert len(HOUSE) == len(set(HOUSE))


@pytest.mark.parametrize('room', HOUSE)
def test_a_room_imports_only_what_stands_after_it(room):
    after = HOUSE[HOUSE.index(room) + 1 :]
    assert imported(room) & set(HOUSE) <= set(after)


@pytest.mark.parametrize('room', HOUSE)
def test_no_room_knows_of_tests_and_benchmarks(room):
    assert not imported(room) & {'tests', 'benchmarks'}


def test_networks_know_no_sde():
    assert imported('models') & set(HOUSE) <= {'keys', 'choices', 'shapes'}


# Configs


@pytest.mark.parametrize('room', [room for room in HOUSE if room not in READ_CONFIGS])
def test_configs_are_read_at_the_edge(room):
    for path in files(room):
        if str(path.relative_to(ROOT)) not in READING_FILES:
            parts = {name.split('.')[0] for name in imports(path)}
            assert not parts & {'configs', 'ml_collections'}, path


def test_an_application_reads_the_config_where_it_is_set_up_and_run():
    for path in files('applications'):
        if path.name not in OF_APPLICATIONS:
            assert not any(name.startswith(('configs', 'ml_collections')) for name in imports(path))


def test_fields_are_declared_by_tables_of_the_method():
    """And by what a data set's images and a workdir's config are made of."""
    of_house = [
        name
        for path in files('configs')
        for name in imports(path)
        if name.split('.')[0] in HOUSE and name.split('.')[0] not in ('configs', *METHOD)
    ]
    assert set(of_house) <= {'datasets.sizes', 'storage.workdirs'}


# What is outside


@pytest.mark.parametrize('modules', OUTSIDE, ids=lambda modules: modules[0])
def test_files_clocks_and_logs_are_the_business_of_few_rooms(modules):
    assert {room for room in HOUSE if imported(room) & set(modules)} == OUTSIDE[modules]


@pytest.mark.parametrize('room', METHOD)
def test_the_method_touches_no_files_clocks_or_logs(room):
    assert not imported(room) & {module for modules in OUTSIDE for module in modules}


# What is said


FIELDS = {field for kind in base.EXPERIMENTS.values() for field in fields.flat(kind(None))}
DOTTED = re.compile(rf'\b(?:{"|".join(sorted({field.split(".")[0] for field in FIELDS}))})\.\w+')


@pytest.mark.parametrize('room', METHOD)
def test_the_method_speaks_of_arguments_and_not_of_fields(room):
    """Whoever has a config finds out which field an argument was; see choices.fields_of."""
    for path in files(room):
        tree = ast.parse(path.read_text())
        docstrings = {ast.get_docstring(node, clean=False) for node in documented(tree)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                named = set(DOTTED.findall(node.value)) & FIELDS
                assert not named or node.value in docstrings, f'{path}:{node.lineno}: {named}'


def test_every_docstring_stands_alone():
    """None begins as if the one before it had been read."""
    for path in ROOT.glob('[!.]*/**/*.py'):
        for node in documented(ast.parse(path.read_text())):
            said = ast.get_docstring(node) or ''
            assert not said.startswith('The same'), f'{path}: {said}'


def test_the_documentation_names_every_room():
    text = (ROOT / 'docs' / 'architecture.md').read_text()
    for room in HOUSE:
        name = f'{room}/' if (ROOT / room).is_dir() else f'{room}.py'
        assert re.search(rf'(?<![\w/]){re.escape(name)}', text), name


# Tests


def test_tests_stand_as_the_house_does():
    packages = {path.parent.name for path in ROOT.glob('tests/*/__init__.py')} - {'support'}
    assert packages <= set(HOUSE)
    subjects = {path.stem.removeprefix('test_') for path in ROOT.glob('tests/test_*.py')}
    assert subjects - OF_THE_WHOLE <= {path.stem for path in ROOT.glob('*.py')}
    assert subjects >= OF_THE_WHOLE


@pytest.mark.parametrize('room', [room for room in HOUSE if (ROOT / room).is_dir()])
def test_every_package_is_tested(room):
    assert list((ROOT / 'tests' / room).glob('test_*.py'))


# Requirements


def test_a_gpu_gets_the_jax_that_is_locked():
    versions = [
        re.findall(r'^jax(?:\[\w+\])?==(.+)$', (ROOT / name).read_text(), re.M)
        for name in ('requirements.lock', 'requirements-cuda.txt')
    ]
    assert versions[0] == versions[1] != []


# Links


def test_links_within_the_documents_lead_somewhere():
    paths = [ROOT / 'README.md', *(ROOT / 'docs').glob('*.md')]
    anchors = {}
    for path in paths:
        titles = re.findall(r'^#+ (.+)$', path.read_text(), re.M)
        kept = (re.sub(r'[^\w\- ]', '', title.lower()) for title in titles)
        anchors[path.resolve()] = {title.replace(' ', '-') for title in kept}
    for path in paths:
        for link in re.findall(r'\]\((?!https?:)([^)\s]+)\)', path.read_text()):
            target, _, anchor = link.partition('#')
            found = (path.parent / target).resolve() if target else path.resolve()
            assert found.exists(), f'{path}: {link}'
            assert not anchor or anchor in anchors[found], f'{path}: {link}'
