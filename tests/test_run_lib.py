"""Which checkpoints are evaluated, and that an interruption does not change the numbers."""

import shutil
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import run_lib
from choices import InputError, RunError
from evaluation import quantities
from experiments import run_files
from reports import pictures
from reports.logs import Skipped
from solvers import adaptive
from storage import resumable
from tests import tiny_classes, tiny_classifier, tiny_config
from tests.support import networks, random_run


def loss_only(**fields):
    config = tiny_config.get_config()
    config.eval.bpd = False
    config.eval.samplers = ()
    config.eval.update(fields)
    return config


def numbers(workdir):
    """What is on disk: quantities by label, by step."""
    found = {}
    for path in (workdir / 'eval').glob('*/metrics.json'):
        found[int(path.parent.name)] = {q.label: q for q in quantities.read(path)}
    return found


# Updates that are skipped


@pytest.mark.parametrize(
    ('config', 'named'), [(tiny_config, False), (tiny_classes, True), (tiny_classifier, True)]
)
def test_labels_are_a_likely_cause_of_what_is_not_finite_where_there_are_classes(
    config, named, tmp_path
):
    fields = config.get_config()
    progress = types.SimpleNamespace(most_skipped=Skipped(8, fields.training.max_skipped))
    with (
        run_files.open_checkpoints(fields, tmp_path) as checkpoints,
        pytest.raises(RunError, match='likely causes: optim.lr = .* is too high') as raised,
    ):
        run_lib.check_skipped(fields, progress, checkpoints)
    cause = f'model.num_classes = {fields.model.get("num_classes")} is not above every label'
    assert (cause in str(raised.value)) == named


# Interruptions


@pytest.mark.slow
def test_an_interrupted_evaluation_ends_with_the_same_numbers(tmp_path, monkeypatch):
    """Five interruptions, in loss, samples and features; no finished batch is made again."""
    judge = random_run.create(tmp_path / 'judge', tiny_classifier.get_config(), 3)
    config = loss_only(
        samplers=('pc',), num_samples=12, quality=('classifier',), classifier_workdir=str(judge)
    )
    config.data.test_fraction = 0.02
    once = random_run.create(tmp_path / 'once', config, 3)
    often = random_run.create(tmp_path / 'often', config, 3)
    save, made = resumable.save, []

    def noted(path, arrays):
        made.append(path)
        save(path, arrays)
        if len(made) in interruptions:
            raise KeyboardInterrupt

    monkeypatch.setattr(resumable, 'save', noted)
    interruptions = ()
    run_lib.evaluate(config, once)
    total, made = len(made), []
    interruptions = sorted(np.random.default_rng(0).choice(np.arange(1, total), 5, replace=False))
    for _ in interruptions:
        with pytest.raises(KeyboardInterrupt):
            run_lib.evaluate(config, often)
        assert not numbers(often)
    run_lib.evaluate(config, often)
    assert len(made) == len(set(made)) == total >= 20
    assert numbers(once) == numbers(often)
    assert {'test_loss', 'pc_fd_classifier', 'train_fd_classifier'} <= set(numbers(once)[3])


# Data that change


def write_images(path, seed, num=30):
    path.mkdir(exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (num, 8, 8), np.uint8)
    for i in range(num):
        Image.fromarray(pixels[i]).save(path / f'{i}.bmp')
    return f'folder:{path}'


@pytest.mark.slow
def test_images_that_take_the_place_of_others_are_measured_anew(tmp_path):
    """Under the same names, of the same size."""
    config, losses = loss_only(), []
    config.data.source = write_images(tmp_path / 'photos', 0)
    random_run.create(tmp_path / 'run', config, 3)
    for seed in (0, 1, 0):
        write_images(tmp_path / 'photos', seed)
        run_lib.evaluate(config, tmp_path / 'run')
        losses.append(numbers(tmp_path / 'run')[3]['test_loss'].value)
    assert losses[0] == losses[2] != losses[1]


@pytest.mark.slow
def test_data_may_move_but_not_become_others_unless_to_be_measured(tmp_path, capsys):
    config = loss_only()
    config.data.source = write_images(tmp_path / 'photos', 0)
    config.training.update({'num_steps': 4, 'sample_every': 0, 'checkpoint_every': 4})
    run_lib.train(config, tmp_path / 'run')
    (tmp_path / 'photos').rename(tmp_path / 'moved')
    config.data.source, config.training.num_steps = f'folder:{tmp_path}/moved', 8
    run_lib.train(config, tmp_path / 'run')
    run_lib.evaluate(config, tmp_path / 'run')
    assert 'when training began' not in capsys.readouterr().out
    before = (tmp_path / 'run' / 'config.json').read_text()
    write_images(tmp_path / 'more', 1, num=40)
    config.data.source, config.training.num_steps = f'folder:{tmp_path}/more', 12
    with pytest.raises(InputError, match='the train split has .*, and had .* when training began'):
        run_lib.train(config, tmp_path / 'run')
    assert (tmp_path / 'run' / 'config.json').read_text() == before
    assert not (tmp_path / 'run' / 'lock').exists()
    run_lib.evaluate(config, tmp_path / 'run')
    said = capsys.readouterr().out
    assert said.count('test split has') == 1
    assert 'not all of them are the same, and what is measured is of those of today' in said


@pytest.mark.slow
def test_a_resumed_run_says_that_its_data_are_others(tmp_path, capsys):
    config = loss_only()
    config.data.source = write_images(tmp_path / 'photos', 0)
    config.training.update({'num_steps': 4, 'sample_every': 0, 'checkpoint_every': 4})
    run_lib.train(config, tmp_path / 'run')
    write_images(tmp_path / 'photos', 0, num=40)
    config.training.num_steps = 8
    run_lib.train(config, tmp_path / 'run')
    said = capsys.readouterr().out
    assert 'the train split has' in said
    assert 'when training began; not all of them are the same' in said


@pytest.mark.slow
@pytest.mark.parametrize('task', ['none', 'class'])
def test_sampling_needs_no_data(task, tmp_path):
    config = tiny_classes.get_config()
    config.data.source, config.task.name = 'folder:/nowhere/at/all', task
    random_run.create(tmp_path, config, 3)
    run_lib.sample(config, tmp_path)
    assert len(list((tmp_path / 'samples').glob('*.npz'))) == 1


# Checkpoints


@pytest.mark.slow
def test_a_range_of_checkpoints_and_the_best_of_them(tmp_path, capsys):
    config = loss_only(checkpoints=(3, 9), best_by='test_loss')
    random_run.create(tmp_path, config, 2, 3, 5, 10)
    run_lib.evaluate(config, tmp_path)
    found = {step: known['test_loss'].value for step, known in numbers(tmp_path).items()}
    assert set(found) == {3, 5}
    best = min(found, key=found.get)
    assert f'Best by test_loss: step {best}, {found[best]:.4g}' in capsys.readouterr().out
    report = (tmp_path / 'report.html').read_text()
    assert all(f'{loss:.4g}' in report for loss in found.values())


@pytest.mark.slow
def test_checkpoints_that_are_still_to_come_are_waited_for(tmp_path, monkeypatch):
    config = loss_only(checkpoints=(1, 8), wait=60.0)
    random_run.create(tmp_path, config)
    coming = iter((4, 8))
    monkeypatch.setattr(
        run_lib.time, 'sleep', lambda _: random_run.save(tmp_path, config, next(coming))
    )
    run_lib.evaluate(config, tmp_path)
    assert set(numbers(tmp_path)) == {4, 8}


@pytest.mark.slow
def test_waiting_has_an_end_and_keeps_what_was_found(tmp_path, monkeypatch):
    config = loss_only(checkpoints=(1, 8), wait=0.01)
    random_run.create(tmp_path, config, 4)
    with pytest.raises(InputError, match=r'none of steps 5 to 8 within 0.01 seconds .*are: \[4\]'):
        run_lib.evaluate(config, tmp_path)
    assert set(numbers(tmp_path)) == {4}


def test_evaluation_leaves_alone_what_training_is_about_to_save(tmp_path):
    config = loss_only()
    random_run.create(tmp_path, config, 4)
    unfinished = tmp_path / 'checkpoints' / '8.orbax-checkpoint-tmp-1'
    unfinished.mkdir()
    run_lib.evaluate(config, tmp_path)
    assert unfinished.exists()


@pytest.mark.parametrize(
    ('fields', 'why'),
    [
        ({'checkpoints': (3,)}, r'eval.checkpoints: \(3,\); the first and the last step'),
        ({'checkpoints': (3, 4), 'checkpoint': 3}, 'eval.checkpoint: 3, and eval.checkpoints'),
        ({'wait': 5.0}, 'eval.wait: 5.0 seconds, and no eval.checkpoints to wait for'),
    ],
)
def test_ranges_that_make_no_sense_are_refused(fields, why, tmp_path):
    with pytest.raises(InputError, match=why):
        run_lib.evaluate(loss_only(**fields), tmp_path)


def test_rates_are_apart_from_what_is_the_same_every_time(tmp_path):
    config = loss_only(samplers=('pc',), num_samples=4)
    random_run.create(tmp_path, config, 3)
    run_lib.evaluate(config, tmp_path)
    rates = quantities.read(tmp_path / 'eval' / '3' / 'rates.json')
    assert [quantity.label for quantity in rates] == ['pc_samples_per_second']
    assert set(numbers(tmp_path)[3]) == {'test_loss', 'pc_nfe'}


def test_a_best_by_nothing_that_was_measured_is_refused(tmp_path):
    config = loss_only(best_by='fid')
    random_run.create(tmp_path, config, 3)
    with pytest.raises(InputError, match="eval.best_by: nothing .*'fid'.*; there are: test_loss"):
        run_lib.evaluate(config, tmp_path)
    assert set(numbers(tmp_path)) == {3}


# What is drawn


def spoiled(workdir, config):
    """A run of which one parameter is no number."""
    random_run.create(workdir, config)
    save = networks.randomised
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks, 'randomised', lambda params: with_a_nan(save(params)))
        random_run.save(workdir, config, 3)
    return workdir


def with_a_nan(params):
    leaves, form = jax.tree.flatten(params)
    return jax.tree.unflatten(form, [leaves[0].at[(0,) * leaves[0].ndim].set(jnp.nan), *leaves[1:]])


def drawn(workdir, **fields):
    """Runs --mode=sample."""
    config = tiny_config.get_config()
    config.sampling.update(fields)
    run_lib.sample(config, workdir)


@pytest.mark.parametrize(
    ('method', 'why'),
    [
        ('pc', '6 are not finite'),
        ('ode', r'stood still at t = 1 after [\d ,to]+ steps; raise sampling.rtol \(0.1\) or'),
        ('sde', r'stood still at t = 1 after [\d ,to]+ steps; raise sampling.sde_rtol \(0.02\)'),
        ('adaptive_sde', r'stood still at t = 1 after [\d ,to]+ steps; raise sampling.sde_rtol'),
    ],
)
@pytest.mark.slow
def test_a_network_without_numbers_draws_nothing_and_says_so(method, why, tmp_path):
    workdir = spoiled(tmp_path, tiny_config.get_config())
    with pytest.raises(
        RunError, match=f'^{method}: 6 of 6 images are left out: .*{why}'
    ) as refused:
        drawn(workdir, method=method)
    assert 'of the parameters of the checkpoint 1 are not finite' in str(refused.value)
    assert not list((workdir / 'samples').glob('*.*'))


@pytest.mark.slow
def test_images_that_are_done_are_written_and_the_others_are_not(tmp_path, monkeypatch):
    random_run.create(tmp_path, tiny_config.get_config(), 3)
    fields = {'method': 'adaptive_sde', 'sde_rtol': 0.1, 'sde_atol': 0.1}
    drawn(tmp_path / '.', **fields)
    whole = np.load(tmp_path / 'samples' / '0000003_adaptive_sde.npz')
    steps = np.sort((whole['nfe'] - 1) // adaptive.EVALUATIONS)
    assert steps[0] < steps[-1]
    monkeypatch.setattr(adaptive, 'MAX_STEPS', int(steps[-1]) - 1)
    shutil.rmtree(tmp_path / 'samples')
    with pytest.raises(RunError, match='^adaptive_sde: [1-5] of 6 images are left out: '):
        drawn(tmp_path, **fields)
    found = np.load(tmp_path / 'samples' / '0000003_adaptive_sde.npz')
    is_done = whole['nfe'] < whole['nfe'].max()
    np.testing.assert_array_equal(found['index'], np.flatnonzero(is_done))
    np.testing.assert_array_equal(found['samples'], whole['samples'][is_done])


@pytest.mark.slow
def test_an_evaluation_with_images_left_out_has_no_numbers_of_them(tmp_path):
    config = loss_only(bpd=True, samplers=('pc',), num_samples=6)
    spoiled(tmp_path, config)
    with pytest.raises(RunError, match='^numbers are missing: step 3, test_loss is not finite; '):
        run_lib.evaluate(config, tmp_path)
    found = {label: q.value for label, q in numbers(tmp_path)[3].items()}
    assert found == {'bits_per_dim_images_left_out': 12, 'pc_images_left_out': 6}
    text = (tmp_path / 'eval' / '3' / 'metrics.json').read_text()
    assert 'NaN' not in text
    assert not (tmp_path / 'eval' / '3' / 'samples_pc.png').exists()


def test_one_image_makes_a_file_that_is_json(tmp_path):
    config = loss_only(bpd=True, num_bpd_images=1)
    random_run.create(tmp_path, config, 3)
    run_lib.evaluate(config, tmp_path)
    assert 'NaN' not in (tmp_path / 'eval' / '3' / 'metrics.json').read_text()
    assert numbers(tmp_path)[3]['bits_per_dim'].standard_error is None


@pytest.mark.slow
def test_another_seed_draws_other_images_beside_the_first(tmp_path):
    random_run.create(tmp_path, tiny_config.get_config(), 3)
    path = tmp_path / 'samples' / '0000003_pc.npz'
    drawn(tmp_path)
    first = dict(np.load(path))
    drawn(tmp_path, seed=1)
    other = np.load(tmp_path / 'samples' / '0000003_pc_seed1.npz')['samples']
    assert (other != first['samples']).any(axis=(1, 2, 3)).all()
    shutil.rmtree(tmp_path / 'samples' / 'batches')
    drawn(tmp_path)
    for name, array in np.load(path).items():
        np.testing.assert_array_equal(array, first[name])


@pytest.mark.slow
def test_other_settings_never_overwrite_samples(tmp_path):
    random_run.create(tmp_path, tiny_config.get_config(), 3)
    for fields in ({}, {'steps': 5}, {'num_samples': 3}, {'steps': 5}, {}):
        drawn(tmp_path, **fields)
    found = sorted((tmp_path / 'samples').glob('*.npz'))
    assert [path.name[:10] for path in found] == ['0000003_pc'] * 3
    assert len(np.load(tmp_path / 'samples' / '0000003_pc.npz')['samples']) == 6
    assert sorted(len(np.load(path)['samples']) for path in found) == [3, 6, 6]


@pytest.mark.slow
def test_interrupted_sampling_goes_on_behind_its_last_batch(tmp_path, monkeypatch):
    random_run.create(tmp_path, tiny_config.get_config(), 3)
    save, made = resumable.save, []

    def noted(path, arrays):
        save(path, arrays)
        made.append(path)
        if len(made) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(resumable, 'save', noted)
    with pytest.raises(KeyboardInterrupt):
        drawn(tmp_path)
    drawn(tmp_path)
    assert len(made) == len(set(made)) == 2


@pytest.mark.slow
def test_a_picture_has_the_first_of_many_images(tmp_path, monkeypatch, capsys):
    random_run.create(tmp_path, tiny_config.get_config(), 3)
    monkeypatch.setattr(pictures, 'MOST_IMAGES', 4)
    drawn(tmp_path)
    assert '6 images, of which the picture has the first 4 at most' in capsys.readouterr().out
    assert len(np.load(tmp_path / 'samples' / '0000003_pc.npz')['samples']) == 6
    # Two rows of two, each pixel enlarged.
    width, height = Image.open(tmp_path / 'samples' / '0000003_pc.png').size
    assert width == height
