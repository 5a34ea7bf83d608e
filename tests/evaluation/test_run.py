"""Which checkpoints are evaluated, and that what was interrupted ends with the same numbers."""

import json

import numpy as np
import pytest

from choices import InputError
from evaluation import run
from storage import fingerprints, resumable
from tests import tiny_classifier, tiny_config
from tests.support import random_run


def loss_only(**fields):
    config = tiny_config.get_config()
    config.eval.bpd = False
    config.eval.samplers = ()
    config.eval.update(fields)
    return config


def numbers(workdir):
    """What is on disk, by step."""
    found = {}
    for path in (workdir / 'eval').glob('*/metrics.json'):
        found[int(path.parent.name)] = path.read_text()
    return found


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
    run.evaluate(config, once)
    total, made = len(made), []
    interruptions = sorted(np.random.default_rng(0).choice(np.arange(1, total), 5, replace=False))
    for _ in interruptions:
        with pytest.raises(KeyboardInterrupt):
            run.evaluate(config, often)
        assert not numbers(often)
    run.evaluate(config, often)
    assert len(made) == len(set(made)) == total >= 20
    assert numbers(once) == numbers(often)
    assert {'test_loss', 'pc_fd_classifier', 'train_fd_classifier'} <= set(
        json.loads(numbers(once)[3])
    )


def test_a_damaged_part_is_made_again(tmp_path):
    made = []

    def make():
        made.append(1)
        return {'a': np.arange(5.0)}

    for _ in range(2):
        np.testing.assert_array_equal(resumable.keep(tmp_path, 7, make)['a'], np.arange(5.0))
    assert len(made) == 1
    (path,) = tmp_path.glob('*.npz')
    path.write_bytes(path.read_bytes()[:100])
    np.testing.assert_array_equal(resumable.keep(tmp_path, 7, make)['a'], np.arange(5.0))
    assert len(made) == 2


def test_the_checksum_is_that_of_the_values():
    params = {'a': np.float32([1, 2]), 'b': np.float32([3, 4])}
    others = (
        {'a': np.float32([1, 2]), 'b': np.float32([3, 4.000001])},
        {'a': np.float32([3, 4]), 'b': np.float32([1, 2])},
    )
    assert fingerprints.checksum(params) == fingerprints.checksum(dict(params))
    assert all(fingerprints.checksum(params) != fingerprints.checksum(other) for other in others)


# Checkpoints


def test_a_range_of_checkpoints_and_the_best_of_them(tmp_path, capsys):
    config = loss_only(checkpoints=(3, 9), best_by='test_loss')
    random_run.create(tmp_path, config, 2, 3, 5, 10)
    run.evaluate(config, tmp_path)
    found = {step: json.loads(text)['test_loss'] for step, text in numbers(tmp_path).items()}
    assert set(found) == {3, 5}
    best = min(found, key=found.get)
    assert f'Best by test_loss: step {best}, {found[best]:.4g}' in capsys.readouterr().out
    report = (tmp_path / 'report.html').read_text()
    assert all(f'{loss:.4g}' in report for loss in found.values())


def test_checkpoints_that_are_still_to_come_are_waited_for(tmp_path, monkeypatch):
    config = loss_only(checkpoints=(1, 8), wait=60.0)
    random_run.create(tmp_path, config)
    coming = iter((4, 8))
    monkeypatch.setattr(
        run.time, 'sleep', lambda _: random_run.save(tmp_path, config, next(coming))
    )
    run.evaluate(config, tmp_path)
    assert set(numbers(tmp_path)) == {4, 8}


def test_waiting_has_an_end_and_keeps_what_was_found(tmp_path, monkeypatch):
    config = loss_only(checkpoints=(1, 8), wait=0.01)
    random_run.create(tmp_path, config, 4)
    with pytest.raises(InputError, match=r'none of steps 5 to 8 within 0.01 seconds .*are: \[4\]'):
        run.evaluate(config, tmp_path)
    assert set(numbers(tmp_path)) == {4}


def test_evaluation_leaves_alone_what_training_is_about_to_save(tmp_path):
    config = loss_only()
    random_run.create(tmp_path, config, 4)
    unfinished = tmp_path / 'checkpoints' / '8.orbax-checkpoint-tmp-1'
    unfinished.mkdir()
    run.evaluate(config, tmp_path)
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
        run.evaluate(loss_only(**fields), tmp_path)


@pytest.mark.parametrize(
    ('name', 'step'), [('bits_per_dim', 2), ('pc_recall_classifier', 1), ('inception_score', 1)]
)
def test_distances_are_best_when_small_and_shares_when_large(name, step):
    assert f'step {step},' in run.best({1: {name: 0.9}, 2: {name: 0.8}}, name)


def test_a_best_by_nothing_that_was_measured_is_refused():
    with pytest.raises(InputError, match="eval.best_by: nothing .*'fid'; there are: .*'step'"):
        run.best({1: {'step': 1}}, 'fid')
