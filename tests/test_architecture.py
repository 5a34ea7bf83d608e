"""The import rule of docs/architecture.md: imports run one way, from the top of this list down."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
LAYERS = [
    {'main'},
    {'run_tasks', 'run_eval', 'compile_ahead'},
    {'run_lib'},
    {'quality', 'conditioning', 'report'},
    {'samplers', 'bits_per_dim', 'extractors', 'exhibits'},
    {'classifiers', 'validation'},
    {
        'experiment',
        'metrics',
        'plots',
        'checkpoints',
        'workdirs',
        'published',
        'preemption',
        'datasets',
        'sharding',
        'parts',
    },
    {'sources', 'sizes'},
    {
        'training',
        'nans',
        'images',
        'losses',
        'bounds',
        'sampling',
        'controllable',
        'likelihood',
        'error_split',
        'evaluation',
        'cost',
        'hlo',
        'roofline',
        'models',
        'torch_legacy',
        'torch_zip',
        'torch_names',
        'classification',
    },
    {'solvers'},
    {'ode', 'keys', 'mixtures', 'measurements', 'files', 'processes', 'compilation'},
    {'parameterization'},
    {'sde_lib'},
    {'choices', 'quadratures'},
]
# Within a layer these, and only these, import each other.
BESIDE = {
    ('cost', 'models'),
    ('torch_legacy', 'torch_zip'),
    ('bounds', 'losses'),
    ('checkpoints', 'parts'),
    ('roofline', 'hlo'),
    ('compile_ahead', 'run_eval'),
}
MODULES = sorted(path.stem for path in ROOT.glob('*.py')) + ['models', 'solvers']


def layer(module):
    return next((i for i, names in enumerate(LAYERS) if module in names), None)


def imports(path):
    """Top-level names that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split('.')[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.split('.')[0]


def files(module):
    package = ROOT / module
    return package.glob('*.py') if package.is_dir() else [ROOT / f'{module}.py']


@pytest.mark.parametrize('module', MODULES)
def test_imports_run_downwards(module):
    assert layer(module) is not None, f'{module} has no layer'
    for path in files(module):
        for imported in set(imports(path)) & set(MODULES) - {module}:
            assert layer(imported) > layer(module) or (module, imported) in BESIDE, (
                f'{path.name} imports {imported}'
            )


READ_CONFIGS = {
    'main',
    'run_lib',
    'run_eval',
    'run_tasks',
    'compile_ahead',
    'conditioning',
    'quality',
    'samplers',
    'bits_per_dim',
    'exhibits',
    'extractors',
    'classifiers',
    'validation',
    'experiment',
}


@pytest.mark.parametrize('module', sorted(set(MODULES) - READ_CONFIGS))
def test_configs_are_read_at_the_edge(module):
    for path in files(module):
        assert not {'configs', 'ml_collections'} & set(imports(path)), path.name


@pytest.mark.parametrize(
    'module',
    [
        'sde_lib',
        'losses',
        'classification',
        'sampling',
        'controllable',
        'measurements',
        'solvers',
        'likelihood',
        'bounds',
        'error_split',
        'evaluation',
        'training',
        'models',
        'ode',
        'mixtures',
        'cost',
        'hlo',
        'roofline',
    ],
)
def test_the_method_touches_no_files_clocks_or_logs(module):
    for path in files(module):
        assert not {'os', 'pathlib', 'time', 'logging', 'tqdm'} & set(imports(path)), path.name


def test_networks_know_no_sde():
    for path in files('models'):
        assert set(imports(path)) & set(MODULES) <= {'models', 'choices'}, path.name


def test_the_documentation_names_every_module():
    text = (ROOT / 'docs' / 'architecture.md').read_text()
    for module in MODULES:
        assert f'{module}.py' in text or f'{module}/' in text, module
