"""The SDE of SGD by diffrax, an independent solution beside the chains.

In the time s in which one step of SGD is 1,

    dX = -eta (grad L(X) + lambda X) ds + eta Sigma(X)^(1/2) dW(s).

The root of Sigma is never formed. With a Brownian motion for each of the N examples, the linear map

    z -> 1 / sqrt(N B) sum_i (z_i - mean z) grad loss_i(X)

has the covariance Cov_i(grad loss_i) / B, which is Sigma; it takes one pass back. Noise depends on
X, so that of diffrax's solvers only those of Ito's equation with general noise are right: Euler.
Those for additive noise, and Euler-Heun, which solves Stratonovich's equation, are not.
"""

import diffrax
import jax
import jax.numpy as jnp
import lineax
from jaxtyping import Array, Float

from gradient_noise.chains import ExampleLoss, Examples
from shapes import OneKey, Scalar
from training import Params


def terms(
    loss: ExampleLoss,
    examples: Examples,
    rate: float | Scalar,
    weight_decay: float,
    batch_size: int,
    path: diffrax.AbstractBrownianPath,
) -> diffrax.MultiTerm:
    """Drift and noise of the parameters; `path` has a Brownian motion for each example."""
    num = len(jax.tree.leaves(examples)[0])

    def losses(params):
        return jax.vmap(loss, (None, 0))(params, examples)

    def drift(s, params, args):
        gradient = jax.grad(lambda params: losses(params).mean())(params)
        return jax.tree.map(lambda g, x: -rate * (g + weight_decay * x), gradient, params)

    def noise(s, params, args):
        _, pull = jax.vjp(losses, params)
        scale = rate / jnp.sqrt(num * batch_size)

        def apply(z: Float[Array, 'examples']) -> Params:
            return pull(scale * (z - z.mean()))[0]

        return lineax.FunctionLinearOperator(
            apply, jax.ShapeDtypeStruct((num,), jnp.float32), closure_convert=False
        )

    return diffrax.MultiTerm(diffrax.ODETerm(drift), diffrax.ControlTerm(noise, path))


def solve(
    loss: ExampleLoss,
    examples: Examples,
    rate: float | Scalar,
    weight_decay: float,
    batch_size: int,
    params: Params,
    key: OneKey,
    substeps: int,
    num_records: int,
    every: int,
) -> Params:
    """The parameters after each `every` of num_records * every steps of SGD, with a leading axis of
    records; by Euler's method in `substeps` steps for one of SGD, of weak order 1.
    """
    num = len(jax.tree.leaves(examples)[0])
    # On a grid each increment is asked for once, so that fresh ones make a Brownian motion.
    path = diffrax.UnsafeBrownianPath((num,), key)
    end = num_records * every
    solution = diffrax.diffeqsolve(
        terms(loss, examples, rate, weight_decay, batch_size, path),
        diffrax.Euler(),
        0.0,
        float(end),
        None,
        params,
        stepsize_controller=diffrax.StepTo(jnp.arange(end * substeps + 1) / substeps),
        saveat=diffrax.SaveAt(ts=jnp.arange(1.0, num_records + 1) * every),
        adjoint=diffrax.ForwardMode(),
        max_steps=end * substeps,
    )
    return solution.ys
