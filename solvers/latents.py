"""Latent codes by the probability-flow ODE: images to noise, back, and paths between them.

The ODE is deterministic and reversible: it gives each image one latent code x(T), distributed as
the prior if the score is exact (Song et al. 2021, section 4.3).
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from parameterization import Process
from sde_lib import Number, expand
from shapes import Grid, PerImage, State
from solvers import ode
from solvers.ode import ODESolver, Solved


def encode(process: Process, x: State, *, solver: ODESolver, t_min: Number | None = None) -> Solved:
    """The latent codes of images at `t_min` (None: the SDE's), their evaluations and endings."""
    sde = process.sde
    t_min = sde.t_min if t_min is None else t_min
    return solver.solve(ode.velocity(process), x, None, t_min, sde.T, sde=sde)


def decode(
    process: Process,
    latent: State,
    *,
    solver: ODESolver,
    t_min: Number | None = None,
    t_start: Number | None = None,
    times: Grid | None = None,
    save: Float[Array, 'saved'] | None = None,
) -> Solved:
    """The images at `t_min` (None: the SDE's) of states at `t_start` (None: latent codes, at T),
    their evaluations and endings.

    Given `times` from t_start to t_min, steps are those. `save`: the states at these times, on a
    second axis, in place of the images.
    """
    sde = process.sde
    t_min = sde.t_min if t_min is None else t_min
    t_start = sde.T if t_start is None else t_start
    return solver.solve(
        ode.velocity(process), latent, None, t_start, t_min, sde=sde, times=times, save=save
    )


def interpolate(
    a: State, b: State, weights: Float[Array, 'weights']
) -> Float[Array, 'weights batch *shape']:
    """Points on the arcs from latents a (weight 0) to b (weight 1): spherical interpolation.

    Latents of the prior lie near a sphere, of radius prior_std sqrt(dim). An arc stays there, where
    a straight line would pass through shorter, unlikely latents (Shoemake 1985; Song et al. 2021a,
    eq. 67).
    """
    angle = _angle(a, b)
    # Vectors along one line have no arc between them; the straight one is its limit.
    is_arc = jnp.sin(angle) > 1e-4

    def point(weight):
        def share(w):
            arc = jnp.sin(w * angle) / jnp.where(is_arc, jnp.sin(angle), 1.0)
            return expand(jnp.where(is_arc, arc, w), a)

        return share(1 - weight) * a + share(weight) * b

    return jnp.stack([point(weight) for weight in weights])


def _angle(a: State, b: State) -> PerImage:
    a, b = (x.reshape(x.shape[0], -1) for x in (a, b))
    norms = jnp.linalg.norm(a, axis=1) * jnp.linalg.norm(b, axis=1)
    cosine = jnp.sum(a * b, axis=1) / jnp.maximum(norms, jnp.finfo(norms.dtype).tiny)
    return jnp.arccos(jnp.clip(cosine, -1.0, 1.0))
