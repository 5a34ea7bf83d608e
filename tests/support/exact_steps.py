"""The law of one step of a chain, from all batches that it can have: no chance is left."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from gradient_noise import chains, weights
from gradient_noise.chains import Drawn
from tests.support import networks


def after(chain, loss, examples, rate, weight_decay, params):
    """The parameters after one step from `params`, for each batch that a step of batches of one
    example can have; all are equally probable. A leading axis of batches.
    """
    num = len(jax.tree.leaves(examples)[0])
    per_step = 1 if isinstance(chain, chains.SGD) else 2
    index = jnp.array(list(itertools.product(range(num), repeat=per_step)))
    weighed = jnp.ones(1) if per_step == 1 else weights.svag(2, chain.substeps)

    def one(index):
        drawn = Drawn(index, weighed)
        return chains.step(chain, loss, examples, rate, weight_decay, params, drawn)

    found = networks.quick_jit(jax.vmap(one))(index)
    return jax.tree.map(lambda a: np.asarray(a, np.float64), found)


def linear_noise(loss, examples, batch_size, substeps, params):
    """The matrix [parameters, examples] that makes the noise of the noisy gradient of z."""

    def gradient(z):
        def weighted(params):
            losses = jax.vmap(loss, (None, 0))(params, examples)
            return weights.weighted_mean(losses, weights.noisy(z, batch_size, substeps))

        return jax.grad(weighted)(params)

    num = len(jax.tree.leaves(examples)[0])
    return np.asarray(networks.quick_jit(jax.jacobian(gradient))(jnp.zeros(num)), np.float64)
