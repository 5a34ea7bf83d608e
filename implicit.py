"""Score matching that knows of states and times alone, and of no perturbation kernel.

    |score(x, t)|^2 / 2 + div score(x, t)

is, in the mean over x ~ p_t, half the squared error of the score, but for a constant without part
in the score (Hyvärinen 2005): E[|score - grad log p_t|^2 - |grad log p_t|^2] / 2. The functions
here give it for each state, exactly, or with directions u of covariance I as an unbiased draw:

    exact       the divergence from a derivative for each dimension
    sliced      u . (d score/dx) u + (u . score)^2 / 2     (Song et al. 2019, eq. 8)
    sliced_vr   u . (d score/dx) u + |score|^2 / 2         (eq. 9 there: less variance)

Derivatives along u are those of directional.py: by forward mode, or by finite differences. Of an
energy `sliced` takes both of the scalar log density, for which no gradient in x is computed.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int

import directional
from directional import Derivatives
from parameterization import Process
from shapes import PerImage, State

# Dimensions whose derivatives are taken at once.
TOGETHER = 16


def exact(process: Process, x: State, t: PerImage) -> PerImage:
    """|score|^2 / 2 + div score, for as many derivatives as a state has dimensions."""
    score = process.score(x, t)
    return 0.5 * inner(score, score) + divergence(lambda x: process.score(x, t), x)


def sliced(
    process: Process,
    x: State,
    t: PerImage,
    directions: State,
    derivatives: Derivatives = directional.forward,
) -> PerImage:
    """u . (d score/dx) u + (u . score)^2 / 2 for one direction u of each state.

    By differences two evaluations of a score, or three of the log density of an energy.
    """
    if process.log_density is not None:
        slope, curvature = derivatives(lambda x: process.log_density(x, t), x, directions, (1, 2))
        return curvature + 0.5 * slope**2
    score, slope = derivatives(lambda x: process.score(x, t), x, directions, (0, 1))
    return inner(directions, slope) + 0.5 * inner(directions, score) ** 2


def sliced_vr(
    process: Process,
    x: State,
    t: PerImage,
    directions: State,
    derivatives: Derivatives = directional.forward,
) -> PerImage:
    """u . (d score/dx) u + |score|^2 / 2 for one direction u of each state.

    By differences two evaluations of the score, which of an energy is a gradient.
    """
    score, slope = derivatives(lambda x: process.score(x, t), x, directions, (0, 1))
    return inner(directions, slope) + 0.5 * inner(score, score)


def inner(a: State, b: State) -> PerImage:
    """The inner product of each state of one with that of the other."""
    return jnp.sum((a * b).reshape(len(a), -1), axis=1)


def divergence(f: directional.Function, x: State) -> PerImage:
    """The divergence of a field, from a derivative for each dimension.

    A few at once, and computed again for a gradient: else all of them would be held.
    """
    dim = x[0].size

    @jax.checkpoint
    def along(i: Int[Array, '']) -> PerImage:
        direction = jnp.zeros(dim, x.dtype).at[i].set(1.0).reshape(x.shape[1:])
        _, slope = jax.jvp(f, (x,), (jnp.broadcast_to(direction, x.shape),))
        return slope.reshape(len(x), -1)[:, i]

    return lax.map(along, jnp.arange(dim), batch_size=min(dim, TOGETHER)).sum(axis=0)


DIRECTIONS = {
    'sphere': directional.sphere,
    'rademacher': directional.rademacher,
    'gaussian': directional.gaussian,
}
