"""Score models of vectors: an SDE without a Gaussian kernel, and a network."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

import models
import parameterization
from experiments.reading import network_fields
from parameterization import Process, energy_process
from sde_lib import WithoutKernel
from shapes import OneKey, PerImage, State
from training import Params


@dataclasses.dataclass(frozen=True)
class PointsModel:
    """A network that is the score of an SDE's marginals, or their energy, on vectors of `dim`
    numbers. To the network they are images of one pixel.
    """

    sde: WithoutKernel
    network: nn.Module
    dim: int

    def init_params(self, key: OneKey) -> Params:
        """Initial parameters of the network."""
        with network_fields():
            return self.network.init(key, jnp.zeros((1, 1, 1, self.dim)), jnp.ones(1))['params']

    def process(self, params: Params) -> Process:
        """The process with the network's score, or with its log density."""
        read = jax.tree_util.Partial(self._read, params)
        is_energy = isinstance(self.network, tuple(models.ENERGY_NETWORKS.values()))
        return energy_process(self.sde, read) if is_energy else Process(self.sde, read)

    def _read(self, params: Params, x: State, t: PerImage) -> State | PerImage:
        def network(x, labels):
            output = self.network.apply({'params': params}, x[:, None, None], labels)
            return output.reshape(x.shape) if output.ndim > 1 else output

        return parameterization.by_length(self.sde, network, x, t)
