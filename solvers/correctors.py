"""Correctors: steps of a Langevin chain at time t, before the predictor goes on from t to s."""

import dataclasses

import jax.numpy as jnp

from parameterization import Process
from sde_lib import expand
from shapes import PerImage, State
from solvers.grid_solver import Step


@dataclasses.dataclass(frozen=True)
class Langevin:
    """A Langevin step whose size gives a signal-to-noise ratio of `snr` (Song et al. 2021,
    algorithms 4-5).

    Norms are those of each image; `batch_mean` takes their mean over the batch, as published.
    """

    snr: float = 0.16
    batch_mean: bool = False

    def __call__(self, process: Process, noise: State, x: State, t: PerImage, s: PerImage) -> Step:
        """Another state at t."""
        score = process.score(x, t)
        ratio = _norm(noise, self.batch_mean) / _norm(score, self.batch_mean)
        return _langevin_step(process, score, noise, x, t, s, self.snr * ratio)


@dataclasses.dataclass(frozen=True)
class AnnealedLangevin:
    """A Langevin step whose size is in proportion to sigma_t^2 (Song & Ermon 2019, algorithm 1)."""

    snr: float = 0.16

    def __call__(self, process: Process, noise: State, x: State, t: PerImage, s: PerImage) -> Step:
        """Another state at t."""
        scale = self.snr * process.sde.sigma(t)
        return _langevin_step(process, process.score(x, t), noise, x, t, s, scale)


def _langevin_step(
    process: Process,
    score: State,
    noise: State,
    x: State,
    t: PerImage,
    s: PerImage,
    scale: PerImage,
) -> Step:
    alpha_ts, _ = process.sde.transition(s, t)
    size = expand(2 * (alpha_ts * scale) ** 2, x)
    x_mean = x + size * score
    return Step(x_mean + jnp.sqrt(2 * size) * noise, x_mean)


def _norm(x: State, batch_mean: bool) -> PerImage:
    norms = jnp.linalg.norm(x.reshape(x.shape[0], -1), axis=1)
    return jnp.full_like(norms, norms.mean()) if batch_mean else norms


def no_corrector() -> None:
    """States stay as they are."""
    return None


CORRECTORS = {
    'langevin': Langevin,
    'annealed_langevin': AnnealedLangevin,
    'none': no_corrector,
}
