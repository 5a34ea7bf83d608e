"""The reverse SDE by diffrax's solvers."""

import jax
import numpy as np
import pytest

import keys
import sde_lib
from choices import ArgumentError
from solvers.grids import TimeGrid
from solvers.reverse_sde import ReverseSDE
from tests.support import counting, mixture
from tests.test_sampling import assert_is_distributed_as

SDE = sde_lib.VP()
T_MIN = 1e-3


def draw(num=1, process=None, steps=None, **options):
    """Samples of one compiled program, adaptive or of `steps`."""
    process = process or mixture.example().process(SDE)
    if steps:
        options = {'grid': TimeGrid(steps, 'log_snr'), 'adaptive': False, **options}
    sampler = ReverseSDE(t_min=max(T_MIN * process.sde.T, process.sde.t_min), **options)
    image_keys = keys.per_image(jax.random.key(0), num)
    return jax.jit(lambda image_keys: sampler(image_keys, process, (2,)))(image_keys)


@pytest.mark.parametrize(
    ('solver', 'steps'),
    [('euler', 20), ('spark', 20), ('shark', None)],
)
def test_nfe_is_the_number_of_network_calls(solver, steps):
    process, calls = counting.counted(mixture.example().process(SDE))
    drawn = jax.block_until_ready(draw(1, process, steps, solver=solver))
    assert int(drawn.nfe[0]) == len(calls)


@pytest.mark.parametrize(
    ('name', 'steps', 'options'),
    [('vp', None, {}), ('ve', 60, {'solver': 'sra1'}), ('edm', 60, {'eta': 0.5})],
)
@pytest.mark.slow
def test_samples_are_from_the_mixture(name, steps, options):
    data = mixture.example()
    drawn = draw(2000, data.process(sde_lib.create(name)), steps, **options)
    assert_is_distributed_as(drawn.x, data)


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
    with pytest.raises(ArgumentError, match="^solver: 'sea' estimates no error"):
        ReverseSDE('sea')
    with pytest.raises(ArgumentError, match="^solver: unknown name 'tsit5'"):
        ReverseSDE('tsit5', adaptive=False)
