"""--mode=compile: what it prints of a small network, where there is libtpu, and what it refuses."""

import importlib.util
import re

import pytest

from analysis import compile_ahead
from devices import sharding
from experiments import kinds
from tests import tiny_classifier, tiny_config
from tests.support import program

CONFIG = '--config=tests/tiny_config.py'
MODE = '--mode=compile'
SIZES = [f'--config.{name}.batch_size=16' for name in ('training', 'sampling', 'eval')]
needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec('libtpu') is None, reason='libtpu is not installed'
)


@pytest.mark.parametrize(
    ('topology', 'said'),
    [
        (None, 'None is not a chip and how many there are along each axis, such as v5e:4x4'),
        ('v5e', "'v5e' is not a chip and how many"),
        ('v5e-16', "'v5e-16' is not a chip and how many"),
        ('v5e:32x32', "'v5e:32x32' has 1024 chips, and a pod 256"),
        ('v9:4x4', "unknown name 'v9'; known: v5e, v6e, v5p, v4"),
    ],
)
def test_topologies_that_do_not_exist_are_refused(topology, said):
    given = [] if topology is None else [f'--topology={topology}']
    refused = program.refusal(CONFIG, MODE, *given)
    assert refused.startswith('error: --topology: ')
    assert said in refused


def test_other_modes_take_no_topology(tmp_path):
    refused = program.refusal(CONFIG, '--mode=train', f'--workdir={tmp_path}', '--topology=v5e:4x4')
    assert refused == 'error: --topology: --mode=train uses the devices that there are'


def test_without_libtpu_a_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    refused = program.refusal(CONFIG, MODE, '--topology=v5e:4x4')
    assert refused.startswith('error: --mode=compile: there is no libtpu')
    assert 'pip install -r requirements-tpu.txt' in refused


def test_what_does_not_fit_is_one_line():
    message = (
        'RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 33.51G of 15.75G hbm. '
        'Exceeded hbm capacity by 17.76G.\n\nTotal hbm usage >= 33.77G:\n'
    )
    assert compile_ahead.does_not_fit(message).startswith('33.51G of 15.75G needed')


@pytest.mark.parametrize(
    ('config', 'titles'),
    [
        (
            tiny_config.get_config(),
            [
                'training step of 8 examples',
                'sampling of 4 images by pc',
                'bits/dim of 8 examples',
            ],
        ),
        (tiny_classifier.get_config(), ['training step of 32 examples']),
    ],
    ids=['score_model', 'classifier'],
)
def test_what_is_compiled_are_the_programs_of_the_modes(config, titles):
    """Whole programs from shapes alone, here for the device of the tests."""
    mesh = sharding.create_mesh()
    tasks = list(compile_ahead.tasks(config, kinds.create(config, mesh), mesh))
    assert [task.title for task in tasks] == titles
    for task in tasks:
        task.run.lower(*task.args)
        assert compile_ahead.bytes_on_device(task.given['parameters']) > 0


@needs_libtpu
def test_shapes_that_no_pod_has_are_refused():
    refused = program.refusal(CONFIG, MODE, '--topology=v5e:3x3', *SIZES)
    assert refused.startswith("error: --topology: 'v5e:3x3' is no v5e pod")


@needs_libtpu
def test_batches_that_do_not_divide_are_refused():
    refused = program.refusal(CONFIG, MODE, '--topology=v5e:4x4')
    assert refused == (
        'error: training.batch_size: 8 is not a positive multiple of the number of devices, 16'
    )


@needs_libtpu
def test_a_search_for_nans_is_not_compiled():
    refused = program.refusal(CONFIG, MODE, '--topology=v5e:4x4', *SIZES, '--config.debug.nans')
    assert refused.startswith('error: debug.nans: True; ')


@needs_libtpu
def test_a_small_network_is_compiled_for_sixteen_chips(capsys):
    """No device sums more than the gradient, and a sampler sends nothing."""
    program.call(CONFIG, MODE, '--topology=v5e:4x4', *SIZES)
    training, sampling, likelihood = re.split('compiling ...\n', capsys.readouterr().out)[1:]
    assert 0.95 < numbers(training)['sent, over a float32 gradient'] < 1.05
    assert '  all' in training
    assert 'sent by' not in sampling
    assert 'loops of unknown length' in likelihood


def numbers(text):
    """The first number of every row."""
    rows = re.findall(r'^  (.*?)  +([\d.]+)', text, re.MULTILINE)
    return {name: float(value) for name, value in rows}
