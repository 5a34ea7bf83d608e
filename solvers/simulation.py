"""The forward SDE, simulated: states x_t of an SDE whose perturbation kernel is not known.

By diffrax's ShARK, of strong order 1.5 for noise that does not depend on x, as that of all SDEs
here (Foster et al. 2023, arXiv:2210.07927). Each state has a key, a time and so a path of its own.
"""

import diffrax
import jax
import jax.numpy as jnp
import lineax

from sde_lib import SDE
from shapes import ImageKeys, OneKey, PerImage, Scalar, State


def simulate(image_keys: ImageKeys, sde: SDE, x0: State, t: PerImage, steps: int) -> State:
    """x_t of each state x_0 at its own time, after `steps` equal steps from time 0."""

    def drift(s: Scalar, x, args):
        return sde.drift(x[None], s[None])[0]

    def noise(s: Scalar, x, args):
        return lineax.DiagonalLinearOperator(jnp.full(x.shape, sde.diffusion(s)))

    def of_one(key: OneKey, x0, t: Scalar):
        # Steps are fixed, so that no part of the path is asked for twice.
        path = diffrax.UnsafeBrownianPath(x0.shape, key, levy_area=diffrax.SpaceTimeLevyArea)
        solution = diffrax.diffeqsolve(
            diffrax.MultiTerm(diffrax.ODETerm(drift), diffrax.ControlTerm(noise, path)),
            diffrax.ShARK(),
            0.0,
            t,
            None,
            x0,
            stepsize_controller=diffrax.StepTo(jnp.linspace(0.0, t, steps + 1)),
            adjoint=diffrax.DirectAdjoint(),
            max_steps=steps,
        )
        return solution.ys[-1]

    return jax.vmap(of_one)(image_keys, x0, t)
