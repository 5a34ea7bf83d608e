"""Checkpoints: which of them stay, what is done about damaged ones, and what a full disk leaves."""

import contextlib
import errno
import resource
import shutil
import time

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from choices import InputError, RunError
from storage import fingerprints
from storage.checkpoints import Checkpoints, Policy
from training import TrainState

POLICY = Policy(newest=2, every=0, best=0)


def state(step):
    params = {'kernel': jnp.arange(600.0).reshape(20, 30) * step, 'bias': jnp.ones(3)}
    averages = {'ema': jax.tree.map(jnp.sin, params)}
    return TrainState(jnp.int32(step), jnp.int32(0), params, (jnp.zeros(3),), averages)


def assert_equal(found, expected):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


def on_disk(directory):
    return sorted(int(path.name) for path in directory.iterdir() if path.name.isdecimal())


@pytest.fixture(scope='module')
def original(tmp_path_factory):
    """Steps 10 and 20."""
    directory = tmp_path_factory.mktemp('checkpoints')
    with Checkpoints(directory, POLICY) as checkpoints:
        for step in (10, 20):
            checkpoints.save(state(step))
    return directory


@pytest.fixture
def directory(original, tmp_path):
    """A copy of them."""
    return shutil.copytree(original, tmp_path / 'checkpoints')


# Which stay


@pytest.mark.parametrize(
    ('policy', 'losses', 'kept'),
    [
        (Policy(2, 0, 0), {1: None, 2: None, 3: None}, {2, 3}),
        (Policy(1, 20, 0), {10: 1.0, 20: 1.0, 30: 1.0, 40: 1.0, 50: 1.0}, {20, 40, 50}),
        (Policy(1, 0, 1), {10: 2.0, 20: 1.0, 30: 3.0}, {20, 30}),
        (Policy(1, 0, 2), {10: 2.0, 20: 1.0, 30: 3.0, 40: 4.0}, {10, 20, 40}),
        (Policy(1, 0, 1), {10: float('nan'), 20: None, 30: 5.0, 40: None}, {30, 40}),
        (Policy(3, 0, 1), {10: 1.0}, {10}),
    ],
)
def test_newest_regular_and_best_checkpoints_stay(policy, losses, kept):
    assert policy.kept(losses) == kept


def test_a_run_that_goes_on_knows_what_was_best(tmp_path):
    policy = Policy(1, 0, 1)
    with Checkpoints(tmp_path, policy) as checkpoints:
        for step, loss in ((10, 2.0), (20, 1.0), (30, 3.0)):
            checkpoints.save(state(step), loss)
    assert on_disk(tmp_path) == [20, 30]
    with Checkpoints(tmp_path, policy) as checkpoints:
        for step, loss in ((40, 1.5), (50, None)):
            checkpoints.save(state(step), loss)
    assert on_disk(tmp_path) == [20, 50]


def test_nothing_is_deleted_before_its_successor_is_complete(tmp_path, monkeypatch):
    """What is there whenever orbax gives a directory its final name or deletes one."""
    seen = []
    delete = ocp.checkpoint_manager.deleter.StandardCheckpointDeleter.delete_steps

    def spied(self, steps):
        seen.append((steps, on_disk(tmp_path)))
        delete(self, steps)

    monkeypatch.setattr(
        ocp.checkpoint_manager.deleter.StandardCheckpointDeleter, 'delete_steps', spied
    )
    with Checkpoints(tmp_path, Policy(1, 0, 0)) as checkpoints:
        for step in (10, 20, 30):
            checkpoints.save(state(step))
    assert seen == [([], [10]), ([10], [10, 20]), ([20], [20, 30])]


# Damage


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def zero(path):
    path.write_bytes(bytes(path.stat().st_size))


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


DAMAGES = {'deleted': lambda path: path.unlink(), 'cut': cut, 'zeroed': zero, 'flipped': flip}


@pytest.mark.slow
@pytest.mark.parametrize('damage', DAMAGES)
def test_a_damaged_file_gives_the_state_or_the_one_before_and_never_another(
    damage, original, tmp_path, capsys
):
    """Of every file of the newest checkpoint; some of them are not needed."""
    names = [p.relative_to(original) for p in (original / '20').rglob('*') if p.is_file()]
    replaced = []
    for i, name in enumerate(names):
        directory = shutil.copytree(original, tmp_path / str(i))
        DAMAGES[damage](directory / name)
        with Checkpoints(directory) as checkpoints:
            found = checkpoints.restore(state(1))
        assert_equal(found, state(int(found.step)))
        said = capsys.readouterr().out
        if found.step == 10:
            replaced.append(name)
            assert f'{directory}/20 is damaged' in said
            assert said.count('\n') == 1
        else:
            assert not said
    assert replaced


def test_a_state_that_is_not_the_one_saved_is_damaged(directory, monkeypatch, capsys):
    """Flipped bits that no reader notices."""
    manager = ocp.CheckpointManager
    restore = manager.restore

    def flipped(self, step, args):
        found = restore(self, step, args=args)
        if step == 20:
            found['params']['bias'] = found['params']['bias'].at[0].set(1.0000001)
        return found

    monkeypatch.setattr(manager, 'restore', flipped)
    with Checkpoints(directory) as checkpoints:
        assert_equal(checkpoints.restore(state(1)), state(10))
    assert '20 is damaged: its arrays are not those that were saved' in capsys.readouterr().out


def test_training_puts_damage_aside_and_saves_the_step_again(directory, capsys):
    (directory / '20' / 'default' / 'manifest.ocdbt').unlink()
    with Checkpoints(directory, POLICY) as checkpoints:
        assert_equal(checkpoints.restore(state(1)), state(10))
        assert 'renamed 20.damaged; using step 10' in capsys.readouterr().out
        checkpoints.save(state(20))
    with Checkpoints(directory) as checkpoints:
        assert_equal(checkpoints.restore(state(1)), state(20))
    assert (directory / '20.damaged').exists()


def test_a_damaged_checkpoint_that_was_asked_for_is_refused(directory):
    cut(directory / '20' / 'default' / 'manifest.ocdbt')
    with (
        Checkpoints(directory) as checkpoints,
        pytest.raises(InputError, match=r'eval.checkpoint: .*20 is damaged.*there are: \[10, 20\]'),
    ):
        checkpoints.restore(state(1), 20)


def test_damage_to_all_is_refused_and_nothing_is_renamed(directory):
    for step in (10, 20):
        cut(directory / str(step) / 'default' / 'manifest.ocdbt')
    with (
        Checkpoints(directory, POLICY) as checkpoints,
        pytest.raises(InputError, match=r'20 is damaged.*, as are all of the steps \[10, 20\]'),
    ):
        checkpoints.restore(state(1))
    assert on_disk(directory) == [10, 20]


def test_a_checkpoint_of_another_network_is_refused_and_not_taken_for_damaged(directory):
    wider = {'kernel': jnp.zeros((20, 31)), 'bias': jnp.ones(3)}
    message = r'20 is of another network: params.kernel is \(20, 30\) there, and \(20, 31\)'
    with (
        Checkpoints(directory, POLICY) as checkpoints,
        pytest.raises(InputError, match=message),
    ):
        checkpoints.restore(state(1)._replace(params=wider))
    assert on_disk(directory) == [10, 20]


# Checkpoints of the version before, whose only average was `ema_params`


def save_as_before(directory, saved, **changed):
    """What that version wrote; checksums were of the same arrays in the same order."""
    before = saved._asdict()
    before['ema_params'] = before.pop('averages')['ema']
    tree = {'checksum': fingerprints.checksum(saved), **before, **changed}
    handler = ocp.StandardCheckpointHandler()
    with ocp.CheckpointManager(directory, item_handlers=handler) as manager:
        manager.save(int(saved.step), args=ocp.args.StandardSave(tree))


def test_a_checkpoint_of_the_version_before_is_restored(tmp_path, capsys):
    save_as_before(tmp_path, state(20))
    with Checkpoints(tmp_path) as checkpoints:
        found = checkpoints.restore(state(1))
    assert jax.tree.structure(found) == jax.tree.structure(state(20))
    assert_equal(found, state(20))
    assert not capsys.readouterr().out


def test_damage_to_a_checkpoint_of_the_version_before_is_found(tmp_path):
    wrong = jax.tree.map(jnp.cos, state(20).params)
    save_as_before(tmp_path, state(20), ema_params=wrong)
    with (
        Checkpoints(tmp_path) as checkpoints,
        pytest.raises(InputError, match='20 is damaged: its arrays are not those that were saved'),
    ):
        checkpoints.restore(state(1))


def test_another_network_in_a_checkpoint_of_the_version_before_is_refused(tmp_path):
    save_as_before(tmp_path, state(20))
    wider = {'kernel': jnp.zeros((20, 31)), 'bias': jnp.ones(3)}
    with (
        Checkpoints(tmp_path) as checkpoints,
        pytest.raises(InputError, match=r'20 is of another network: .*\(20, 30\) there'),
    ):
        checkpoints.restore(state(1)._replace(params=wider, averages={'ema': wider}))


def test_training_goes_on_from_a_checkpoint_of_the_version_before(tmp_path):
    save_as_before(tmp_path, state(20))
    with Checkpoints(tmp_path, POLICY) as checkpoints:
        checkpoints.save(checkpoints.restore(state(1))._replace(step=jnp.int32(30)))
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [20, 30]
        assert_equal(checkpoints.restore(state(1)), state(20)._replace(step=jnp.int32(30)))


# A full disk


@contextlib.contextmanager
def full_disk():
    """Lets no file grow beyond 1,500 bytes: metadata fit, arrays do not."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def check_when_done(checkpoints):
    while checkpoints._manager.is_saving_in_progress():
        time.sleep(0.01)
    checkpoints.check()


CALLS = {
    'check': check_when_done,
    'wait': lambda checkpoints: checkpoints.wait(),
    'save': lambda checkpoints: checkpoints.save(state(40)),
    'exit': lambda checkpoints: checkpoints.__exit__(),
}


@pytest.mark.parametrize('call', CALLS)
def test_an_error_while_saving_surfaces_at_the_next_call(directory, call):
    """It comes up in a thread, after `save` has returned."""
    message = r'could not be saved \(File too large\); those of steps \[10, 20\] are whole'
    checkpoints = Checkpoints(directory, Policy(1, 0, 0))
    with full_disk():
        checkpoints.save(state(30))
        with pytest.raises(RunError, match=message):
            CALLS[call](checkpoints)
    with Checkpoints(directory, Policy(1, 0, 0)) as checkpoints:
        assert_equal(checkpoints.restore(state(1)), state(20))
        checkpoints.save(state(30))
    assert on_disk(directory) == [30]


def test_an_error_before_anything_is_written_is_told_alike(directory, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(ocp.CheckpointManager, 'save', full)
    message = r'could not be saved \(No space left on device\); those of steps \[10, 20\]'
    with Checkpoints(directory, POLICY) as checkpoints, pytest.raises(RunError, match=message):
        checkpoints.save(state(30))
