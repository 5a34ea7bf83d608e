"""Latent codes by the probability-flow ODE: images to noise, back, and paths between them.

The ODE is deterministic and reversible: it gives each image one latent code x(T), distributed as
the prior if the score is exact (Song et al. 2021, section 4.3).
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from parameterization import ScoreFn
from sde_lib import SDE, State, expand
from solvers import ode


def encode(
    score_fn: ScoreFn, x: State, *, sde: SDE, t_min: float, **options: Any
) -> tuple[State, Int[Array, 'batch']]:
    """The latent codes of images at t_min, and their evaluations; options of `ode.solve`."""
    field = ode.velocity(sde, score_fn)
    return ode.solve(field, x, None, t_min, sde.T, sde=sde, **options)


def decode(
    score_fn: ScoreFn, latent: State, *, sde: SDE, t_min: float, **options: Any
) -> tuple[State, Int[Array, 'batch']]:
    """The images at t_min of latent codes, and their evaluations; options of `ode.solve`."""
    field = ode.velocity(sde, score_fn)
    return ode.solve(field, latent, None, sde.T, t_min, sde=sde, **options)


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


def _angle(a: State, b: State) -> Float[Array, 'batch']:
    a, b = (x.reshape(x.shape[0], -1) for x in (a, b))
    norms = jnp.linalg.norm(a, axis=1) * jnp.linalg.norm(b, axis=1)
    cosine = jnp.sum(a * b, axis=1) / jnp.maximum(norms, jnp.finfo(norms.dtype).tiny)
    return jnp.arccos(jnp.clip(cosine, -1.0, 1.0))
