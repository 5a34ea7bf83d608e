"""An experiment of another kind does all that the program does, once both tables have it."""

import json
import re

import jax
import numpy as np
import pytest

from analysis import compile_ahead
from configs import base, document
from devices import sharding
from evaluation import quantities
from evaluation.quantities import HIGHER, Quantity
from experiments import kinds
from reports import logs
from storage.checkpoints import Checkpoints
from tests.support import program, regression

# Many programs are compiled.
pytestmark = pytest.mark.slow

CONFIG = '--config=tests/support/regression.py'


@pytest.fixture(autouse=True)
def _known(monkeypatch):
    regression.register(monkeypatch)


def flags(workdir, mode, *more):
    return CONFIG, f'--workdir={workdir}', f'--mode={mode}', *more


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A workdir that was trained without interruption."""
    workdir = tmp_path_factory.mktemp('trained')
    with pytest.MonkeyPatch.context() as patch:
        regression.register(patch)
        program.call(*flags(workdir, 'train'))
    return workdir


# Training


def test_its_loss_falls(trained):
    rows = logs.read(trained / 'logs' / 'metrics.jsonl')
    losses, tested = ([row[n] for row in rows if n in row] for n in ('loss', 'test_loss'))
    assert len(losses) == 10
    assert len(tested) == 5
    assert losses[-1] < 0.5 * losses[0]
    assert tested[-1] < 0.5 * tested[0]
    assert all('grad_norm' in row for row in rows if 'loss' in row)


@pytest.mark.parametrize('saved', [8, 24])
def test_a_run_that_was_killed_ends_with_the_same_bits(trained, tmp_path, monkeypatch, saved):
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, 'save', killed_after(saved))
        with pytest.raises(KeyboardInterrupt):
            program.call(*flags(tmp_path, 'train'))
    steps = {path.name for path in (tmp_path / 'checkpoints').iterdir()}
    assert str(saved) in steps
    assert '40' not in steps
    program.call(*flags(tmp_path, 'train'))
    once, again = program.arrays(trained, 40), program.arrays(tmp_path, 40)
    assert once.keys() == again.keys()
    for name, array in once.items():
        np.testing.assert_array_equal(array, again[name], err_msg=name)
    losses = [
        [(row['step'], row['loss']) for row in logs.read(path) if 'loss' in row]
        for path in (workdir / 'logs' / 'metrics.jsonl' for workdir in (trained, tmp_path))
    ]
    assert losses[0] == losses[1]


def killed_after(step):
    """Checkpoints.save, and after that of this step no more."""
    save = Checkpoints.save

    def save_and_die(self, state, loss=None):
        save(self, state, loss)
        if int(state.step) == step:
            self.wait()
            raise KeyboardInterrupt

    return save_and_die


def test_a_run_with_another_field_is_another_run(trained):
    refused = program.refusal(*flags(trained, 'train', '--config.curve.width=8'))
    assert refused.startswith(f'error: curve.width: 8, but trained with 16; {trained} keeps')
    assert not base.is_fixed(regression.NAME)('eval.explained')


def test_losses_that_are_not_finite_end_it_in_one_line(tmp_path):
    """Likely causes are fields that this experiment has: it has none of those that are known."""
    huge = '--config.curve.rate=1e30', '--config.training.max_skipped=4'
    refused = program.refusal(*flags(tmp_path, 'train', *huge))
    assert 'loss or gradient were not finite' in refused
    assert 'optim' not in refused
    assert 'likely' not in refused
    place = program.refusal(*flags(tmp_path / 'b', 'train', *huge, '--config.debug.nans=True'))
    assert 'regression.py:' in place


def test_a_batch_of_more_than_all_examples_is_refused(tmp_path):
    refused = program.refusal(*flags(tmp_path, 'train', '--config.curve.num_examples=20'))
    assert refused == 'error: training.batch_size: 32 is more than all 20 examples'


# Evaluation


@pytest.fixture(scope='module')
def evaluated(trained):
    """The last checkpoints of the run, evaluated."""
    with pytest.MonkeyPatch.context() as patch:
        regression.register(patch)
        program.call(*flags(trained, 'eval', '--config.eval.checkpoints=(24, 40)'))
    return trained


def test_its_loss_and_its_own_measure_are_kept_with_what_they_are(evaluated):
    found = quantities.read(evaluated / 'eval' / '40' / 'metrics.json')
    loss, explained = found
    assert (loss.name, explained.label) == ('test_loss', 'variance_explained')
    assert loss.standard_error > 0
    assert 0.2 < explained.value < 1
    assert explained == Quantity('explained', explained.value, None, HIGHER, of='variance')
    rows = json.loads((evaluated / 'eval' / '40' / 'metrics.json').read_text())['quantities']
    assert [row['name'] for row in rows] == ['test_loss', 'explained']


def test_the_best_of_several_checkpoints_is_that_by_its_measure(evaluated, capsys):
    program.call(
        *flags(evaluated, 'eval', '--config.eval.checkpoints=(24, 40)'),
        '--config.eval.best_by=variance_explained',
    )
    said = capsys.readouterr().out
    values = {
        step: quantities.read(evaluated / 'eval' / str(step) / 'metrics.json')[1].value
        for step in (32, 40)
    }
    best = max(values, key=values.get)
    assert f'Best by variance_explained: step {best}' in said


def test_its_report_shows_what_there_is(evaluated):
    page = (evaluated / 'report.html').read_text()
    assert f'<title>{regression.NAME}</title>' in page
    for words in ('test loss', 'variance_explained', 'curve.width', 'Checkpoints', '<svg'):
        assert words in page
    for words in ('pixels', 'Samples', 'None SDE', 'Likelihood'):
        assert words not in page
    assert (evaluated / 'curves.png').exists()


# Other modes


def test_its_cost_is_counted(capsys):
    program.call(CONFIG, '--mode=cost', '--devices=4', '--config.curve.width=10')
    said = capsys.readouterr().out
    lines = [re.sub(' +', ' ', line.strip()) for line in said.splitlines()]
    assert f'parameters {3 * 10 + 10 + 10 + 1}' in lines
    assert f'forward pass, one example {2 * (3 * 10 + 10)} FLOP' in lines
    # Backwards two products for the last layer, and one for the first.
    assert f'training step, 32 examples {32 * 2 * (2 * 30 + 3 * 10) / 1000:g} kFLOP' in lines
    assert 'image' not in said


def test_its_programs_are_those_that_are_compiled_ahead():
    config = regression.get_config()
    mesh = sharding.create_mesh()
    tasks = list(compile_ahead.tasks(config, kinds.create(config, mesh), mesh))
    assert [task.title for task in tasks] == ['training step of 32 examples']
    tasks[0].run.lower(*tasks[0].args)


def test_it_draws_nothing(trained):
    refused = program.refusal(*flags(trained, 'sample'))
    assert refused == "error: --mode=sample: experiment 'regression' draws no images"


def test_tasks_are_for_experiments_that_draw(trained):
    assert program.refusal(*flags(trained, 'sample', '--task=inpaint')).startswith(
        'error: --task: '
    )


# Fields


@pytest.mark.parametrize(
    ('flag', 'message'),
    [
        ('--config.curve.width=0', 'curve.width: 0; a number of at least 1 and at most 1,000'),
        ('--config.curve.rate=-1.0', 'curve.rate: -1.0; a number of at least 0 needed'),
        ('--config.curve.widht=3', "there is no field 'widht'"),
        ('--config.optim.lr=0.1', "there is no field 'optim'"),
        ('--config.experiment=regresion', "experiment: unknown name 'regresion' (did you mean"),
    ],
)
def test_fields_that_it_has_not_are_refused(tmp_path, flag, message):
    assert message in program.refusal(*flags(tmp_path, 'train', flag))
    assert not list(tmp_path.iterdir())


def test_its_fields_are_documented():
    text = document.text()
    assert '| `curve.width` | `16` | whole number, >= 1, <= 1,000 | `regression` |' in text


def test_a_config_of_before_gets_its_newer_fields():
    values = regression.get_config().to_dict()
    assert base.completed({k: v for k, v in values.items() if k != 'curve'}) == values


def test_no_compilation_is_needed_to_know_its_state():
    config = regression.get_config()
    state = jax.eval_shape(kinds.create(config).init, jax.random.key(0))
    assert state.evaluated['hidden']['kernel'].shape == (3, 16)
