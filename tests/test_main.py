"""The program as users run it: modes, resumption to the same bits, and refusals in one line."""

import json
import signal

import numpy as np
import pytest
from PIL import Image

import run_lib
from choices import InputError
from devices import processes
from evaluation import quantities
from reports import logs
from tests import published_config, tiny_config
from tests.support import program, random_run

CONFIG = '--config=tests/tiny_config.py'


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
    """A finished run."""
    path = tmp_path_factory.mktemp('run')
    program.succeed(CONFIG, '--mode=train', f'--workdir={path}')
    return path


def losses(workdir):
    rows = logs.read(workdir / 'logs' / 'metrics.jsonl')
    kept = ('step', 'loss', 'grad_norm', 'test_loss')
    return [{name: row[name] for name in kept if name in row} for row in rows]


# Modes


def test_training_leaves_what_the_readme_promises(workdir):
    assert sorted(path.name for path in (workdir / 'checkpoints').iterdir()) == ['20', '30', '40']
    assert json.loads((workdir / 'config.json').read_text())['data']['source'] == 'digits'
    assert Image.open(workdir / 'samples' / '0000040.png').size[0] > 100
    assert (workdir / 'curves.png').exists()
    assert list((workdir / 'logs').glob('events.*'))
    rows = logs.read(workdir / 'logs' / 'metrics.jsonl')
    assert [row['step'] for row in rows if 'loss' in row] == list(range(4, 41, 4))
    assert [row['step'] for row in rows if 'test_loss' in row] == [20, 40]
    assert all(0 <= row['data_wait'] <= 1 for row in rows if 'loss' in row)


@pytest.mark.slow
def test_evaluation_measures_loss_likelihood_and_samplers(workdir):
    printed = program.succeed(CONFIG, '--mode=eval', f'--workdir={workdir}')
    assert (workdir / 'report.html').exists()
    found = {
        quantity.label: quantity
        for name in ('metrics.json', 'rates.json')
        for quantity in quantities.read(workdir / 'eval' / '40' / name)
    }
    assert found['bits_per_dim_images'].value == 12
    bits_per_dim = found['bits_per_dim']
    assert 0 < bits_per_dim.value < 20
    assert bits_per_dim.standard_error > 0
    assert bits_per_dim.better == 'lower'
    # One dequantisation and one probe: their parts of the error are not known.
    assert found['bits_per_dim_error_of_data'].value == bits_per_dim.standard_error
    assert 'bits_per_dim_error_of_probes' not in found
    assert found['bits_per_dim_variational'].standard_error > 0
    assert found['test_loss'].standard_error > 0
    assert found['pc_nfe'].value == 4
    assert found['ode_nfe'].value > 4
    assert found['pc_samples_per_second'].value > 0
    for label in found:
        assert f'{label} ' in printed
    for method in ('pc', 'ode'):
        assert (workdir / 'eval' / '40' / f'samples_{method}.png').exists()
    assert np.load(workdir / 'eval' / '40' / 'bits_per_dim.npz')['bits_per_dim'].shape == (12,)


def test_sampling_draws_as_many_images_as_asked_for(workdir):
    program.call(CONFIG, '--mode=sample', f'--workdir={workdir}', '--config.eval.checkpoint=30')
    drawn = np.load(workdir / 'samples' / '0000030_pc.npz')
    assert drawn['samples'].shape == (6, 8, 8, 1)
    assert drawn['samples'].dtype == np.uint8


def test_a_finished_run_has_nothing_more_to_do_and_says_so(workdir, capsys):
    program.call(CONFIG, '--mode=train', f'--workdir={workdir}')
    assert losses(workdir)[-1]['step'] == 40
    said = capsys.readouterr().out
    assert f'{workdir}: already at step 40 of 40: nothing to train' in said
    assert 'compiling' not in said
    assert 'drawing' not in said


@pytest.mark.slow
def test_what_takes_long_is_told_before_it_begins(tmp_path, capsys, monkeypatch):
    """What does only on a machine that is busy is left out here."""
    monkeypatch.setattr(processes, 'SILENT_SECONDS', 600)
    flags = (
        CONFIG,
        f'--workdir={tmp_path}',
        '--config.training.num_steps=4',
        '--config.eval.bpd=False',
        "--config.eval.samplers=('pc',)",
        '--config.eval.num_samples=4',
    )
    expected = {
        'train': [
            *('compiling the training step ...', 'compiling the test loss ...'),
            *('drawing 4 samples of 4 steps by pc ...', 'compiling pc, 4 images at once ...'),
        ],
        'eval': [
            *('compiling loss ...', 'drawing 4 samples of 4 steps by pc ...'),
            'compiling pc, 4 images at once ...',
        ],
        'sample': ['drawing 6 samples of 4 steps by pc ...', 'compiling pc, 4 images at once ...'],
    }
    for mode, lines in expected.items():
        program.call(*flags, f'--mode={mode}')
        said = capsys.readouterr().out.splitlines()
        assert [line for line in said if line.endswith(' ...')] == lines


def test_a_cost_is_estimated_without_a_workdir_or_running_anything(capsys):
    program.call(CONFIG, '--mode=cost', '--devices=4')
    printed = capsys.readouterr().out
    rows = [line.rsplit('  ', 1) for line in printed.splitlines() if '  ' in line]
    found = {name.rstrip(): value.strip() for name, value in rows if name.strip()}
    assert int(found['parameters'].replace(',', '')) > 1000
    assert found['  training step, 8 examples'].endswith('MFLOP')
    assert found['  activations, each of 4 devices'].endswith('KiB')


@pytest.mark.slow
def test_none_is_a_value_on_the_command_line(tmp_path):
    """Of numbers, and of text that may be None; of other text it is a name."""
    flags = '--config=tests/published_config.py', '--mode=import', f'--workdir={tmp_path}'
    program.call(
        *(*flags, '--checkpoint=tests/data/published_ncsnpp_ve.pth'),
        *('--config.sampling.t_min=none', '--config.eval.checkpoint=None'),
        *('--config.data.data_dir=none', '--config.model.progressive=none'),
    )
    config = json.loads((tmp_path / 'config.json').read_text())
    assert config['sampling']['t_min'] is config['eval']['checkpoint'] is None
    assert config['data']['data_dir'] is None
    assert config['model']['progressive'] == 'none'


# The config of a workdir


@pytest.fixture
def untrained(tmp_path):
    """A run with random parameters, which no config file describes."""
    config = tiny_config.get_config()
    config.seed, config.data.source = 7, 'folder:/nowhere'
    return random_run.create(tmp_path / 'run', config, 20)


def test_a_workdir_knows_its_config(untrained):
    program.call('--mode=sample', f'--workdir={untrained}', '--config.sampling.num_samples=4')
    assert len(np.load(untrained / 'samples' / '0000020_pc.npz')['samples']) == 4
    exported = untrained / 'a.npz'
    program.call('--mode=export', '--workdir', untrained, f'--checkpoint={exported}')
    assert np.load(exported)['step'] == 20


def test_what_a_run_keeps_cannot_be_changed_by_the_command_line_alone(untrained):
    fields = '--config.model.nf=16', '--config.seed=8', '--config.sampling.steps=3'
    refused = program.refusal('--mode=sample', f'--workdir={untrained}', *fields)
    assert refused.startswith(
        'error: model.nf: 16, but trained with 8; seed: 8, but trained with 7; '
    )


def test_the_config_of_a_workdir_may_be_that_of_another(untrained, tmp_path):
    other = random_run.create(tmp_path / 'other', tiny_config.get_config(), 20)
    flags = f'--config={untrained}/config.json', '--mode=export', f'--checkpoint={tmp_path}/a.npz'
    program.call(*flags, f'--workdir={untrained}')
    refused = program.refusal(*flags, f'--workdir={other}')
    assert 'seed: 7, but trained with 42' in refused


@pytest.mark.slow
def test_training_goes_on_by_the_config_of_the_workdir(tmp_path, capsys):
    short = '--config.training.sample_every=0', '--config.training.num_steps=4'
    workdir = f'--workdir={tmp_path}'
    program.call(CONFIG, workdir, *short, '--config.seed=3', '--config.training.checkpoint_every=4')
    program.call(workdir, '--config.training.num_steps=8')
    assert f'{tmp_path}: step 4 of 8' in capsys.readouterr().out
    assert json.loads((tmp_path / 'config.json').read_text())['seed'] == 3


def test_fields_of_a_choice_that_the_command_line_took_back_stay_without_effect(tmp_path):
    """A config file has a field of its SDE, and the command line chose another SDE."""
    config = tiny_config.get_config()
    config.sde.update({'name': 'subvp', 'sigma_max': 50.0})
    random_run.create(tmp_path, config, 20)
    flags = '--mode=sample', f'--workdir={tmp_path}'
    program.call(*flags)
    refused = program.refusal(*flags, '--config.sde.sigma_max=40.0')
    assert refused.startswith("error: sde.sigma_max: 'subvp' has no such field")


@pytest.mark.parametrize(
    ('flags', 'expected'),
    [
        ((), '--config: none given; a config file needed, or the --workdir of a run, which has'),
        (('--config.seed=1',), '--config: none given; a config file needed'),
        (('--workdir=PATH',), '--config: none given, and PATH has no config.json to take'),
        (('--config=PATH/config.json',), '--config: PATH/config.json cannot be read: No such file'),
        (('--workdir=PATH/short',), '--config: PATH/short/config.json is cut short or damaged'),
        (('--workdir=PATH/none',), 'PATH/none/config.json: model.name: missing, and the other'),
        (('--workdir=PATH/typed',), 'PATH/typed/config.json is damaged, and no config: Could not'),
        (('--workdir=PATH/section',), 'PATH/section/config.json is damaged, and no config: '),
        (('--workdir=PATH/more',), 'optim.lrr: there is no such field (did you mean'),
    ],
)
def test_a_command_without_a_config_is_refused_in_one_line(flags, expected, tmp_path):
    whole = json.loads(json.dumps(tiny_config.get_config().to_dict()))
    for name, content in (
        ('short', '{"seed": '),
        ('none', '{}'),
        ('typed', json.dumps({**whole, 'seed': 'one'})),
        ('section', json.dumps({**whole, 'optim': 3})),
        ('more', json.dumps({**whole, 'optim': {**whole['optim'], 'lrr': 1.0}})),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'config.json').write_text(content)
    flags = [flag.replace('PATH', str(tmp_path)) for flag in flags]
    refused = program.refusal('--mode=sample', *flags)
    assert expected.replace('PATH', str(tmp_path)) in refused


# Resumption


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_bits(workdir, tmp_path):
    """SIGKILL once the first checkpoint is there, then the same command again."""
    flags = CONFIG, '--mode=train', f'--workdir={tmp_path}', '--config.training.sample_every=0'
    process = program.training(tmp_path, *flags, '--config.training.log_every=2')
    process.send_signal(signal.SIGKILL)
    process.wait()
    program.succeed(*flags)
    expected, found = program.arrays(workdir, 40), program.arrays(tmp_path, 40)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    assert found["['step']"] == 40


@pytest.mark.slow
def test_a_longer_run_continues_a_shorter_one(tmp_path):
    for num_steps in (20, 40):
        program.call(
            CONFIG,
            '--mode=train',
            f'--workdir={tmp_path}',
            f'--config.training.num_steps={num_steps}',
            '--config.training.sample_every=0',
            '--config.optim.cosine_decay=False',
        )
    assert [row['step'] for row in losses(tmp_path) if 'loss' in row] == list(range(4, 41, 4))


# Published checkpoints


PUBLISHED = '--config=tests/published_config.py'


@pytest.mark.slow
def test_a_flax_checkpoint_is_imported_and_sampled_and_survives_an_export(tmp_path, capsys):
    first, second, exported = tmp_path / 'first', tmp_path / 'second', tmp_path / 'a.safetensors'
    file = '--checkpoint=tests/data/published_flax_checkpoint_12'
    program.call(PUBLISHED, '--mode=import', f'--workdir={first}', file)
    assert "Adam's moments" in capsys.readouterr().out
    flags = '--mode=sample', f'--workdir={first}', '--config.sampling.corrector=none'
    program.succeed(PUBLISHED, *flags)
    drawn = np.load(first / 'samples' / '0600000_pc.npz')['samples']
    assert drawn.shape == (6, 16, 16, 3)
    assert drawn.std() > 0

    program.call(PUBLISHED, '--mode=export', f'--workdir={first}', f'--checkpoint={exported}')
    run_lib.import_checkpoint(published_config.get_config(), second, exported)
    before, after = program.arrays(first, 600_000), program.arrays(second, 600_000)
    for name, value in before.items():
        if 'opt_state' not in name and 'checksum' not in name:
            np.testing.assert_array_equal(after[name], value, err_msg=name)
        elif 'count' in name:
            assert (value, after[name]) == (600_000, 0)
    average, live = (
        before[f"{kind}['Conv_0']['kernel']"] for kind in ("['averages']['ema']", "['params']")
    )
    np.testing.assert_array_equal(live, np.float32(1.01) * average)
    with pytest.raises(InputError, match='first has checkpoints already; import into a new one'):
        run_lib.import_checkpoint(published_config.get_config(), first, exported)


@pytest.mark.slow
def test_a_pytorch_checkpoint_is_imported_and_evaluated(tmp_path, capsys):
    file = '--checkpoint=tests/data/published_ncsnpp_ve.pth'
    program.call(PUBLISHED, '--mode=import', f'--workdir={tmp_path}', file)
    assert 'a fresh optimiser' in capsys.readouterr().out
    program.call(PUBLISHED, '--mode=eval', f'--workdir={tmp_path}')
    found = json.loads((tmp_path / 'eval' / '1234' / 'metrics.json').read_text())
    assert found['step'] == 1234
    (test_loss,) = found['quantities']
    assert test_loss['name'] == 'test_loss'
    assert test_loss['value'] > 0


# Refusals; tests/test_bad_input.py has most of them


# Refused by the flags, by an experiment, by TFDS, and by the number of devices.
@pytest.mark.parametrize(
    ('flag', 'devices', 'expected'),
    [
        ('--config.optim.lrr=1', None, 'there is no field \'lrr\'. Did you mean "lr"'),
        ('--config.sde.name=vpp', None, "sde.name: unknown name 'vpp' (did you mean 'vp'?)"),
        ('--config.data.source=cifar100000', None, 'cifar100000'),
        (
            '--mode=train',
            3,
            'error: training.batch_size: 8 is not a positive multiple of the number of devices, 3',
        ),
    ],
)
def test_a_refused_program_says_nothing_else(flag, devices, expected, tmp_path):
    done = program.run(CONFIG, flag, f'--workdir={tmp_path / "new"}', devices=devices)
    assert done.returncode == 1
    assert expected in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    # But, on a machine that is busy, what it waits for.
    assert set(done.stdout.splitlines()) <= {'reading the data ...'}
    assert not (tmp_path / 'new').exists()


def test_a_mode_that_needs_a_workdir_asks_for_it():
    refused = program.refusal(CONFIG, '--mode=eval')
    assert refused == 'error: --workdir: --mode=eval needs a directory'


def test_a_published_checkpoint_of_another_network_is_refused(tmp_path):
    """Before a workdir is made."""
    flags = '--mode=import', f'--workdir={tmp_path / "new"}', '--config.model.nf=16'
    file = '--checkpoint=tests/data/published_flax_checkpoint_12'
    refused = program.refusal(PUBLISHED, *flags, file)
    assert 'GaussianFourierProjection_0/W is (8,), and the network has (16,)' in refused
    assert not (tmp_path / 'new').exists()
