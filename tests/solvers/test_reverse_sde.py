"""The reverse SDE by diffrax's solvers."""

import functools

import jax
import numpy as np
import pytest

import keys
import sde_lib
from choices import InputError
from solvers import grids, reverse_sde
from tests.support import counting, mixture
from tests.test_sampling import assert_is_distributed_as

SDE = sde_lib.VP()
T_MIN = 1e-3


def draw(num=1, sde=SDE, score_fn=None, steps=None, **options):
    """Samples of one compiled program, adaptive or of `steps`."""
    score_fn = score_fn or mixture.example().score_fn(sde)
    t_min = max(T_MIN * sde.T, sde.t_min)
    if steps:
        options['times'] = grids.log_snr_grid(sde, steps, t_min)
    sampler = functools.partial(reverse_sde.sample, sde=sde, t_min=t_min, **options)
    image_keys = keys.per_image(jax.random.key(0), num)
    return jax.jit(lambda image_keys: sampler(image_keys, score_fn, (2,)))(image_keys)


@pytest.mark.parametrize(
    ('solver', 'steps'),
    [('euler', 20), ('spark', 20), ('shark', None)],
)
def test_nfe_is_the_number_of_network_calls(solver, steps):
    score_fn, calls = counting.counted(mixture.example().score_fn(SDE))
    drawn = jax.block_until_ready(draw(1, SDE, score_fn, steps, solver=solver))
    assert int(drawn.nfe[0]) == len(calls)


@pytest.mark.parametrize(
    ('name', 'steps', 'options'),
    [('vp', None, {}), ('ve', 60, {'solver': 'sra1'}), ('edm', 60, {'eta': 0.5})],
)
def test_samples_are_from_the_mixture(name, steps, options):
    drawn = draw(2000, sde_lib.create(name), steps=steps, **options)
    assert_is_distributed_as(drawn.x, mixture.example())


def test_shark_has_strong_order_one_and_a_half():
    """On the same Brownian paths, against many more steps of another solver."""

    def solution(solver, steps):
        return draw(64, steps=steps, solver=solver, denoise=False).x

    exact = solution('spark', 400)
    coarse, fine = (np.abs(solution('shark', steps) - exact).mean() for steps in (25, 100))
    # Two doublings at order 1 would give 4. Where two components part, orders are reached late.
    assert coarse / fine > 4**1.25


def test_a_sample_does_not_depend_on_its_batch():
    # Rounding of two programs, over a hundred steps.
    np.testing.assert_allclose(draw(1).x[0], draw(8).x[0], atol=1e-4)


def test_what_a_solver_cannot_do_is_refused():
    with pytest.raises(InputError, match="sampling.sde_solver: 'sea' estimates no error"):
        reverse_sde.check('sea', on_grid=False, field='sampling.sde_solver')
    with pytest.raises(InputError, match="sampling.sde_solver: unknown name 'tsit5'"):
        reverse_sde.check('tsit5', on_grid=False, field='sampling.sde_solver')
