"""Linear SDEs dx = f(t) x dt + g(t) dw, by their perturbation kernels.

A linear SDE is fixed by p(x_t | x_0) = N(alpha_t x_0, sigma_t^2 I): with the log signal-to-noise
ratio lambda_t = log(alpha_t^2 / sigma_t^2),

    f = d log(alpha) / dt,        g^2 = -sigma^2 d lambda / dt.

So an SDE here writes `log_alpha(t)` and `sigma(t)`; the rest is derived, and overridden by a closed
form where there is a more accurate one. Times are arrays of any shape, and every coefficient has
that shape; where a time meets a state `x` of shape [batch, ...] it is a scalar or has shape
[batch].

SDEs whose kernel is not Gaussian are among them too, with another drift: `WithoutKernel`.

An SDE is a pytree whose leaves are its own numbers, so that they can be parameters: arrays that are
traced, differentiated, learned. Numbers of Python stay such, and are computed with in float64.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int, Key

from choices import ArgumentError, Range, choose, option
from shapes import BatchTime, PerImage, Scalar, State, Time

Number = float | int | Scalar

POSITIVE = Range(0, without_low=True)
NOISE_LEVELS = Range(1e-6, 10**6)
LOG_SNRS = Range(-40, 40)
LEVELS = Range(2, 10**6)


def expand(a: Array, x: Array) -> Array:
    """`a`, of shape [batch] or [], with axes appended until it broadcasts against `x`."""
    return a.reshape(a.shape + (1,) * (x.ndim - a.ndim)) if a.ndim else a


def at(t: Number, x: State) -> PerImage:
    """The time t of every member of the batch `x`."""
    return jnp.broadcast_to(t, x.shape[:1])


@dataclasses.dataclass(frozen=True)
class SDE:
    """A linear SDE on [t_min, T]. Subclasses give `log_alpha` and `sigma`; see the module's
    docstring.

    `t_min` is the earliest time at which the score is asked for in training and likelihoods: at t =
    0 it diverges for most SDEs. `T` is the latest, where x_T is close to N(0, prior_std^2 I).

    One whose kernel is not Gaussian has no such functions: see `WithoutKernel`.
    """

    T: ClassVar[Number] = 1.0
    t_min: ClassVar[Number] = 1e-5

    def __init_subclass__(cls, **options: Any):
        super().__init_subclass__(**options)
        jax.tree_util.register_pytree_with_keys(
            cls, _numbers_with_keys, functools.partial(_with_numbers, cls), _numbers
        )

    def log_alpha(self, t: Time) -> Time:
        """Logarithm of the signal's scale alpha_t."""
        raise TypeError(f'{type(self).__name__} does not define log_alpha(t)')

    def sigma(self, t: Time) -> Time:
        """Standard deviation sigma_t of the noise in x_t, given x_0."""
        raise TypeError(f'{type(self).__name__} does not define sigma(t)')

    def alpha(self, t: Time) -> Time:
        """Scale alpha_t of the signal in x_t."""
        return jnp.exp(self.log_alpha(t))

    def log_snr(self, t: Time) -> Time:
        """lambda_t = log(alpha_t^2 / sigma_t^2), falling in t."""
        return 2 * (self.log_alpha(t) - jnp.log(self.sigma(t)))

    def time_at_log_snr(self, log_snr: Time) -> Time:
        """The inverse of `log_snr` on [0, T], by bisection unless the SDE has a closed form."""

        def halve(_, bracket):
            low, high = bracket
            middle = 0.5 * (low + high)
            is_early = self.log_snr(middle) > log_snr
            return jnp.where(is_early, middle, low), jnp.where(is_early, high, middle)

        bracket = jnp.zeros_like(log_snr), jnp.full_like(log_snr, self.T)
        # 48 halvings reach float32's resolution down to t = 1e-8.
        low, high = lax.fori_loop(0, 48, halve, bracket)
        return 0.5 * (low + high)

    def clock(self, t: Time) -> Time:
        """The variable in which solvers of the probability flow take their steps: one that falls in
        t, of a linear SDE the log signal-to-noise ratio.
        """
        return self.log_snr(t)

    def time_at_clock(self, clock: Time) -> Time:
        """The inverse of `clock`."""
        return self.time_at_log_snr(clock)

    def time_per_clock(self, t: Time) -> Time:
        """dt / d clock, of a linear SDE -sigma^2 / g^2."""
        return -((self.sigma(t) / self.diffusion(t)) ** 2)

    def f(self, t: Time) -> Time:
        """Coefficient f(t) of the drift f(t) x."""
        return _derivative(self.log_alpha, t)

    def drift(self, x: State, t: BatchTime) -> State:
        """Drift f(t) x of the forward SDE."""
        return expand(self.f(t), x) * x

    def diffusion(self, t: Time) -> Time:
        """Diffusion coefficient g(t)."""
        return self.sigma(t) * jnp.sqrt(-_derivative(self.log_snr, t))

    def perturb(self, x0: State, t: BatchTime, noise: State) -> State:
        """x_t = alpha_t x_0 + sigma_t noise."""
        return expand(self.alpha(t), x0) * x0 + expand(self.sigma(t), x0) * noise

    def denoise(self, x: State, t: BatchTime, score: State) -> State:
        """E[x_0 | x_t] = (x_t + sigma_t^2 score) / alpha_t (Tweedie's formula)."""
        return (x + expand(self.sigma(t) ** 2, x) * score) / expand(self.alpha(t), x)

    def noise(self, t: BatchTime, score: State) -> State:
        """E[noise | x_t] = -sigma_t score: the noise in x_t = alpha_t x_0 + sigma_t noise."""
        return -expand(self.sigma(t), score) * score

    def normal_score(self, x: State, t: BatchTime) -> State:
        """The score at t of data that are N(0, I): -x / (alpha_t^2 + sigma_t^2)."""
        return -x / expand(self.alpha(t) ** 2 + self.sigma(t) ** 2, x)

    def reverse_drift(self, x: State, t: BatchTime, score: State, eta: float = 1.0) -> State:
        """Drift of the reverse-time SDE whose diffusion coefficient is eta g(t).

        f(t) x - (1 + eta^2) / 2 g(t)^2 score: all these SDEs share the marginals p_t. eta = 1 is
        the reverse of the forward SDE (Song et al. 2021, eq. 6), eta = 0 the probability-flow ODE
        (eq. 13).
        """
        return self.drift(x, t) - expand(0.5 * (1 + eta**2) * self.diffusion(t) ** 2, x) * score

    def probability_flow(self, x: State, t: BatchTime, score: State) -> State:
        """Velocity dx/dt of the probability-flow ODE (Song et al. 2021, eq. 13)."""
        return self.reverse_drift(x, t, score, eta=0.0)

    def transition(self, s: Time, t: Time) -> tuple[Time, Time]:
        """(alpha_ts, sigma_ts) of p(x_t | x_s) = N(alpha_ts x_s, sigma_ts^2 I), for s <= t."""
        alpha_ts = jnp.exp(self.log_alpha(t) - self.log_alpha(s))
        return alpha_ts, self.sigma(t) * jnp.sqrt(-jnp.expm1(self.log_snr(t) - self.log_snr(s)))

    @property
    def prior_std(self) -> Number:
        """Standard deviation of the prior N(0, prior_std^2 I) that stands for p_T."""
        return 1.0

    def prior_of(self, noise: Array) -> Array:
        """The draws from the prior that normal noise becomes, N(0, I) in any shape."""
        return self.prior_std * noise

    def prior_sample(self, key: Key[Array, ''], shape: tuple[int, ...]) -> Array:
        """A draw from the prior."""
        return self.prior_of(jax.random.normal(key, shape))

    def prior_log_prob(self, x: State) -> PerImage:
        """Log-density of the prior, in nats."""
        dim = math.prod(x.shape[1:])
        log_normaliser = 0.5 * dim * _log(2 * math.pi * self.prior_std**2)
        return (
            -0.5 * jnp.sum((x / self.prior_std) ** 2, axis=tuple(range(1, x.ndim))) - log_normaliser
        )


def _derivative(coefficient: Callable[[Time], Time], t: Time) -> Time:
    """d coefficient / dt of an elementwise function of t."""
    return jax.jvp(coefficient, (t,), (jnp.ones_like(t),))[1]


# An SDE as a pytree: whole numbers (of levels) are structure, all others leaves.


def _numbers(sde: SDE) -> tuple[list[Number], tuple[tuple[str, int], ...]]:
    names = [field.name for field in dataclasses.fields(sde) if field.type is not int]
    whole = [field.name for field in dataclasses.fields(sde) if field.type is int]
    return [getattr(sde, name) for name in names], tuple((n, getattr(sde, n)) for n in whole)


def _numbers_with_keys(sde: SDE) -> tuple[list[tuple[Any, Number]], tuple[tuple[str, int], ...]]:
    names = [field.name for field in dataclasses.fields(sde) if field.type is not int]
    numbers, structure = _numbers(sde)
    keys = map(jax.tree_util.GetAttrKey, names)
    return list(zip(keys, numbers, strict=True)), structure


def _with_numbers(cls: type[SDE], structure: tuple[tuple[str, int], ...], numbers: Any) -> SDE:
    # Not by its constructor: what JAX puts in the place of numbers is anything.
    sde = object.__new__(cls)
    names = [field.name for field in dataclasses.fields(cls) if field.type is not int]
    for name, value in [*zip(names, numbers, strict=True), *structure]:
        object.__setattr__(sde, name, value)
    return sde


def _by_type(of_python: Callable, of_arrays: Callable) -> Callable[[Number], Number]:
    """A function of a number: in Python's float64, unless the number is an array."""
    return lambda x: of_python(x) if isinstance(x, float | int) else of_arrays(x)


_exp, _log = _by_type(math.exp, jnp.exp), _by_type(math.log, jnp.log)
_sqrt, _atan = _by_type(math.sqrt, jnp.sqrt), _by_type(math.atan, jnp.arctan)
_log1p = _by_type(math.log1p, jnp.log1p)


@dataclasses.dataclass(frozen=True)
class LinearRate(SDE):
    """What VP and sub-VP share: f = -beta/2, with beta linear in t (Song et al. 2021, eq. 32)."""

    beta_min: Number = option(0.1, 'noise rate at t = 0', POSITIVE)
    beta_max: Number = option(20.0, 'noise rate at T', POSITIVE)

    def beta(self, t: Time) -> Time:
        """Noise rate beta(t)."""
        return self.beta_min + t * (self.beta_max - self.beta_min)

    def log_alpha(self, t):
        return -0.25 * t**2 * (self.beta_max - self.beta_min) - 0.5 * t * self.beta_min

    def f(self, t):
        return -0.5 * self.beta(t)

    def _time_at_integral(self, integral: Time) -> Time:
        """The time when the integral of beta from 0 has this value: a quadratic's stable root."""
        slope = self.beta_max - self.beta_min
        return 2 * integral / (self.beta_min + jnp.sqrt(self.beta_min**2 + 2 * slope * integral))


@dataclasses.dataclass(frozen=True)
class VP(LinearRate):
    """Variance preserving: f = -beta/2, g^2 = beta, linear in t (Song et al. 2021, eq. 32-33)."""

    def sigma(self, t):
        return jnp.sqrt(-jnp.expm1(2 * self.log_alpha(t)))

    def diffusion(self, t):
        return jnp.sqrt(self.beta(t))

    def transition(self, s, t):
        mean_beta = self.beta(0.5 * (s + t))
        return _variance_preserving_transition(-0.5 * (t - s) * mean_beta)

    def time_at_log_snr(self, log_snr):
        return self._time_at_integral(jax.nn.softplus(-log_snr))

    def normal_score(self, x, t):
        return -x

    def reverse_drift(self, x, t, score, eta=1.0):
        # One factor for both terms: of N(0, I), with score = -x, the ODE stands exactly still.
        return expand(self.f(t), x) * (x + (1 + eta**2) * score)


@dataclasses.dataclass(frozen=True)
class SubVP(LinearRate):
    """Sub-variance-preserving: VP's drift, sigma = 1 - alpha^2 (Song et al. 2021, eq. 28-29)."""

    def sigma(self, t):
        return -jnp.expm1(2 * self.log_alpha(t))

    def diffusion(self, t):
        # 1 - alpha^4 in factors: XLA's CPU backend (jaxlib 0.10.2) errs in programs that divide
        # expm1(4 a) by expm1(2 a)^2, as g^2 / sigma^2 would, for arrays of thousands.
        return jnp.sqrt(self.beta(t) * self.sigma(t) * (1 + jnp.exp(2 * self.log_alpha(t))))

    def time_at_log_snr(self, log_snr):
        # With u = alpha^2, u / (1 - u)^2 = k is quadratic in u; nothing cancels in -log(u) so.
        k = jnp.exp(log_snr)
        return self._time_at_integral(jnp.log1p((1 + jnp.sqrt(1 + 4 * k)) / (2 * k)))


@dataclasses.dataclass(frozen=True)
class VE(SDE):
    """Variance exploding: sigma is geometric in t (Song et al. 2021, eq. 30-31)."""

    sigma_min: Number = option(0.01, 'noise level at t = 0', NOISE_LEVELS)
    sigma_max: Number = option(50.0, 'noise level at T', NOISE_LEVELS)

    @property
    def _log_ratio(self) -> Number:
        return _log(self.sigma_max / self.sigma_min)

    @property
    def prior_std(self):
        return self.sigma_max

    def log_alpha(self, t):
        return jnp.zeros_like(t)

    def sigma(self, t):
        return self.sigma_min * jnp.exp(t * self._log_ratio)

    def f(self, t):
        return jnp.zeros_like(t)

    def diffusion(self, t):
        return self.sigma(t) * _sqrt(2 * self._log_ratio)

    def transition(self, s, t):
        lost = -jnp.expm1(-2 * (t - s) * self._log_ratio)
        return jnp.ones_like(t), self.sigma(t) * jnp.sqrt(lost)

    def time_at_log_snr(self, log_snr):
        return (-0.5 * log_snr - _log(self.sigma_min)) / self._log_ratio


@dataclasses.dataclass(frozen=True)
class EDM(SDE):
    """sigma = t, alpha = 1: time is the noise level (Karras et al. 2022, table 1)."""

    sigma_min: Number = option(0.002, 'noise level at t = 0', NOISE_LEVELS)
    sigma_max: Number = option(80.0, 'noise level at T', NOISE_LEVELS)

    @property
    def t_min(self) -> Number:
        return self.sigma_min

    @property
    def T(self) -> Number:  # noqa: N802
        return self.sigma_max

    @property
    def prior_std(self):
        return self.sigma_max

    def log_alpha(self, t):
        return jnp.zeros_like(t)

    def sigma(self, t):
        return t

    def f(self, t):
        return jnp.zeros_like(t)

    def diffusion(self, t):
        return jnp.sqrt(2 * t)

    def transition(self, s, t):
        return jnp.ones_like(t), jnp.sqrt((t - s) * (t + s))

    def time_at_log_snr(self, log_snr):
        return jnp.exp(-0.5 * log_snr)


@dataclasses.dataclass(frozen=True)
class CosineVP(SDE):
    """Variance preserving with alpha = cos(theta), theta linear in t (Nichol & Dhariwal 2021).

    theta runs between the angles at which the log signal-to-noise ratio is log_snr_max and
    log_snr_min, as in Hoogeboom et al. 2023 (eq. 3), so that the coefficients are finite on all of
    [0, 1].
    """

    log_snr_min: Number = option(-15.0, 'log signal-to-noise ratio at T', LOG_SNRS)
    log_snr_max: Number = option(15.0, 'log signal-to-noise ratio at t = 0', LOG_SNRS)

    @property
    def _theta_0(self) -> Number:
        return _atan(_exp(-0.5 * self.log_snr_max))

    @property
    def _complement_1(self) -> Number:
        return _atan(_exp(0.5 * self.log_snr_min))

    @property
    def _rate(self) -> Number:
        return 0.5 * math.pi - self._theta_0 - self._complement_1

    def _theta(self, t: Time) -> Time:
        return self._theta_0 + self._rate * t

    def _complement(self, t: Time) -> Time:
        """pi/2 - theta, accurate where theta is not: near T, where alpha is small."""
        return self._complement_1 + self._rate * (1 - t)

    def log_alpha(self, t):
        return jnp.log(jnp.sin(self._complement(t)))

    def sigma(self, t):
        return jnp.sin(self._theta(t))

    def f(self, t):
        return -self._rate * self.sigma(t) / self.alpha(t)

    def diffusion(self, t):
        return jnp.sqrt(2 * self._rate * self.sigma(t) / self.alpha(t))

    def time_at_log_snr(self, log_snr):
        return (jnp.arctan(jnp.exp(-0.5 * log_snr)) - self._theta_0) / self._rate


@dataclasses.dataclass(frozen=True)
class GeometricVP(SDE):
    """sigma geometric from sigma_min to sigma_max < 1, with VP's drift (Vahdat et al. 2021,
    appendix B).

    alpha^2 = (1 - sigma^2) / (1 - sigma_min^2), so that alpha = 1 at t = 0, where sigma =
    sigma_min.
    """

    sigma_min: Number = option(math.sqrt(3e-5), 'noise level at t = 0', NOISE_LEVELS)
    sigma_max: Number = option(math.sqrt(0.999), 'noise level at T, below 1', NOISE_LEVELS)

    @property
    def _log_ratio(self) -> Number:
        return 2 * _log(self.sigma_max / self.sigma_min)

    def _log_variance(self, t: Time) -> Time:
        # Counted back from T: 1 - sigma^2 is small there.
        return 2 * _log(self.sigma_max) - (1 - t) * self._log_ratio

    def log_alpha(self, t):
        remaining = -jnp.expm1(self._log_variance(t))
        return 0.5 * (jnp.log(remaining) - _log1p(-(self.sigma_min**2)))

    def sigma(self, t):
        return jnp.exp(0.5 * self._log_variance(t))

    def f(self, t):
        return -0.5 * self.diffusion(t) ** 2

    def diffusion(self, t):
        log_variance = self._log_variance(t)
        return jnp.sqrt(self._log_ratio / jnp.expm1(-log_variance))

    def time_at_log_snr(self, log_snr):
        log_variance = -jax.nn.softplus(log_snr + _log1p(-(self.sigma_min**2)))
        return 1 + (log_variance - 2 * _log(self.sigma_max)) / self._log_ratio


@dataclasses.dataclass(frozen=True)
class FlowMatching(SDE):
    """The straight interpolant alpha = 1 - t, sigma = t (Lipman et al. 2023).

    Its f and g diverge at t = 1, so the SDE ends a little earlier.
    """

    T: ClassVar[float] = 0.999

    def log_alpha(self, t):
        return jnp.log1p(-t)

    def sigma(self, t):
        return t

    def f(self, t):
        return -1 / (1 - t)

    def diffusion(self, t):
        return jnp.sqrt(2 * t / (1 - t))

    def time_at_log_snr(self, log_snr):
        return jax.nn.sigmoid(-0.5 * log_snr)


@dataclasses.dataclass(frozen=True)
class Chain(SDE):
    """A chain of N noise levels as an SDE: level i = 0..N-1 is time (i + 1) / N, and data are time
    0.

    At the levels, and for transitions between them, it equals the chain; in between it
    interpolates.
    """

    @property
    def t_min(self) -> Number:
        return 1 / self.num_scales

    def level(self, t: Time) -> Int[Array, '...']:
        """The level whose time is closest to t."""
        return jnp.clip(
            jnp.round(t * self.num_scales).astype(jnp.int32) - 1, 0, self.num_scales - 1
        )

    def _position(self, t: Time) -> Time:
        """N t, a whole number at the levels: in float32, t is off by up to 1e-4 of a step."""
        position = t * self.num_scales
        nearest = jnp.round(position)
        return jnp.where(
            jnp.abs(position - nearest) < 1e-3,
            nearest + (position - lax.stop_gradient(position)),
            position,
        )


@dataclasses.dataclass(frozen=True)
class DDPM(Chain):
    """The DDPM chain (Ho et al. 2020); log(alpha) is linear between levels."""

    beta_min: Number = option(0.1, 'noise rate at t = 0', POSITIVE)
    beta_max: Number = option(20.0, 'noise rate at T', POSITIVE)
    num_scales: int = option(1000, 'levels of the chain', LEVELS)

    def _log_alphas(self) -> Array | np.ndarray:
        """log(alpha) at the data and at all levels; of Python's numbers in float64."""
        are_arrays = isinstance(self.beta_min, Array) or isinstance(self.beta_max, Array)
        numpy = jnp if are_arrays else np
        betas = numpy.linspace(self.beta_min, self.beta_max, self.num_scales) / self.num_scales
        return 0.5 * numpy.concatenate([numpy.zeros(1), numpy.cumsum(numpy.log1p(-betas))])

    def log_alpha(self, t):
        table = jnp.asarray(self._log_alphas(), t.dtype)
        return jnp.interp(self._position(t), jnp.arange(table.size, dtype=t.dtype), table)

    def sigma(self, t):
        return jnp.sqrt(-jnp.expm1(2 * self.log_alpha(t)))

    def transition(self, s, t):
        return _variance_preserving_transition(self.log_alpha(t) - self.log_alpha(s))


@dataclasses.dataclass(frozen=True)
class SMLD(Chain):
    """The SMLD (NCSN) chain (Song & Ermon 2019): sigma geometric from sigma_min to sigma_max.

    sigma falls linearly to 0 before level 0: the transition from level 0 to the data removes all of
    the noise.
    """

    sigma_min: Number = option(0.01, 'noise level at t = 0', NOISE_LEVELS)
    sigma_max: Number = option(50.0, 'noise level at T', NOISE_LEVELS)
    num_scales: int = option(1000, 'levels of the chain', LEVELS)

    @property
    def prior_std(self):
        return self.sigma_max

    def log_alpha(self, t):
        return jnp.zeros_like(t)

    def sigma(self, t):
        level = self._position(t) - 1
        return self.sigma_min * jnp.where(
            level < 0, level + 1, jnp.exp(self._log_ratio * jnp.maximum(level, 0.0))
        )

    @property
    def _log_ratio(self) -> Number:
        return _log(self.sigma_max / self.sigma_min) / (self.num_scales - 1)

    def transition(self, s, t):
        steps = self._position(t) - self._position(s)
        lost = jnp.where(
            self._position(s) < 1,
            1 - (self.sigma(s) / self.sigma(t)) ** 2,
            -jnp.expm1(-2 * steps * self._log_ratio),
        )
        return jnp.ones_like(t), self.sigma(t) * jnp.sqrt(lost)


# SDEs without a Gaussian kernel


class NoKernelError(ArgumentError):
    """An SDE's perturbation kernel is asked for that is not Gaussian, or not known."""

    def __init__(self, sde: 'WithoutKernel'):
        super().__init__(
            'name',
            f'{type(sde).__name__} has no Gaussian kernel, with an alpha and a sigma; for such an '
            "SDE there are the samplers 'pc' with 'euler_maruyama' and no corrector, and, without "
            "denoising, 'ode' and 'adaptive_sde', the grid 'uniform', and objectives that take "
            'states as they are',
        )


class WithoutKernel(SDE):
    """An SDE whose drift is not linear in x, dx = drift(x, t) dt + g(t) dw.

    Subclasses give `drift`, `diffusion`, `prior_of`, `prior_log_prob` and `length`. States come
    from a simulation; whatever asks for alpha or sigma gets a NoKernelError. Adaptive solvers take
    their steps in log t: in t they would jump over the times when p_t changes most.
    """

    def log_alpha(self, t):
        raise NoKernelError(self)

    def sigma(self, t):
        raise NoKernelError(self)

    def drift(self, x: State, t: BatchTime) -> State:
        """Drift of the forward SDE."""
        raise TypeError(f'{type(self).__name__} does not define drift(x, t)')

    def length(self, t: Time) -> Time:
        """Over what distance p_t changes: the noise since t = 0, up to the width of p_T."""
        raise TypeError(f'{type(self).__name__} does not define length(t)')

    def clock(self, t):
        return -jnp.log(t)

    def time_at_clock(self, clock):
        return jnp.exp(-clock)

    def time_per_clock(self, t):
        return -t


@dataclasses.dataclass(frozen=True)
class DoubleWell(WithoutKernel):
    """dx = rate (x - x^3) dt + sqrt(rate) noise dw, each coordinate for itself: motion in the wells
    of V(x) = x^4 / 4 - x^2 / 2 at -1 and 1.

    The prior is the stationary law, in proportion to exp(-2 V(x) / noise^2), at which p_t arrives
    whatever the data are: by T in `rate` units of the time of dx = -V'(x) dt + noise dw.
    """

    t_min: ClassVar[Number] = 1e-4

    rate: Number = option(16.0, 'how much time passes from t = 0 to T', Range(0, without_low=True))
    noise: Number = option(1.0, 'noise of a unit of time', Range(0.3, 10))

    def drift(self, x, t):
        return self.rate * (x - x**3)

    def diffusion(self, t):
        return jnp.full_like(t, self.noise) * jnp.sqrt(self.rate)

    def length(self, t):
        variance = self._stationary.variance
        return jnp.sqrt(-variance * jnp.expm1(-(self.diffusion(t) ** 2) * t / variance))

    def prior_of(self, noise):
        table = self._stationary
        return jnp.sign(noise) * jnp.interp(jnp.abs(noise), table.normal, table.x)

    def prior_log_prob(self, x):
        each = self._log_density(x) - self._stationary.log_normaliser
        return each.reshape(len(x), -1).sum(axis=1)

    def _log_density(self, x):
        return -2 * (x**4 / 4 - x**2 / 2) / self.noise**2

    @property
    def _stationary(self) -> '_Stationary':
        """By quadrature, as far out as float32 has a density."""
        # There V is 40 noise^2 above its least value.
        end = jnp.sqrt(1 + 13 * jnp.asarray(self.noise, jnp.float32))
        x = jnp.linspace(0, end, 4097)
        density = jnp.exp(self._log_density(x))
        pieces = 0.5 * (density[1:] + density[:-1]) * (x[1] - x[0])
        # Summed from the far end, where the pieces are small.
        beyond = jnp.concatenate([jnp.cumsum(pieces[::-1])[::-1], jnp.zeros(1)])
        total, tail = 2 * pieces.sum(), 0.5 * beyond / beyond[0]
        variance = jnp.sum(0.5 * (density[1:] * x[1:] ** 2 + density[:-1] * x[:-1] ** 2)) / jnp.sum(
            0.5 * (density[1:] + density[:-1])
        )
        normal = -jax.scipy.special.ndtri(jnp.maximum(tail, jnp.finfo(tail.dtype).tiny))
        return _Stationary(x, normal, jnp.log(total), variance)


class _Stationary(NamedTuple):
    """The upper half of a symmetric law: points, the normal number of the same rank for each, the
    logarithm of what its density is to be divided by, and its variance."""

    x: Array
    normal: Array
    log_normaliser: Scalar
    variance: Scalar


def _variance_preserving_transition(log_alpha_ts: Time) -> tuple[Time, Time]:
    return jnp.exp(log_alpha_ts), jnp.sqrt(-jnp.expm1(2 * log_alpha_ts))


SDES = {
    'vp': VP,
    'subvp': SubVP,
    've': VE,
    'edm': EDM,
    'cosine': CosineVP,
    'geometric': GeometricVP,
    'flow': FlowMatching,
    'ddpm': DDPM,
    'smld': SMLD,
}
WITHOUT_KERNEL = {'double_well': DoubleWell}


def create(name: str, **numbers: Number) -> SDE:
    """The SDE of that name with these numbers of its own.

    Raises ArgumentError for a name or a number that does not exist, and for numbers that make no
    SDE together.
    """
    cls = choose({**SDES, **WITHOUT_KERNEL}, name, 'name')
    known = [field.name for field in dataclasses.fields(cls)]
    for number in numbers:
        if number not in known:
            has = ', '.join(known) or 'none'
            raise ArgumentError(number, f'{name!r} has no such field; it has: {has}')
    sde = cls(**numbers)
    _check(sde)
    return sde


def _check(sde: SDE) -> None:
    for name in ('beta', 'sigma', 'log_snr'):
        low, high = f'{name}_min', f'{name}_max'
        ends = getattr(sde, low, None), getattr(sde, high, None)
        if None not in ends and not ends[0] < ends[1]:
            raise ArgumentError(low, f'{ends[0]} is not below {high}, {ends[1]}')
    if isinstance(sde, GeometricVP) and sde.sigma_max >= 1:
        raise ArgumentError('sigma_max', f"{sde.sigma_max}; of 'geometric' below 1 needed")
    if isinstance(sde, DDPM) and sde.beta_max >= sde.num_scales:
        reason = f'{sde.num_scales}; above beta_max, {sde.beta_max}, needed'
        raise ArgumentError('num_scales', reason)
