"""Objectives of score models: denoising score matching, and those that take no residual.

With x_t = alpha_t x_0 + sigma_t noise, the residual of a score model is sigma_t score(x_t, t) +
noise, and the loss of an image is

    weight(t) / p(t) * |sigma_t score(x_t, t) + noise|^2,    t ~ p on [t_min, T],

where p is relative to the uniform density, so that a proposal changes the variance and not the
mean. The discrete objectives of NCSN and DDPM are the same loss, with times on the chain's levels
(`levels`).

All other objectives (implicit.py) are in the mean this number too: with dim the number of values of
a state, E|sigma_t score + noise|^2 = E[2 sigma_t^2 (|score|^2 / 2 + div score) + dim].
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import ClassVar, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

import directional
import implicit
import time_sampling
from choices import ArgumentError, choose
from directional import Derivatives
from parameterization import Process
from sde_lib import SDE, Number, expand
from shapes import OneKey, PerImage, Scalar, State

# Lengths of differences in float32, in each coordinate and in parts of sigma_t. Rounding makes an
# error of 1e-7 / step^2 in second differences, of the log density, and of 1e-7 / step in the first
# ones, of the score; what is cut off step^2 in both. docs/objectives.md has measurements.
DENSITY_STEP, SCORE_STEP = 0.05, 0.003


class Objective(Protocol):
    """A loss of a process, of each image of a batch: a frozen dataclass, whose fields are those of
    config.training that have their names.
    """

    def __call__(self, process: Process, key: OneKey, x0: State) -> PerImage:
        """One draw of the loss."""

    def check(self, process: Process) -> None:
        """Raises ArgumentError for an SDE or a model that it is not for, without evaluating any."""


@dataclasses.dataclass(frozen=True)
class OverTimes:
    """What objectives over the times of an SDE share.

    `weighting` and `time_sampler` are names of WEIGHTINGS and of time_sampling.TIME_SAMPLERS;
    `log_sigma` is mean and deviation for 'log_normal'. Times begin at `t_min` (None: the SDE's).
    The loss is the mean over pixels, or without `reduce_mean` half of their sum.

    Raises ArgumentError for unknown names.
    """

    weighting: str = 'sigma2'
    time_sampler: str = 'uniform'
    t_min: Number | None = None
    reduce_mean: bool = True
    log_sigma: tuple[float, float] = (-1.2, 1.2)

    def __post_init__(self):
        choose(WEIGHTINGS, self.weighting, 'weighting')
        choose(time_sampling.TIME_SAMPLERS, self.time_sampler, 'time_sampler')

    def check(self, process: Process) -> None:
        """Raises ArgumentError if the times are not those of the SDE."""
        time_sampling.create(self.time_sampler, process.sde, self.log_sigma)

    def times(self, key: OneKey, sde: SDE, num: int) -> tuple[PerImage, PerImage]:
        """Times, and their weights in units of the squared residual; raises what `check` does."""
        sample_times = time_sampling.create(self.time_sampler, sde, self.log_sigma)
        times = sample_times(key, sde, sde.t_min if self.t_min is None else self.t_min, num)
        return times.t, WEIGHTINGS[self.weighting](sde, times.t) * times.inverse_density


@dataclasses.dataclass(frozen=True)
class DenoisingScoreMatching(OverTimes):
    """The denoising objective, `objective(process, key, x0)`: one draw of the loss for each image
    (Song et al. 2021, eq. 7). Its fields are those of OverTimes.
    """

    def __call__(self, process: Process, key: OneKey, x0: State) -> PerImage:
        """The loss of each image; raises what `check` does."""
        key_t, key_noise = jax.random.split(key)
        t, weight = self.times(key_t, process.sde, x0.shape[0])
        noise = jax.random.normal(key_noise, x0.shape, x0.dtype)
        squares = residual(process, x0, t, noise) ** 2
        return weight * reduce_pixels(squares, self.reduce_mean)


# Without the residual


@dataclasses.dataclass(frozen=True)
class ImplicitScoreMatching(OverTimes):
    """What objectives share that see x_t and t alone; subclasses say how they take a state, `at`.

    `objective(process, key, x0)` is in the mean the denoising loss with the same fields, of which
    it has the unit and, up to noise, the gradient. With times and weights of one's own, states x_t
    may come from anywhere, as from a simulation of an SDE that has no Gaussian kernel: `at` is all
    that is needed.
    """

    def at(
        self, process: Process, key: OneKey, x: State, t: PerImage, length: Number | PerImage
    ) -> PerImage:
        """One draw of |score|^2 / 2 + div score at each state; `length` is that over which p_t
        changes, sigma_t where there is one, to which differences are relative.
        """
        raise TypeError(f'{type(self).__name__} does not define at')

    def __call__(self, process: Process, key: OneKey, x0: State) -> PerImage:
        """The loss of each image; raises what `check` does."""
        sde, dim = process.sde, math.prod(x0.shape[1:])
        key_t, key_noise, key_state = jax.random.split(key, 3)
        t, weight = self.times(key_t, sde, len(x0))
        x = sde.perturb(x0, t, jax.random.normal(key_noise, x0.shape, x0.dtype))
        sigma = sde.sigma(t)
        squares = 2 * sigma**2 * self.at(process, key_state, x, t, sigma) + dim
        return weight * (squares / dim if self.reduce_mean else 0.5 * squares)


@dataclasses.dataclass(frozen=True)
class ExactScoreMatching(ImplicitScoreMatching):
    """Hyvärinen's objective, with the divergence of the score from a derivative for each dimension:
    for states of few dimensions.
    """

    def at(self, process, key, x, t, length):
        return implicit.exact(process, x, t)


@dataclasses.dataclass(frozen=True)
class SlicedScoreMatching(ImplicitScoreMatching):
    """Sliced score matching (Song et al. 2019, arXiv:1905.07088, eq. 8), by forward mode.

    The mean over `num_projections` directions of each image, of the distribution `projection` of
    implicit.DIRECTIONS. Raises ArgumentError for unknown names.
    """

    projection: str = 'rademacher'
    num_projections: int = 1

    estimate: ClassVar[Callable] = staticmethod(implicit.sliced)

    def __post_init__(self):
        super().__post_init__()
        choose(implicit.DIRECTIONS, self.projection, 'projection')

    def derivatives(self, process: Process, length: Number | PerImage) -> Derivatives:
        """What takes derivatives along directions."""
        return directional.forward

    def at(self, process, key, x, t, length):
        directions = draw_directions(self.projection, key, self.num_projections, x)
        derivatives = self.derivatives(process, length)
        estimates = jax.vmap(lambda u: self.estimate(process, x, t, u, derivatives))(directions)
        return estimates.mean(axis=0)


@dataclasses.dataclass(frozen=True)
class SlicedScoreMatchingVR(SlicedScoreMatching):
    """Sliced score matching with |score|^2 as it is, and so of less variance (Song et al. 2019,
    eq. 9), by forward mode.
    """

    estimate: ClassVar[Callable] = staticmethod(implicit.sliced_vr)


@dataclasses.dataclass(frozen=True)
class FDSlicedScoreMatching(SlicedScoreMatching):
    """Sliced score matching by finite differences (Pang et al. 2020, arXiv:2007.03317), of
    `fd_step` sigma_t in each coordinate; None: DENSITY_STEP or SCORE_STEP.

    The projections have covariance I: a difference is fd_step sigma_t sqrt(dim) long. Its bias is
    of the order fd_step^2, but of a score that is linear in x there is none.
    """

    fd_step: Number | None = None

    # Whether it takes second differences of the density of an energy.
    of_density: ClassVar[bool] = True

    def derivatives(self, process, length):
        has_density = self.of_density and process.log_density is not None
        step = DENSITY_STEP if has_density else SCORE_STEP
        step = step if self.fd_step is None else self.fd_step
        return functools.partial(directional.finite, step=step * length)


@dataclasses.dataclass(frozen=True)
class FDSlicedScoreMatchingVR(FDSlicedScoreMatching):
    """As FDSlicedScoreMatching, of SlicedScoreMatchingVR: two evaluations of the score."""

    estimate: ClassVar[Callable] = staticmethod(implicit.sliced_vr)
    of_density: ClassVar[bool] = False


@dataclasses.dataclass(frozen=True)
class FDDenoisingScoreMatching(OverTimes):
    """The denoising objective of an energy by two evaluations of its log density, and no gradient
    in x (Pang et al. 2020):

        (u . (sigma_t score + noise))^2,    u . score by a difference of fd_step sigma_t.

    In the mean over directions u of covariance I, `num_projections` for each image, it is the
    denoising loss. `fd_step` None: DENSITY_STEP. Raises ArgumentError for unknown names.
    """

    projection: str = 'rademacher'
    num_projections: int = 1
    fd_step: Number | None = None

    def __post_init__(self):
        super().__post_init__()
        choose(implicit.DIRECTIONS, self.projection, 'projection')

    def check(self, process: Process) -> None:
        """Raises ArgumentError if the process is no energy, and for times that are not those of its
        SDE.
        """
        super().check(process)
        if process.log_density is None:
            raise ArgumentError(
                'objective',
                "'fd_denoising' is for energies, which have a log density; for a score that is a "
                "network itself 'denoising' needs no derivative either",
            )

    def __call__(self, process: Process, key: OneKey, x0: State) -> PerImage:
        """The loss of each image; raises what `check` does."""
        self.check(process)
        sde, dim = process.sde, math.prod(x0.shape[1:])
        key_t, key_noise, key_directions = jax.random.split(key, 3)
        t, weight = self.times(key_t, sde, len(x0))
        noise = jax.random.normal(key_noise, x0.shape, x0.dtype)
        x, sigma = sde.perturb(x0, t, noise), sde.sigma(t)
        step = DENSITY_STEP if self.fd_step is None else self.fd_step

        def square(u):
            (slope,) = directional.finite(
                lambda x: process.log_density(x, t), x, u, [1], step * sigma
            )
            return (sigma * slope + implicit.inner(u, noise)) ** 2

        directions = draw_directions(self.projection, key_directions, self.num_projections, x)
        squares = jax.vmap(square)(directions).mean(axis=0)
        return weight * (squares / dim if self.reduce_mean else 0.5 * squares)


def draw_directions(
    projection: str, key: OneKey, num: int, x: State
) -> Float[Array, 'projections batch *shape']:
    """`num` directions for each state of x, of a distribution of implicit.DIRECTIONS."""
    drawn = implicit.DIRECTIONS[projection](key, num * len(x), x.shape[1:])
    return drawn.reshape(num, *x.shape).astype(x.dtype)


# The cross-entropy


def cross_entropy(
    process: Process,
    key: OneKey,
    x0: State,
    time_sampler: str = 'importance',
    t_min: Number | None = None,
) -> PerImage:
    """One draw of the cross-entropy -E[log p(x)] of each image in nats, where x is x_0 with the
    noise of `t_min` (None: the SDE's), and p what the reverse-time SDE makes of its prior.

    It is (T - t_min) times the likelihood-weighted loss, and the entropy of the noise at t_min
    (Vahdat et al. 2021, theorem 1). It is differentiable in x0: codes that are learned are drawn
    to where p is large. Over data, and with their exact score, it is in the mean the entropy of x
    without KL(p_T || prior), the distance of their noise from the prior.
    """
    sde = process.sde
    t_min = sde.t_min if t_min is None else t_min
    loss = DenoisingScoreMatching('likelihood', time_sampler, t_min, reduce_mean=False)
    return (sde.T - t_min) * loss(process, key, x0) + noise_entropy(sde, t_min, x0)


@dataclasses.dataclass(frozen=True)
class CodeCrossEntropy:
    """The cross-entropy of codes that are learned together with the prior, `objective(process, key,
    codes, code_weight)`: one draw for each image, in nats, times `code_weight`.

    Its value, and its gradient in the codes, are those of `cross_entropy` at fixed parameters of
    the process: otherwise it would bound nothing. The gradient in the parameters is that of the
    squared residual with any `weighting` of CODE_TIMES, at fixed codes and whatever `code_weight`
    is. With `shared_times` both are taken at the same times, for one evaluation of the network;
    otherwise at times of their own, for two. With the weighting 'likelihood' shared times are
    algorithm 1 of Vahdat et al. 2021 (arXiv:2106.05931); with others algorithm 3, and times of
    their own are algorithm 2.

    Times begin at `t_min` (None: the SDE's), and are drawn by importance sampling for the
    weighting, or, without `importance`, uniformly. With the `control_variate` what codes see of a
    draw is the difference from N(0, I), whose part is known in the mean, `normal_integral`: of a
    prior that is nearly normal a fraction of the noise. Raises ArgumentError for unknown
    weightings.
    """

    weighting: str = 'likelihood'
    shared_times: bool = True
    importance: bool = True
    control_variate: bool = True
    t_min: Number | None = None

    def __post_init__(self):
        choose(CODE_TIMES, self.weighting, 'weighting')

    def __call__(
        self, process: Process, key: OneKey, codes: State, code_weight: Number = 1.0
    ) -> PerImage:
        """The value of each image's codes, whose gradients are routed as the class says."""
        sde = process.sde
        t_min = sde.t_min if self.t_min is None else self.t_min
        constant = code_weight * noise_entropy(sde, t_min, codes)
        if self.shared_times:
            drawn = self._draw(key, sde, t_min, codes, self.weighting)
            of_codes = code_weight * drawn.weight('likelihood')
            of_prior = drawn.weight(self.weighting)
            # The gradient in the codes passes through here alone, and gets the other weight.
            scaled = scaled_gradient(codes, of_codes / of_prior)
            squares = drawn.half_squares(process, scaled)
            control = code_weight * self._control(drawn, codes, t_min)
            return constant + control + _valued(of_codes * squares, of_prior * squares)
        key_codes, key_prior = jax.random.split(key)
        drawn = self._draw(key_codes, sde, t_min, codes, 'likelihood')
        frozen = process.with_score(lax.stop_gradient(process).score)
        squares = drawn.weight('likelihood') * drawn.half_squares(frozen, codes)
        of_codes = code_weight * (squares + self._control(drawn, codes, t_min))
        drawn = self._draw(key_prior, sde, t_min, codes, self.weighting)
        squares = drawn.half_squares(process, lax.stop_gradient(codes))
        return constant + of_codes + _valued(0.0, drawn.weight(self.weighting) * squares)

    def _control(self, drawn: '_TimesAndNoise', codes: State, t_min: Number) -> PerImage | float:
        """What is 0 in the mean, and makes a draw the difference from that of N(0, I)."""
        if not self.control_variate:
            return 0.0
        sde = drawn.sde
        squares = drawn.half_squares(Process(sde, sde.normal_score), codes)
        return normal_integral(sde, codes, t_min) - drawn.weight('likelihood') * squares

    def _draw(
        self, key: OneKey, sde: SDE, t_min: Number, codes: State, weighting: str
    ) -> '_TimesAndNoise':
        key_t, key_noise = jax.random.split(key)
        sample_times = CODE_TIMES[weighting] if self.importance else time_sampling.uniform
        times = sample_times(key_t, sde, t_min, len(codes))
        noise = jax.random.normal(key_noise, codes.shape, codes.dtype)
        return _TimesAndNoise(sde, times.t, (sde.T - t_min) * times.inverse_density, noise)


class _TimesAndNoise(NamedTuple):
    """Where a residual is taken; `measure` makes a mean over draws an integral over times."""

    sde: SDE
    t: PerImage
    measure: PerImage
    noise: State

    def weight(self, weighting: str) -> PerImage:
        return self.measure * WEIGHTINGS[weighting](self.sde, self.t)

    def half_squares(self, process: Process, codes: State) -> PerImage:
        return reduce_pixels(residual(process, codes, self.t, self.noise) ** 2, mean=False)


def _valued(value: PerImage | float, loss: PerImage) -> PerImage:
    """The value of one, with the gradient of the other."""
    return loss + lax.stop_gradient(value - loss)


def scaled_gradient(x: State, scale: PerImage) -> State:
    """x, of which the gradient is multiplied by one number for each image."""
    fixed = lax.stop_gradient(x)
    return fixed + expand(scale, x) * (x - fixed)


def normal_integral(sde: SDE, x0: State, t_min: Number) -> PerImage:
    """The likelihood-weighted half squared residual of each image, integrated over times from
    `t_min` to T, for the score of N(0, I).

    With p = sigmoid(log_snr) the mean square is p^2 dim + p (1 - p) |x_0|^2, and the weight is that
    of an integral over log_snr.
    """
    log_snr = sde.log_snr(jnp.array([t_min, sde.T]))
    first, last = jax.nn.softplus(log_snr)
    share, left = jax.nn.sigmoid(log_snr)
    flat = x0.reshape(len(x0), -1)
    dim = flat.shape[1]
    return 0.5 * (dim * (first - last) + (jnp.sum(flat**2, axis=1) - dim) * (share - left))


def noise_entropy(sde: SDE, t: Number, x0: State) -> Scalar:
    """The entropy of x_t given one x_0, dim / 2 log(2 pi e sigma_t^2), in nats."""
    dim = math.prod(x0.shape[1:])
    return dim * (
        0.5 * math.log(2 * math.pi * math.e) + jnp.log(sde.sigma(jnp.asarray(t, x0.dtype)))
    )


def balance(
    divergence: Float[Array, 'batch groups'], size: Float[Array, 'groups']
) -> Float[Array, 'groups']:
    """Weights of groups of latents, 1 in the mean, for as long as all weigh less than their bound
    has them: more for those of which an image says much for their `size`, so that the others are
    not held at N(0, I) and forgotten. There is no gradient in them (Vahdat and Kautz 2020,
    arXiv:2007.03898, appendix A; Vahdat et al. 2021, appendix G).
    """
    share = (jnp.abs(divergence).mean(axis=0) + 0.01) / size
    return lax.stop_gradient(share / share.mean())


def residual(process: Process, x0: State, t: PerImage, noise: State) -> State:
    """sigma_t score(x_t, t) + noise: zero in the mean, given x_t, for the exact score."""
    score = process.score(process.sde.perturb(x0, t, noise), t)
    return expand(process.sde.sigma(t), x0) * score + noise


def reduce_pixels(squares: State, mean: bool) -> PerImage:
    """The mean over pixels, or half of the sum: the two published conventions."""
    flat = squares.reshape(squares.shape[0], -1)
    return flat.mean(axis=1) if mean else 0.5 * flat.sum(axis=1)


# Weightings, in units of the squared residual.


def sigma2(sde: SDE, t: PerImage) -> PerImage:
    """sigma_t^2 in units of the squared error of the score: every noise level counts the same."""
    return jnp.ones_like(t)


def likelihood(sde: SDE, t: PerImage) -> PerImage:
    """g(t)^2 in units of the squared error of the score (Song et al. 2021b, arXiv:2101.09258).

    With `reduce_mean=False`, (T - t_min) times the loss is the part of a bound on -log p(x_0), in
    nats, that depends on the network.
    """
    return (sde.diffusion(t) / sde.sigma(t)) ** 2


def reweighted(sde: SDE, t: PerImage) -> PerImage:
    """g(t)^2 in units of the squared residual: a compromise between likelihood and quality, for
    score models of latent codes (w_re of Vahdat et al. 2021, arXiv:2106.05931).
    """
    return sde.diffusion(t) ** 2


def edm(sde: SDE, t: PerImage, sigma_data: float = 0.5) -> PerImage:
    """(s^2 + sigma_data^2) / (s sigma_data)^2 in units of the squared error of the denoiser.

    s = sigma / alpha (Karras et al. 2022, eq. 8 and table 1).
    """
    s = jnp.exp(-0.5 * sde.log_snr(t))
    return (s**2 + sigma_data**2) / sigma_data**2


WEIGHTINGS = {
    'sigma2': sigma2,
    'likelihood': likelihood,
    'reweighted': reweighted,
    'edm': edm,
}

# The times at which a weighting of residuals of codes has the least variance.
CODE_TIMES = {
    'likelihood': time_sampling.importance,
    'sigma2': time_sampling.importance_sigma2,
    'reweighted': time_sampling.importance_reweighted,
}

OBJECTIVES = {
    'denoising': DenoisingScoreMatching,
    'exact': ExactScoreMatching,
    'sliced': SlicedScoreMatching,
    'sliced_vr': SlicedScoreMatchingVR,
    'fd_sliced': FDSlicedScoreMatching,
    'fd_sliced_vr': FDSlicedScoreMatchingVR,
    'fd_denoising': FDDenoisingScoreMatching,
}

# Those that take states as they are.
IMPLICIT = {
    name: objective
    for name, objective in OBJECTIVES.items()
    if issubclass(objective, ImplicitScoreMatching)
}
