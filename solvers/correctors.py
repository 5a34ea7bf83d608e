"""Correctors: steps of a Langevin chain at time t, before the predictor goes on from t to s."""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from choices import ArgumentError
from parameterization import Process
from sde_lib import expand
from shapes import Flags, PerImage, State
from solvers.grid_solver import Step


@dataclasses.dataclass(frozen=True)
class Langevin:
    """A Langevin step whose size gives a signal-to-noise ratio of `snr` (Song et al. 2021,
    algorithms 4-5).

    Norms are those of each image; `batch_mean` takes their mean over the batch, as published.
    """

    snr: float = 0.16
    batch_mean: bool = False

    evaluations: ClassVar[int] = 1

    def __call__(self, process: Process, noise: State, x: State, t: PerImage, s: PerImage) -> Step:
        """Another state at t."""
        score = process.score(x, t)
        ratio = _norm(noise, self.batch_mean) / _norm(score, self.batch_mean)
        return _langevin_step(process, score, noise, x, t, s, self.snr * ratio)


@dataclasses.dataclass(frozen=True)
class AnnealedLangevin:
    """A Langevin step whose size is in proportion to sigma_t^2 (Song & Ermon 2019, algorithm 1)."""

    snr: float = 0.16

    evaluations: ClassVar[int] = 1

    def __call__(self, process: Process, noise: State, x: State, t: PerImage, s: PerImage) -> Step:
        """Another state at t."""
        scale = self.snr * process.sde.sigma(t)
        return _langevin_step(process, process.score(x, t), noise, x, t, s, scale)


@dataclasses.dataclass(frozen=True)
class Metropolis:
    """The step of `AnnealedLangevin` as a proposal, which is accepted or not, so that p_t is its
    law at every step size (MALA; Roberts & Tweedie 1996): of energies alone, and two evaluations.

    The step is 2 (snr sigma_t)^2 along the score. Of dim numbers of deviation sigma_t, 57 % of
    proposals are accepted at snr = 0.82 dim^(-1/6), where the chain moves fastest (Roberts &
    Rosenthal 1998): 0.27 for 784, 0.17 for 12,288. Below a few per cent it stands still.

    There is no mean without noise to return: the state stands for it. Raises ArgumentError for a
    process without a log density.
    """

    snr: float = 0.16

    evaluations: ClassVar[int] = 2

    def __call__(
        self, process: Process, noise: State, x: State, t: PerImage, s: PerImage, chance: State
    ) -> Step:
        """Another state at t, or the same."""
        alpha_ts, _ = process.sde.transition(s, t)
        size = 2 * (alpha_ts * self.snr * process.sde.sigma(t)) ** 2
        x, _ = metropolis_step(process, noise, chance, x, t, size)
        return Step(x, x)


class Moved(NamedTuple):
    """States after a proposal, and which of them are new."""

    x: State
    accepted: Flags


def metropolis_step(
    process: Process, noise: State, chance: State, x: State, t: PerImage, size: PerImage
) -> Moved:
    """x + size score + sqrt(2 size) noise where it is accepted, and x elsewhere.

    It is with the probability at which p_t is kept, by one normal number for each image, the first
    of `chance`. Raises ArgumentError for a process without a log density.
    """
    if process.log_density is None:
        reason = "'mala' compares densities, and of a score none is known; an energy needed"
        raise ArgumentError('corrector', reason)

    def evaluate(x):
        log_densities, pull_back = jax.vjp(lambda x: process.log_density(x, t), x)
        return log_densities, pull_back(jnp.ones_like(log_densities))[0]

    log_density, score = evaluate(x)
    step = expand(size, x)
    proposed = x + step * score + jnp.sqrt(2 * step) * noise
    proposed_log_density, proposed_score = evaluate(proposed)
    # With b = sqrt(size / 2) (score + score'), the way back needs the noise -(noise + b).
    b = jnp.sqrt(step / 2) * (score + proposed_score)
    of_noise = jnp.sum((b * (noise + 0.5 * b)).reshape(len(x), -1), axis=1)
    log_ratio = proposed_log_density - log_density - of_noise
    log_uniform = jax.scipy.stats.norm.logcdf(chance.reshape(len(x), -1)[:, 0])
    # What is not a number is not accepted.
    accepted = log_uniform < log_ratio
    return Moved(jnp.where(expand(accepted, x), proposed, x), accepted)


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
    'mala': Metropolis,
    'none': no_corrector,
}
