"""From a network's output to a score, and the process of which it is the score.

Networks know no SDE: they map (x, label) to an array of x's shape. A parameterization is the rule
that picks the label for a time, and reads the output as a score, or as an energy, whose gradient is
one. It is applied once, where a network becomes a `Process`; that is all that losses, samplers,
likelihoods and guidance see of it.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sde_lib import DDPM, SDE, SMLD, WithoutKernel, expand
from shapes import PerImage, State

# The published continuous VP and sub-VP networks take t stretched over DDPM's labels 0..999.
LABEL_SCALE = 999.0

Network = Callable[[Array, Array], Array]
ScoreFn = Callable[[State, PerImage], State]
LogDensity = Callable[[State, PerImage], PerImage]
# (sde, network, x, t) -> score, or, of an energy, log density of each image.
Parameterization = Callable[[SDE, Network, State, PerImage], State]
EnergyParameterization = Callable[[SDE, Network, State, PerImage], PerImage]


@jax.tree_util.register_pytree_node_class
@dataclasses.dataclass(frozen=True)
class Process:
    """An SDE, and the score of its marginals: `score(x, t)` is grad log p_t(x), or that of
    p_t(x | y) with whatever it is conditioned on inside.

    An energy also has `log_density(x, t)`, log p_t(x) in nats but for a constant that may depend on
    t, of each image; its score is the gradient of that (`energy_process`). Of all others it is
    None.

    As a pytree its leaves are the numbers of the SDE and, if the score is a
    `jax.tree_util.Partial`, what is bound in that: the parameters of a network. Any other function
    has no leaves.
    """

    sde: SDE
    score: ScoreFn
    log_density: LogDensity | None = None

    def denoise(self, x: State, t: PerImage) -> State:
        """E[x_0 | x_t = x], for one evaluation."""
        return self.sde.denoise(x, t, self.score(x, t))

    def with_score(self, score: ScoreFn) -> 'Process':
        """Another score for the same SDE, of which no density is known."""
        return Process(self.sde, score)

    def tree_flatten(self):
        is_energy = self.log_density is not None
        # The score of an energy has the leaves of its density: they are counted once.
        known = self.log_density if is_energy else self.score
        if not isinstance(known, jax.tree_util.Partial):
            known = jax.tree_util.Partial(known)
        return (self.sde, known), is_energy

    @classmethod
    def tree_unflatten(cls, is_energy, children):
        sde, known = children
        process = object.__new__(cls)
        object.__setattr__(process, 'sde', sde)
        object.__setattr__(process, 'score', _gradient_of(known) if is_energy else known)
        object.__setattr__(process, 'log_density', known if is_energy else None)
        return process


def energy_process(sde: SDE, log_density: LogDensity) -> Process:
    """The process of an energy -log p_t(x), given as `log_density(x, t)` of each image, in nats and
    up to a constant for each t: its score is the gradient in x.
    """
    return Process(sde, _gradient_of(log_density), log_density)


def _gradient_of(log_density: LogDensity) -> ScoreFn:
    return jax.tree_util.Partial(_gradient, log_density)


def _gradient(log_density: LogDensity, x: State, t: PerImage) -> State:
    # No image has a part in the density of another.
    return jax.grad(lambda x: log_density(x, t).sum())(x)


def noise(sde: SDE, network: Network, x: State, t: PerImage) -> State:
    """The network predicts the noise, from the label 999 t / T (published VP and sub-VP)."""
    return -network(x, LABEL_SCALE * t / sde.T) / expand(sde.sigma(t), x)


def score(sde: SDE, network: Network, x: State, t: PerImage) -> State:
    """The network predicts the score, from the label sigma (published VE)."""
    return network(x, sde.sigma(t))


def ddpm(sde: DDPM, network: Network, x: State, t: PerImage) -> State:
    """The network predicts the noise, from the level of the DDPM chain (published discrete VP)."""
    return -network(x, sde.level(t)) / expand(sde.sigma(t), x)


def smld(sde: SMLD, network: Network, x: State, t: PerImage) -> State:
    """The network predicts the score, from the level of the SMLD chain (published NCSN).

    Its labels count from the noisiest level.
    """
    return network(x, sde.num_scales - 1 - sde.level(t))


def edm(
    sde: SDE,
    network: Network,
    x: State,
    t: PerImage,
    sigma_data: float = 0.5,
    input_fourier: Sequence[int] = (),
) -> State:
    """EDM's preconditioning (Karras et al. 2022, eq. 7 and table 1), for any linear SDE.

    With y = x / alpha and s = sigma / alpha the denoiser is D = c_skip y + c_out F(c_in y, label),
    and the score of p_t is (D - y) / (alpha s^2): written out, no two large terms cancel as s falls
    to 0. The label is s^(1/4), of which networks with a Fourier embedding take the logarithm:
    c_noise = log(s) / 4.

    The network's input has the Fourier features of y besides (Kingma et al. 2021), two channels for
    each channel of y and each n in `input_fourier`.
    """
    alpha, s = expand(sde.alpha(t), x), expand(sde.sigma(t) / sde.alpha(t), x)
    total = jnp.sqrt(s**2 + sigma_data**2)
    inputs = [x / (alpha * total), *fourier_features(x / alpha, s, input_fourier)]
    output = network(jnp.concatenate(inputs, -1), _edm_label(sde, t))
    return (sigma_data / s * output - x / (alpha * total)) / (alpha * total)


def _edm_label(sde: SDE, t: PerImage) -> PerImage:
    return jnp.exp(-0.125 * sde.log_snr(t))


def fourier_features(y: Array, s: Array, exponents: Sequence[int]) -> list[Array]:
    """sin and cos of 2^n pi y for each n, times their mean under noise of standard deviation `s`.

    They resolve the bins of 8-bit values, which a network sees only dimly, and vanish where s is
    above their period, exp(-(2^n pi s)^2 / 2), instead of adding noise there.
    """
    frequencies = [2**n * math.pi for n in exponents]
    return [
        jnp.exp(-0.5 * (frequency * s) ** 2) * wave(frequency * y)
        for frequency in frequencies
        for wave in (jnp.sin, jnp.cos)
    ]


def mixed(
    parameterize: Parameterization,
    logit: Float[Array, 'channels'],
    sde: SDE,
    network: Network,
    x: State,
    t: PerImage,
) -> State:
    """A share of the network's score, by `parameterize`, and the rest that of data N(0, I).

    The shares a = sigmoid(logit) are one for each channel, the last axis of x, and are trained with
    the network: it only has to learn what normal data do not have. In terms of predicted noise this
    is (1 - a) sigma x / (alpha^2 + sigma^2) + a noise; as a prior it is N(0, I)^(1 - a) p^a
    (Vahdat et al. 2021, arXiv:2106.05931; here for every linear SDE).
    """
    normal = sde.normal_score(x, t)
    # A difference, so that at a = 0 nothing but the normal score is left, to the last bit.
    return normal + jax.nn.sigmoid(logit) * (parameterize(sde, network, x, t) - normal)


def beside_prior(sde: WithoutKernel, network: Network, x: State, t: PerImage) -> State:
    """The score of the prior and, over the distance at which p_t changes, the network's output; for
    SDEs without a kernel.

    At late times there is nothing left to learn, and the probability flow stands still. The label
    is 0 at t_min and 999 at T, and grows as log t.
    """
    of_prior = jax.grad(lambda x: sde.prior_log_prob(x).sum())(x)
    return of_prior + network(x, _log_time_label(sde, t)) / expand(sde.length(t), x)


def _log_time_label(sde: SDE, t: PerImage) -> PerImage:
    start = jnp.log(sde.t_min)
    return LABEL_SCALE * (jnp.log(t) - start) / (jnp.log(sde.T) - start)


PARAMETERIZATIONS = {'noise': noise, 'score': score, 'ddpm': ddpm, 'smld': smld, 'edm': edm}


# Energies: log densities, in nats and up to a constant for each time, whose gradient in x is the
# score.


def inner(
    parameterize: Parameterization, sde: SDE, network: Network, x: State, t: PerImage
) -> PerImage:
    """<x, s(x, t)> / 2, of the score s that a network gives by `parameterize`.

    Its gradient is (s + J' x) / 2 with J the derivative of s: s itself, if that is the score of
    N(0, C) for any C. At a low level of noise over data far from 0 the terms of the gradient are
    much larger than it is.
    """
    return 0.5 * _per_image(x * parameterize(sde, network, x, t))


def norm(
    parameterize: Parameterization, sde: SDE, network: Network, x: State, t: PerImage
) -> PerImage:
    """-|sigma_t s(x, t)|^2 / 2, of the score s that a network gives by `parameterize`: of the noise
    that it predicts.

    With the denoised state D = (x + sigma^2 s) / alpha it is -|x - alpha D|^2 / (2 sigma^2), the
    energy of an autoencoder of Salimans & Ho 2021 ("Should EBMs model the energy or the score?").
    Where data are a plane and D projects on it, at any level of noise that resolves it, the
    gradient is s itself, of the size of 1 / sigma: so it can be as good as a score network. It
    cannot move from s = 0, where its derivative vanishes.
    """
    score = parameterize(sde, network, x, t)
    return -0.5 * sde.sigma(t) ** 2 * _per_image(score**2)


ENERGIES = {'inner': inner, 'norm': norm}

# Of networks whose output is one number for each state. Its gradient in their input takes the place
# of the output in the parameterization of the same name.


def noise_energy(sde: SDE, network: Network, x: State, t: PerImage) -> PerImage:
    """-h(x) / sigma_t, of a network h that is told 999 t / T: grad h is the noise."""
    return -network(x, LABEL_SCALE * t / sde.T) / sde.sigma(t)


def score_energy(sde: SDE, network: Network, x: State, t: PerImage) -> PerImage:
    """The network's output, which is told sigma_t."""
    return network(x, sde.sigma(t))


def edm_energy(
    sde: SDE,
    network: Network,
    x: State,
    t: PerImage,
    sigma_data: float = 0.5,
    input_fourier: Sequence[int] = (),
) -> PerImage:
    """(sigma_data / s) h(u, label) - |u|^2 / 2, whose gradient is the score of `edm` with grad h in
    the place of F.

    Here u = x / (alpha sqrt(s^2 + sigma_data^2)) and s = sigma / alpha; the label and the features
    in the input of h are those of `edm`. With h = 0 it is that of data N(0, sigma_data^2 I), and
    grad h has values of the size of 1 at all levels of noise.
    """
    s = sde.sigma(t) / sde.alpha(t)
    scale = sde.alpha(t) * jnp.sqrt(s**2 + sigma_data**2)
    u, y = x / expand(scale, x), x / expand(sde.alpha(t), x)
    inputs = [u, *fourier_features(y, expand(s, x), input_fourier)]
    output = network(jnp.concatenate(inputs, -1), _edm_label(sde, t))
    return sigma_data / s * output - 0.5 * _per_image(u**2)


def beside_prior_energy(sde: WithoutKernel, network: Network, x: State, t: PerImage) -> PerImage:
    """The log density of the prior and, over the distance at which p_t changes, the network's
    output, whose gradient takes the place of that of `beside_prior`.
    """
    return sde.prior_log_prob(x) + network(x, _log_time_label(sde, t)) / sde.length(t)


def _per_image(values: State) -> PerImage:
    return values.reshape(len(values), -1).sum(axis=1)


SCALAR_ENERGIES = {'noise': noise_energy, 'score': score_energy, 'edm': edm_energy}
