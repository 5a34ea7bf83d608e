"""From noise to samples: solving the reverse-time SDE or its probability-flow ODE from T to t_min.

    sample(image_keys, score_fn, shape) -> Samples(x, nfe, trajectory)

draws one image of `shape` for each key, in one program. An image depends on its own key only: it
is the same alone, in any batch, and on any devices. Solvers on a time grid (`solvers/`) differ in
their step; their loop is here, once. The others choose their own times.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key

from parameterization import ScoreFn
from sde_lib import SDE
from solvers import ends, latents
from solvers.ends import Samples
from solvers.grid_solver import GridSolver, Step


def on_grid(
    image_keys: Key[Array, 'batch'],
    score_fn: ScoreFn,
    shape: tuple[int, ...],
    *,
    sde: SDE,
    times: Float[Array, 'times'],
    solver: GridSolver,
    denoise: bool = True,
    temperature: float = 1.0,
    trajectory: bool = False,
) -> Samples:
    """Samples by a solver on a grid of falling times.

    `denoise` returns the last state without the noise of its last step, or, of solvers that end
    without noise, E[x_0 | x] for one evaluation more.
    """
    draw = ends.noise_source(image_keys, shape, temperature)
    num_steps = times.shape[0] - 1

    def advance(carry, i):
        state, memory = carry

        def draw_here(j):
            return draw(1 + i * solver.evaluations + j)

        state, memory = solver.step(sde, score_fn, draw_here, state.x, i, times, memory)
        return (state, memory), state.x if trajectory else None

    x = sde.prior_std * draw(0)
    carry = Step(x, x), solver.init(sde, score_fn, x, times)
    (state, _), states = lax.scan(advance, carry, jnp.arange(num_steps))

    nfe = num_steps * solver.evaluations + solver.further
    if denoise and not solver.stochastic:
        state, nfe = Step(x, ends.denoise(sde, score_fn, state.x, times[-1])), nfe + 1
    return Samples(
        state.x_mean if denoise else state.x,
        ends.counted(x, nfe),
        jnp.concatenate([x[None], states]) if trajectory else None,
    )


def probability_flow(
    image_keys: Key[Array, 'batch'],
    score_fn: ScoreFn,
    shape: tuple[int, ...],
    *,
    sde: SDE,
    t_min: float,
    solver: str = 'tsit5',
    rtol: float = 1e-5,
    atol: float = 1e-5,
    per_image: bool = True,
    times: Float[Array, 'times'] | None = None,
    denoise: bool = False,
    temperature: float = 1.0,
    trajectory: Float[Array, 'saved'] | None = None,
) -> Samples:
    """Samples by the probability-flow ODE (Song et al. 2021, eq. 13): the images at t_min whose
    latent codes are a draw from the prior.

    Each image has its own step sizes, unless not `per_image`; given `times` from T to t_min, steps
    are those. `denoise` returns E[x_0 | x] at the end, for one more evaluation. `trajectory`: times
    from T to t_min at which states are asked for.
    """
    prior = sde.prior_std * ends.noise_source(image_keys, shape, temperature)(0)
    x, nfe = latents.decode(
        score_fn,
        prior,
        sde=sde,
        t_min=t_min,
        solver=solver,
        rtol=rtol,
        atol=atol,
        per_image=per_image,
        times=times,
        save=None if trajectory is None else jnp.append(trajectory, t_min),
    )
    states = None if trajectory is None else jnp.moveaxis(x[:, :-1], 1, 0)
    x = x if trajectory is None else x[:, -1]
    if denoise:
        x, nfe = ends.denoise(sde, score_fn, x, t_min), nfe + 1
    return Samples(x, nfe, states)
