"""Purifiers: noise drowns what was done to an image, and the score brings the image back.

    purifier(image_keys, process, x) -> Samples

All begin with x + level noise. In y = x_t / alpha_t, whose noise has the level s = sigma_t /
alpha_t, every linear SDE is the same: the gradient of log p_s(y) is alpha_t score(alpha_t y, t), at
the time where log_snr(t) = -2 log s. An image depends on its own key only, and not on its batch.
Gradients in x take the memory of one evaluation of the network.
"""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

import keys
from parameterization import Process
from sampling import GridSampler
from sde_lib import SDE, at, expand
from shapes import ImageKeys, PerImage, Scalar, State
from solvers import endings, grids
from solvers.sampler import Sampler, Samples, counted

# The number of the keys that a sampler gets; the noise that images are drowned in has number 0.
SAMPLER = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Purifier:
    """What all have in common: `level`, the standard deviation of the noise that images get first,
    in the range of their values.
    """

    level: float = 0.5
    needs_score: ClassVar[bool] = True
    is_random: ClassVar[bool] = True

    @property
    def has_gradient(self) -> bool:
        """Whether JAX can differentiate what it does in reverse."""
        return True

    def noised(self, image_keys: ImageKeys, x: State) -> State:
        """The images in the noise that they get first with these keys."""
        return x + self.level * keys.normal(image_keys, 0, x.shape[1:])

    def __call__(self, image_keys: ImageKeys, process: Process | None, x: State) -> Samples:
        """Purified images, and the evaluations that each of them took."""
        raise TypeError(f'{type(self).__name__} does not define __call__')


def _samples(y: State, nfe: int, num_steps: int) -> Samples:
    return Samples(y, counted(y, nfe), endings.at_the_end(0.0, num_steps, len(y)))


# Without a score


@dataclasses.dataclass(frozen=True, kw_only=True)
class Nothing(Purifier):
    """Images as they are: no defence."""

    level: float = 0.0
    needs_score: ClassVar[bool] = False
    is_random: ClassVar[bool] = False

    def __call__(self, image_keys, process, x):
        return _samples(x, 0, 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Noise(Purifier):
    """Noise and nothing else. Before a classifier of noisy images this is randomised smoothing
    (Cohen et al. 2019), which whatever uses a score has to be better than.
    """

    needs_score: ClassVar[bool] = False

    def __call__(self, image_keys, process, x):
        return _samples(self.noised(image_keys, x), 0, 0)


# By gradient ascent on log p_s


class Ascent(NamedTuple):
    """The score g at a level of noise, and how fast it falls along itself: the curvature
    -g . (grad g) g / |g|^2 of log p_s.
    """

    score: State
    curvature: PerImage


def ascent(process: Process, y: State, t: Scalar) -> Ascent:
    """The score of y at the level of time t, and its curvature, for two evaluations: one, and its
    derivative along the score.
    """
    alpha = process.sde.alpha(t)

    def score_of(y):
        return alpha * process.score(alpha * y, at(t, y))

    score, derivative = jax.linearize(score_of, y)
    square = _dot(score, score)
    # Where the score is 0 any step stays there.
    safe = jnp.where(square > 0, square, 1.0)
    return Ascent(score, -_dot(score, derivative(score)) / safe)


def time_of(sde: SDE, level: float) -> Scalar:
    """The time at which sigma / alpha is `level`; of a chain, the nearest one that has a score."""
    with grids.constants(sde):
        return grids.known(sde, sde.time_at_log_snr(-2 * jnp.log(jnp.float32(level))))


def _dot(a: State, b: State) -> PerImage:
    return jnp.sum(a * b, axis=tuple(range(1, a.ndim)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ADP(Purifier):
    """Adaptive denoising purification with levels that fall with the noise (after Yoon, Hwang and
    Lee 2021, arXiv:2106.06041; for networks that are told the level).

    A step of rate / curvature shrinks the score by 1 - rate, whatever the data are along it. No
    step is longer than s^2, which leads to E[x_0 | y], and where log p_s is not concave it is rate
    s^2. Step k is at the level s = level (1 - rate)^k: of N(mu, v I) that is the noise which the
    steps before it have left. No level is below `floor`, or `level` itself if that is less. Two
    evaluations a step.
    """

    rate: float = 0.6
    steps: int = 3
    floor: float = 0.05

    @property
    def levels(self) -> tuple[float, ...]:
        """What the network is told in each step."""
        least = min(self.floor, self.level)
        return tuple(max(self.level * (1 - self.rate) ** k, least) for k in range(self.steps))

    def step_size(self, curvature: PerImage, level: Scalar) -> PerImage:
        """The length of a step, in units of the score."""
        longest = level**2
        concave = curvature > 0
        wanted = self.rate / jnp.where(concave, curvature, 1.0)
        return jnp.where(concave, jnp.minimum(wanted, longest), self.rate * longest)

    def __call__(self, image_keys, process, x):
        times = jnp.stack([time_of(process.sde, level) for level in self.levels])

        def step(y, t):
            found = ascent(process, y, t)
            size = self.step_size(found.curvature, jnp.exp(-0.5 * process.sde.log_snr(t)))
            return y + expand(size, y) * found.score, None

        y, _ = lax.scan(jax.checkpoint(step), self.noised(image_keys, x), times)
        return _samples(y, 2 * self.steps, self.steps)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublishedADP(Purifier):
    """ADP by the published rule (Yoon, Hwang and Lee 2021, their code), for images in [low, high].

    All steps are at one level. The step rate / curvature is clipped to `sizes`, which are squares
    of pixels that go from 0 to 1; where log p_s is not concave it is the shortest. An image whose
    step was not longer than `stopping` moves no more. States are clipped to the range of images.
    That the network is told `level` is ours: theirs ignored its label. Two evaluations a step.
    """

    rate: float = 0.05
    steps: int = 10
    sizes: tuple[float, float] = (1e-5, 0.1)
    stopping: float = 1e-3
    low: float = -1.0
    high: float = 1.0

    def step_size(self, curvature: PerImage) -> PerImage:
        """The length of a step, in units of the score."""
        shortest, longest = (size * (self.high - self.low) ** 2 for size in self.sizes)
        concave = curvature > 0
        wanted = self.rate / jnp.where(concave, curvature, 1.0)
        return jnp.where(concave, jnp.clip(wanted, shortest, longest), shortest)

    def __call__(self, image_keys, process, x):
        t, stopping = time_of(process.sde, self.level), self.stopping * (self.high - self.low) ** 2

        def step(carry, _):
            y, moves = carry
            found = ascent(process, y, t)
            size = self.step_size(found.curvature)
            moved = jnp.clip(y + expand(size, y) * found.score, self.low, self.high)
            y = jnp.where(expand(moves, y), moved, y)
            return (y, moves & (size > stopping)), None

        y = jnp.clip(self.noised(image_keys, x), self.low, self.high)
        carry = y, jnp.ones(len(y), bool)
        (y, _), _ = lax.scan(jax.checkpoint(step), carry, length=self.steps)
        return _samples(y, 2 * self.steps, self.steps)


# By samplers


@dataclasses.dataclass(frozen=True, kw_only=True)
class DenoiseOnce(Purifier):
    """E[x_0 | y], for one evaluation: what ADP is with one step of rate 1, and what samplers of one
    step are.
    """

    def __call__(self, image_keys, process, x):
        y, t = self.noised(image_keys, x), time_of(process.sde, self.level)
        return _samples(process.denoise(process.sde.alpha(t) * y, at(t, y)), 1, 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiffPure(Purifier):
    """The forward SDE to the time of `level`, and back by any sampler (Nie et al. 2022,
    arXiv:2205.07460). Of samplers without noise only the first noise is random.
    """

    sampler: Sampler

    @property
    def has_gradient(self) -> bool:
        """Of a fixed number of steps; loops that choose it have none in reverse."""
        return isinstance(self.sampler, GridSampler)

    def __call__(self, image_keys, process, x):
        t = time_of(process.sde, self.level)
        x_t = process.sde.alpha(t) * self.noised(image_keys, x)
        own_keys = keys.fold_in(image_keys, SAMPLER)
        remembering_little = process.with_score(jax.checkpoint(process.score))
        return self.sampler(own_keys, remembering_little, x.shape[1:], x_init=x_t, t_start=t)


PURIFIERS = {
    'adp': ADP,
    'adp_published': PublishedADP,
    'denoise_once': DenoiseOnce,
    'diffpure': DiffPure,
    'noise': Noise,
    'none': Nothing,
}
