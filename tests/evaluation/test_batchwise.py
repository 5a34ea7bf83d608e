"""Loops over data and samples: every example once, whatever the batch; no finished batch twice."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from devices import sharding
from evaluation import left_out
from evaluation.batchwise import Checkpoint, Draws, OverData
from solvers import endings

MESH = sharding.create_mesh()
PARAMS = {'scale': jnp.float32(3)}
SEED = 5


class Vectors:
    """Examples that are no images: (i, 2 i)."""

    def __init__(self, num):
        self._num = num

    def __len__(self):
        return self._num

    def gather(self, indices):
        return {'x': np.stack([indices, 2 * indices], 1).astype(np.float32)}


def checkpoint(directory, checksum=1):
    return Checkpoint(PARAMS, directory, checksum)


def over(calls=None, num=11, batch_size=4, **fields):
    """A measure of vectors that counts its batches."""

    def function(params, key, batch):
        if calls is not None:
            calls.append(None)
        return {
            'sum': params['scale'] * batch['x'].sum(1),
            'noise': jax.random.normal(key, (len(batch['x']), 2)),
            'index': batch['index'],
        }

    given = {'name': 'sums', 'function': function, 'seed': SEED, 'mesh': MESH} | fields
    return OverData(data=Vectors(num), batch_size=batch_size, **given)


# Over data


@pytest.mark.parametrize('batch_size', [1, 4, 11, 16])
def test_every_example_counts_once_and_in_order(tmp_path, batch_size):
    found = over(batch_size=batch_size)(checkpoint(tmp_path))
    np.testing.assert_array_equal(found['sum'], 9 * np.arange(11))
    np.testing.assert_array_equal(found['index'], np.arange(11))


def test_each_batch_has_a_key_of_its_own(tmp_path):
    noise = over()(checkpoint(tmp_path))['noise']
    for i in range(2):
        key = jax.random.fold_in(jax.random.key(SEED), i)
        np.testing.assert_array_equal(noise[4 * i : 4 * i + 4], jax.random.normal(key, (4, 2)))


def test_the_command_that_was_run_before_finds_all_batches(tmp_path):
    calls = []
    first, again = (over(calls)(checkpoint(tmp_path)) for _ in range(2))
    assert len(calls) == 3
    for name, values in first.items():
        np.testing.assert_array_equal(again[name], values)


def test_an_interrupted_loop_goes_on_behind_its_last_batch(tmp_path):
    calls, measure = [], over()
    function = over(calls).function

    def interrupted(params, key, batch):
        if len(calls) == 2:
            raise KeyboardInterrupt
        return function(params, key, batch)

    with pytest.raises(KeyboardInterrupt):
        dataclasses.replace(measure, function=interrupted)(checkpoint(tmp_path))
    found = dataclasses.replace(measure, function=function)(checkpoint(tmp_path))
    assert len(calls) == 3
    whole = measure(checkpoint(tmp_path / 'other'))
    for name, values in whole.items():
        np.testing.assert_array_equal(found[name], values)


@pytest.mark.parametrize(
    'change',
    [{'depends_on': 2}, {'name': 'others'}, {'num': 9}, {'batch_size': 5}, {'checksum': 2}],
)
def test_batches_of_anything_else_are_not_taken(tmp_path, change):
    calls, change = [], dict(change)
    checksum = change.pop('checksum', 1)
    over(calls, depends_on=1)(checkpoint(tmp_path))
    before = len(calls)
    over(calls, **{'depends_on': 1, **change})(checkpoint(tmp_path, checksum))
    assert len(calls) > before
    for _ in range(2):
        over(calls, depends_on=1)(checkpoint(tmp_path))
    assert len(calls) < 2 * before + 3


def test_parts_are_named_by_all_that_they_depend_on(tmp_path):
    names = {
        checkpoint(tmp_path, checksum).batches(name, mesh, *depends_on)
        for checksum in (1, 2)
        for name in ('a', 'b')
        for mesh in (MESH, jax.sharding.AbstractMesh((2, 1), sharding.AXES))
        for depends_on in ((), (1,), (1.0,), (None,), (1, 2))
    }
    assert len(names) == 2 * 2 * 2 * 5


# Samples


@jax.jit
def draw(params, key, indices, given):
    noise = jax.vmap(lambda i: jax.random.bits(jax.random.fold_in(key, i), (2, 2, 1), 'uint8'))
    ending = endings.at_the_end(0.0, 3, len(indices))
    # Of images 100 and on nothing can be made.
    values = jnp.where(indices < 100, 0.0, jnp.nan)
    nfe = jnp.int32(params['scale']) + 0 * indices
    return {'pixels': noise(indices), 'nfe': nfe, **left_out.arrays(ending, values)}


def draws(num, batch_size=4, run=draw):
    return Draws('pc', run, num, batch_size, SEED, MESH)


def test_as_many_samples_are_drawn_as_asked_for_whatever_the_batch_size():
    whole = draws(11, batch_size=16)(PARAMS)
    assert whole.pixels.shape == (11, 2, 2, 1)
    np.testing.assert_array_equal(whole.nfe, np.full(11, 3))
    for size in (1, 4):
        np.testing.assert_array_equal(draws(11, batch_size=size)(PARAMS).pixels, whole.pixels)
    assert len(np.unique(whole.pixels.reshape(11, -1), axis=0)) == 11


def test_few_samples_are_a_small_batch():
    assert draws(3, batch_size=64).size == 3
    assert draws(100, batch_size=64).size == 64


def test_more_samples_are_further_batches(tmp_path):
    """Those that are there serve, and are not drawn again."""
    few = draws(8)(PARAMS, tmp_path)
    dates = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    many = draws(14)(PARAMS, tmp_path)
    np.testing.assert_array_equal(many.pixels[:8], few.pixels)
    np.testing.assert_array_equal(many.pixels, draws(14)(PARAMS).pixels)
    assert len(dates) == 2
    assert len(list(tmp_path.iterdir())) == 4
    assert all(path.stat().st_mtime_ns == date for path, date in dates.items())


def test_what_is_all_there_is_not_even_compiled(tmp_path):
    first = draws(8)(PARAMS, tmp_path)
    again = draws(8, run=None)(PARAMS, tmp_path)
    np.testing.assert_array_equal(again.pixels, first.pixels)
    assert again.seconds == first.seconds > 0


def test_a_program_is_compiled_once_however_often_it_draws(capsys):
    of_eight = draws(8)
    for _ in range(2):
        of_eight(PARAMS)
    said = capsys.readouterr().out.splitlines()
    assert said.count('compiling pc, 4 images at once ...') == 1
    assert said.count('drawing 8 samples by pc ...') == 2


def test_before_each_batch_there_is_a_way_to_end():
    class EndedError(Exception):
        pass

    before = iter([None, EndedError()])

    def end():
        if error := next(before):
            raise error

    with pytest.raises(EndedError):
        draws(12)(PARAMS, before_batch=end)
    assert not list(before)


def test_images_that_are_none_are_left_out_and_counted():
    drawn = draws(104, batch_size=8)(PARAMS)
    np.testing.assert_array_equal(drawn.index, np.arange(100))
    assert len(drawn.pixels) == len(drawn.nfe) == 100
    assert drawn.left_out.value == 4
    assert drawn.problem == 'pc: 4 of 104 images are left out: 4 are not finite'
    assert draws(8)(PARAMS).problem is None
