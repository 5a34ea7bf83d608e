"""Several processes: how they find each other, what happens when one dies, and that the numbers
are those of one device, whatever the mesh.
"""

import math
import signal
import time

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh

from benchmarks import equivalence, launches
from benchmarks.launches import Layout
from choices import InputError
from devices import processes, sharding
from experiments import kinds, programs

SLURM = dict.fromkeys(processes.SLURM, '7') | {'SLURM_NTASKS': '16'}
NUM_STEPS = 24
SAVED = {'training.checkpoint_every': 4}
LAYOUTS = {'one': Layout(), 'split': Layout(data=4, fsdp=2), 'two': Layout(2, 1, 2)}


# Finding each other


@pytest.mark.parametrize(
    ('given', 'why'),
    [
        (('host:1', 2, None), '--process_id: none given; --coordinator, --num_processes'),
        ((None, 2, 0), '--coordinator: none given'),
        (('host', 2, 0), "--coordinator: 'host'; HOST:PORT of the first process needed"),
        (('host:1', 0, 0), '--num_processes: 0; at least 1 needed'),
        (('host:1', 2, 2), '--process_id: 2; one of 0 to 1 needed'),
    ],
)
def test_flags_that_name_no_processes_are_refused(given, why):
    with pytest.raises(InputError, match=why):
        processes.join(*given)


@pytest.mark.parametrize(
    ('environment', 'given', 'called', 'joined'),
    [
        ({}, (), None, 1),
        (SLURM, (), (None, 16, None), 16),
        ({processes.TPU: 'JAX'}, (), (None, None, None), 1),
        (SLURM, ('host:1', 3, 2), ('host:1', 3, 2), 3),
    ],
)
def test_processes_join_if_flags_or_the_environment_say_so(
    environment, given, called, joined, monkeypatch
):
    """Where the metadata of TPUs tell of no others, there is one process, as here."""
    calls = []
    for name in (*processes.SLURM, processes.TPU):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(jax.distributed, 'initialize', lambda *args, **_: calls.append(args))
    assert processes.join(*given) == joined
    assert calls == ([] if called is None else [called])


# Two processes, a mesh, and one device


@pytest.fixture(scope='module')
def workdirs(tmp_path_factory):
    """Runs of the same training, one under each layout, all measured. Of two processes one was
    killed after the first checkpoint, and both were started again.
    """
    paths = {name: tmp_path_factory.mktemp(name) for name in LAYOUTS}
    for name in ('one', 'split'):
        launches.run(LAYOUTS[name], *equivalence.training_command(paths[name], NUM_STEPS, **SAVED))
    lose_one(paths['two'])
    launches.run(LAYOUTS['two'], *equivalence.training_command(paths['two'], NUM_STEPS, **SAVED))
    for name, layout in LAYOUTS.items():
        equivalence.measure(layout, paths[name], list(paths.values()))
    return paths


def lose_one(workdir):
    """Kills the second of two processes; the first must end with an error within two minutes."""
    command = equivalence.training_command(workdir, NUM_STEPS, **SAVED)
    first, second = launches.start(LAYOUTS['two'], *command)
    while not (workdir / 'checkpoints' / '4').exists():
        assert first.poll() is second.poll() is None, first.communicate()[1]
        time.sleep(0.01)
    second.send_signal(signal.SIGKILL)
    first.communicate(timeout=120)
    assert first.returncode not in (0, None)
    assert not (workdir / 'checkpoints' / str(NUM_STEPS)).exists()


@pytest.mark.slow
@pytest.mark.parametrize('name', ['split', 'two'])
def test_curves_samples_and_likelihoods_are_those_of_one_device(workdirs, name):
    found = equivalence.compare(workdirs[name], workdirs['one'])
    assert len(equivalence.curve(workdirs[name], 'loss')) == NUM_STEPS
    for measure, limit in equivalence.LIMITS.items():
        assert found[measure] <= limit, (measure, found)


def test_the_mesh_splits_most_of_the_parameters():
    config, mesh = equivalence.configured(), AbstractMesh((4, 2), sharding.AXES)
    shapes = programs.abstract_state(kinds.create(config), mesh).params
    sizes = [(a.size, math.prod(a.sharding.shard_shape(a.shape))) for a in jax.tree.leaves(shapes)]
    assert (
        sum(size for size, part in sizes if 2 * part == size) > sum(size for size, _ in sizes) / 2
    )


@pytest.mark.slow
def test_every_layout_restores_the_checkpoints_of_all(workdirs):
    read = [equivalence.checksums(path) for path in workdirs.values()]
    assert len(read[0]) == 3
    assert read[0] == read[1] == read[2]


@pytest.mark.slow
def test_what_the_first_process_refuses_all_refuse(workdirs):
    command = equivalence.training_command(workdirs['two'], NUM_STEPS, **SAVED, seed=43)
    for process in launches.start(LAYOUTS['two'], *command):
        said = process.communicate(timeout=120)[1]
        assert process.returncode == 1
        assert 'error: seed: 43, but' in said


def test_one_process_decides_alone():
    assert processes.from_first(lambda: 3) == 3
    assert processes.place() == (0, 1)
    np.testing.assert_array_equal(processes.gather({'a': jax.numpy.ones(2)})['a'], np.ones(2))


# What is told


def test_a_bar_in_a_file_is_lines_that_follow_each_other(capsys):
    with processes.bar(total=3, unit='image', desc='pc') as bar:
        bar.update(2)
        bar.set_postfix({'loss': '0.5'})
        processes.say('above')
        bar.update(1)
    said = capsys.readouterr()
    assert said.out == 'above\n'
    assert '\r' not in said.err
    first, last = said.err.splitlines()
    assert first.startswith('pc:   0%|')
    assert last.startswith('pc: 100%|')
    assert last.endswith('loss=0.5]')


def test_a_bar_of_what_was_quick_is_not_in_a_file(capsys):
    with processes.bar(total=3, delay=60) as bar:
        bar.update(3)
    assert not capsys.readouterr().err


def test_what_takes_longer_than_expected_says_what_it_is(capsys, monkeypatch):
    with processes.saying('reading the data'):
        pass
    assert not capsys.readouterr().out
    monkeypatch.setattr(processes, 'SILENT_SECONDS', 0.01)
    with processes.saying('reading the data'):
        time.sleep(0.5)
    assert capsys.readouterr().out == 'reading the data ...\n'
