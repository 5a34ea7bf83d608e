"""Predictors: steps of the reverse-time SDE with diffusion eta g (eta = 0: the probability flow).

Each takes a state from time t to an earlier time s, for one evaluation of the network, and gets its
noise as an argument.
"""

import dataclasses

import jax.numpy as jnp

from parameterization import Process
from sde_lib import expand
from shapes import PerImage, State
from solvers.grid_solver import Step


@dataclasses.dataclass(frozen=True)
class EulerMaruyama:
    """Euler-Maruyama; strong order 1 for additive noise, weak order 1."""

    eta: float = 1.0

    def __call__(self, process: Process, noise: State, x: State, t: PerImage, s: PerImage) -> Step:
        """The state at s."""
        sde, dt = process.sde, expand(t - s, x)
        x_mean = x - sde.reverse_drift(x, t, process.score(x, t), self.eta) * dt
        return Step(x_mean + self.eta * expand(sde.diffusion(t), x) * jnp.sqrt(dt) * noise, x_mean)


@dataclasses.dataclass(frozen=True)
class ReverseDiffusion:
    """Reverses the exact forward transition from s to t (Song et al. 2021, eq. 46)."""

    eta: float = 1.0

    def __call__(self, process: Process, noise: State, x: State, t: PerImage, s: PerImage) -> Step:
        """The state at s."""
        alpha_ts, sigma_ts = (expand(a, x) for a in process.sde.transition(s, t))
        score = process.score(x, t)
        x_mean = (2 - alpha_ts) * x + 0.5 * (1 + self.eta**2) * sigma_ts**2 * score
        return Step(x_mean + self.eta * sigma_ts * noise, x_mean)


@dataclasses.dataclass(frozen=True)
class Ancestral:
    """A transition of DDIM's family: ancestral sampling at eta = 1, deterministic at eta = 0.

    q(x_s | x_t, x_0) at the denoised x_0 (Ho et al. 2020, eq. 7; Song et al. 2021a,
    arXiv:2010.02502, eq. 12), for any linear SDE and pair of times, solved for the coefficients of
    x and score so that no large terms cancel.
    """

    eta: float = 1.0

    def __call__(self, process: Process, noise: State, x: State, t: PerImage, s: PerImage) -> Step:
        """The state at s."""
        alpha_ts, sigma_ts = process.sde.transition(s, t)
        sigma_t = process.sde.sigma(t)
        lost = jnp.minimum((sigma_ts / sigma_t) ** 2, 1.0)
        q = lost * (1 + self.eta**2 * (1 - lost))
        pull = sigma_t**2 * q / (1 + jnp.sqrt(1 - q))
        x_mean = (x + expand(pull, x) * process.score(x, t)) / expand(alpha_ts, x)
        std = self.eta * sigma_ts * jnp.sqrt(1 - lost) / alpha_ts
        return Step(x_mean + expand(std, x) * noise, x_mean)


@dataclasses.dataclass(frozen=True)
class AncestralFixedLarge(Ancestral):
    """Ancestral sampling with the larger of DDPM's two choices of variance, that of the forward
    transition.

    The published VP sampler (Ho et al. 2020, section 3.2: sigma_t^2 = beta_t).
    """

    def __call__(self, process: Process, noise: State, x: State, t: PerImage, s: PerImage) -> Step:
        """The state at s."""
        x_mean = super().__call__(process, noise, x, t, s).x_mean
        _, sigma_ts = process.sde.transition(s, t)
        return Step(x_mean + self.eta * expand(sigma_ts, x) * noise, x_mean)


@dataclasses.dataclass(frozen=True)
class DDIM(Ancestral):
    """DDIM (Song et al. 2021a, arXiv:2010.02502): without noise unless asked for."""

    eta: float = 0.0


PREDICTORS = {
    'euler_maruyama': EulerMaruyama,
    'reverse_diffusion': ReverseDiffusion,
    'ancestral': Ancestral,
    'ddim': DDIM,
    'ancestral_fixed_large': AncestralFixedLarge,
    'none': None,
}
