"""Runs that begin with the parameters of others: which they are, and all else anew."""

import json
import shutil
import types

import jax
import numpy as np
import pytest

import run_lib
from choices import InputError
from devices import sharding
from experiments import initial, kinds, run_files
from published import exchange
from tests import tiny_config
from tests.support import program, random_run


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    """A run with checkpoints of steps 10 and 20, whose averages are not alike, and as a file."""
    path = random_run.create(tmp_path_factory.mktemp('a') / 'b:3', tiny_config.get_config(), 10, 20)
    state = restored(path, 20)
    exchange.write(path / 'published.npz', 20, state.params, state.evaluated)
    return path


def restored(workdir, step, config=None):
    config, mesh = config or tiny_config.get_config(), sharding.create_mesh()
    return run_files.restore(config, workdir, kinds.create(config), mesh, step)


def loaded(given, **model):
    config, mesh = tiny_config.get_config(), sharding.create_mesh()
    config.training.init_from = str(given)
    config.model.update(model)
    return initial.load(config, kinds.create(config, mesh), mesh)


def assert_equal(found, expected):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ('suffix', 'step'), [('', 20), (':10', 10), ('/published.npz', 20), ('/../b:3:10', 10)]
)
def test_parameters_and_averages_are_those_of_the_step(suffix, step, source):
    found, expected = loaded(f'{source}{suffix}'), restored(source, step)
    assert_equal(found[:2], (expected.params, expected.averages))
    assert found.step == step


def test_without_a_name_there_is_nothing():
    config = tiny_config.get_config()
    assert initial.load(config, kinds.create(config), sharding.create_mesh()) is None


@pytest.mark.parametrize(
    ('suffix', 'expected'),
    [
        ('/none', 'training.init_from: .*/none: there is no such workdir or published file'),
        ('/published.npz:20', 'training.init_from: .*: there is no such workdir or published file'),
        ('/checkpoints', 'training.init_from: .* has no checkpoints, and is no workdir of a run'),
        (':15', r'training.init_from: no checkpoint of step 15; there are: \[10, 20\]'),
        ('/config.json', 'training.init_from: .*: neither a flax checkpoint'),
    ],
)
def test_what_is_no_run_and_no_published_file_is_refused(suffix, expected, source):
    with pytest.raises(InputError, match=f'^{expected}'):
        loaded(f'{source}{suffix}')


def test_another_network_is_refused_with_its_first_parameter_and_both_shapes(source):
    shapes = (
        r'^training.init_from: \S+20 is of another network: params.\S+ is \(8,\) there, and '
        r'\(12,\) in the network'
    )
    with pytest.raises(InputError, match=shapes):
        loaded(source, nf=12)
    file = r'^training.init_from: .* does not fit the config: \S+ is \(32,\), and the network has'
    with pytest.raises(InputError, match=file):
        loaded(source / 'published.npz', nf=12)


def test_a_run_without_a_checkpoint_and_one_with_damaged_ones_are_refused(source, tmp_path):
    (tmp_path / 'checkpoints').mkdir()
    with pytest.raises(InputError, match=f'^training.init_from: .*no checkpoint in {tmp_path}/ch'):
        loaded(tmp_path)
    shutil.copytree(source / 'checkpoints', tmp_path / 'checkpoints', dirs_exist_ok=True)
    for path in tmp_path.rglob('manifest.ocdbt'):
        path.unlink()
    with pytest.raises(InputError, match='^training.init_from: .*20 is damaged and cannot be read'):
        loaded(tmp_path)


@pytest.mark.parametrize('is_workdir', [True, False])
def test_the_first_process_alone_looks_what_there_is(is_workdir, tmp_path, monkeypatch):
    """Another machine need not see it yet."""
    found = initial.Source(tmp_path / 'unseen', 10, is_workdir)
    state = types.SimpleNamespace(params=None, averages=None, step=10)
    asked = []
    monkeypatch.setattr(initial.processes, 'from_first', lambda _: found)
    monkeypatch.setattr(initial, '_of_workdir', lambda *_: asked.append('workdir') or state)
    monkeypatch.setattr(initial, '_of_file', lambda *_: asked.append('file'))
    loaded(found.path)
    assert asked == ['workdir' if is_workdir else 'file']


@pytest.mark.slow
def test_a_run_that_is_started_again_has_the_step_of_the_first_start(source, tmp_path, monkeypatch):
    """It was ended before its first checkpoint, and the source has gone on."""
    beginnings = []

    class EndedError(Exception):
        pass

    def end(*arguments):
        beginnings.append(arguments[-1] and arguments[-1].step)
        raise EndedError

    other, workdir = shutil.copytree(source, tmp_path / 'other'), tmp_path / 'run'
    config = tiny_config.get_config()
    config.training.init_from = str(other)
    monkeypatch.setattr(run_lib, 'start', end)

    def start_and_end():
        with pytest.raises(EndedError):
            run_lib.train(config, workdir)
        recorded = json.loads((workdir / 'config.json').read_text())['training']['init_from']
        return recorded.removeprefix(f'{other}:')

    assert start_and_end() == '20'
    random_run.save(other, config, 30)
    assert start_and_end() == '20'
    config.training.init_from = f'{other}:30'
    assert start_and_end() == '30'
    random_run.save(workdir, config, 10)
    config.training.init_from = str(other)
    assert start_and_end() == '30'
    assert beginnings == [20, 20, 30, None]


def test_a_run_that_has_begun_asks_nobody(source, tmp_path, capsys):
    random_run.create(tmp_path, tiny_config.get_config(), 40)
    program.call(
        *('--mode=train', f'--workdir={tmp_path}', '--config.training.init_from=/nowhere'),
    )
    assert 'step 40 of 40' in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize('suffix', ['', '/published.npz'])
def test_a_run_begins_with_them_at_step_0_with_a_fresh_optimiser(suffix, source, tmp_path, capsys):
    """A rate of zero keeps the parameters, by which averages come closer to them."""
    fields = {'init_from': f'{source}{suffix}', 'num_steps': 2, 'sample_every': 0}
    config = tiny_config.get_config()
    config.training.update(fields)
    config.optim.update({'lr': 1e-30, 'ema_rate': 0.5, 'ema_warmup': False})
    run_lib.train(config, tmp_path)
    assert f'{source}{suffix}: parameters and averages of step 20' in capsys.readouterr().out
    found, before = restored(tmp_path, 2, config), restored(source, 20)
    assert_equal(found.params, before.params)
    for a, live, average in zip(
        *(jax.tree.leaves(t) for t in (found.evaluated, before.params, before.evaluated)),
        strict=True,
    ):
        np.testing.assert_allclose(a, 0.75 * live + 0.25 * average, rtol=1e-5, atol=1e-7)
    counts = [a for a in jax.tree.leaves(found.opt_state) if a.ndim == 0]
    assert counts
    assert all(int(count) == 2 for count in counts)
