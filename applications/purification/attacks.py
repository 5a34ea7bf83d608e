"""Attacks on classifiers that may have a purifier before them: images of largest loss in a ball.

    attack(image_keys, loss, x, radius) -> attacked images

    loss(image_keys, x) -> [batch]     one draw, above 0 where the image is classified wrongly

What an attacker knows is in the loss, LOSSES: the classifier alone, the purified image, or all of
the purifier with its gradient. Of random purifiers the mean over draws is climbed (expectation over
transformation, Athalye et al. 2018). Every image is attacked to the last step, by its own key.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import keys
from choices import choose
from guidance.classification import Logits
from sde_lib import expand
from shapes import Classes, ImageKeys, PerImage, State

Loss = Callable[[ImageKeys, State], PerImage]
Classify = Callable[[State], Logits]
Purify = Callable[[ImageKeys, State], State]


# What is climbed


def margin(logits: Logits, labels: Classes) -> PerImage:
    """The largest logit of another class, less that of the label: above 0 where that is wrong."""
    is_label = jax.nn.one_hot(labels, logits.shape[1], dtype=bool)
    own = jnp.sum(jnp.where(is_label, logits, 0.0), axis=1)
    return jnp.max(jnp.where(is_label, -jnp.inf, logits), axis=1) - own


def blind(classify: Classify, purify: Purify, labels: Classes) -> Loss:
    """Of an attacker who does not know of the purifier."""
    return lambda image_keys, x: margin(classify(x), labels)


def bpda(classify: Classify, purify: Purify, labels: Classes) -> Loss:
    """Of one who sees purified images, and takes the purifier's derivative for the identity
    (backward pass differentiable approximation, Athalye et al. 2018).
    """

    def loss(image_keys, x):
        moved = lax.stop_gradient(purify(image_keys, x) - x)
        return margin(classify(x + moved), labels)

    return loss


def full(classify: Classify, purify: Purify, labels: Classes) -> Loss:
    """Of one who differentiates the purifier too."""
    return lambda image_keys, x: margin(classify(purify(image_keys, x)), labels)


LOSSES = {'blind': blind, 'bpda': bpda, 'full': full}


class Slope(NamedTuple):
    """The loss of each image, and its gradient."""

    loss: PerImage
    gradient: State


def expected(loss: Loss, draws: int, image_keys: ImageKeys, x: State) -> Slope:
    """Means over so many draws of the loss and of its gradient."""

    def add(total, i):
        own_keys = keys.fold_in(image_keys, i)
        value, pull = jax.vjp(lambda x: loss(own_keys, x), x)
        found = Slope(value, *pull(jnp.ones_like(value)))
        return jax.tree.map(jnp.add, total, found), None

    zeros = Slope(jnp.zeros(len(x), x.dtype), jnp.zeros_like(x))
    total, _ = lax.scan(add, zeros, jnp.arange(draws))
    return jax.tree.map(lambda a: a / draws, total)


# Balls


class Norm(NamedTuple):
    """Of a ball around `x`: the nearest point in it, the steepest direction of length 1, and a
    random point of the ball of radius 1 around 0, for each image of a batch.
    """

    project: Callable[[State, State, PerImage], State]
    steepest: Callable[[State], State]
    draw: Callable[[ImageKeys, tuple[int, ...]], State]


def _project_linf(x, center, radius):
    radius = expand(radius, x)
    return jnp.clip(x, center - radius, center + radius)


def _project_l2(x, center, radius):
    away = x - center
    return center + away * expand(jnp.minimum(1.0, radius / _length(away)), x)


def _length(x: State) -> PerImage:
    """With something above 0 for 0, which may be divided by."""
    squares = jnp.sum(x**2, axis=tuple(range(1, x.ndim)))
    return jnp.sqrt(jnp.maximum(squares, jnp.finfo(x.dtype).tiny))


def _draw_linf(image_keys, shape):
    return jax.vmap(lambda key: jax.random.uniform(key, shape, minval=-1.0))(image_keys)


def _draw_l2(image_keys, shape):
    direction, share = keys.normal(image_keys, 0, shape), keys.fold_in(image_keys, 1)
    length = jax.vmap(jax.random.uniform)(share) ** (1 / math.prod(shape))
    return direction * expand(length / _length(direction), direction)


NORMS = {
    'linf': Norm(_project_linf, jnp.sign, _draw_linf),
    'l2': Norm(_project_l2, lambda g: g / expand(_length(g), g), _draw_l2),
}


# Attacks


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attack:
    """What all have in common.

    norm         of the ball, of NORMS
    steps        gradients of each start
    draws        of the loss, for each gradient
    restarts     random starts, of which each image keeps that of the largest loss
    low, high    range of the values of images
    """

    norm: str = 'linf'
    steps: int = 40
    draws: int = 1
    restarts: int = 1
    low: float = -1.0
    high: float = 1.0

    def __post_init__(self):
        choose(NORMS, self.norm, 'norm')

    def project(self, x: State, center: State, radius: PerImage) -> State:
        """Points of the ball in the range of images. Both are convex and hold the center, which the
        second projection leads no image away from.
        """
        return jnp.clip(NORMS[self.norm].project(x, center, radius), self.low, self.high)

    def __call__(self, image_keys: ImageKeys, loss: Loss, x: State, radius: PerImage) -> State:
        """Images within `radius` of `x`."""

        def attempt(i):
            own_keys = keys.fold_in(image_keys, i)
            starts = NORMS[self.norm].draw(keys.fold_in(own_keys, self.steps), x.shape[1:])
            start = self.project(x + expand(radius, x) * starts, x, radius)
            return self.climb(own_keys, loss, start, x, radius)

        if self.restarts == 1:
            return attempt(0)
        found = lax.map(attempt, jnp.arange(self.restarts))
        # All starts are compared by the same draws, which none of them has climbed.
        judges = keys.fold_in(image_keys, self.restarts)
        losses = lax.map(lambda x: expected(loss, self.draws, judges, x).loss, found)
        best = jnp.argmax(losses, axis=0)
        return jnp.take_along_axis(found, best.reshape(1, -1, *(1,) * (x.ndim - 1)), axis=0)[0]

    def climb(
        self, image_keys: ImageKeys, loss: Loss, start: State, center: State, radius: PerImage
    ) -> State:
        """Images of larger loss than `start`."""
        raise TypeError(f'{type(self).__name__} does not define climb')


@dataclasses.dataclass(frozen=True, kw_only=True)
class PGD(Attack):
    """Projected gradient ascent (Madry et al. 2018): all steps have one length, and together
    `reach` radii; the last state counts.
    """

    reach: float = 2.5

    def climb(self, image_keys, loss, start, center, radius):
        size = expand(self.reach / self.steps * radius, center)

        def step(x, i):
            slope = expected(loss, self.draws, keys.fold_in(image_keys, i), x)
            moved = x + size * NORMS[self.norm].steepest(slope.gradient)
            return self.project(moved, center, radius), None

        return lax.scan(step, start, jnp.arange(self.steps))[0]


class Climber(NamedTuple):
    """States of APGD: where it is and was, the best place so far with its slope, the length of
    steps, and since the last look at it: losses that rose, whether the best place and the length
    are those of before.
    """

    x: State
    before: State
    loss: PerImage
    best: State
    of_best: Slope
    size: PerImage
    rises: PerImage
    best_then: PerImage
    halved_then: PerImage


@dataclasses.dataclass(frozen=True, kw_only=True)
class APGD(Attack):
    """Auto-PGD (Croce and Hein 2020, arXiv:2003.01690, algorithm 1): gradient ascent with momentum
    whose steps begin at `first` radii and are halved, at fixed steps, where the loss rose in fewer
    than `rising` of the steps or its maximum stood still; then it goes on from the maximum, which
    counts in the end.
    """

    first: float = 2.0
    momentum: float = 0.25
    rising: float = 0.75

    def looks(self) -> np.ndarray:
        """For each step the number of steps since the last look, 0 where there is none: first after
        0.22 of all steps, then ever sooner, by 0.03, down to 0.06.
        """
        found, last, share, length = np.zeros(self.steps), 0, 22, 22
        # In hundredths, which no rounding shifts.
        while (look := math.ceil(share * self.steps / 100)) < self.steps:
            found[look], last = look - last, look
            length = max(length - 3, 6)
            share += length
        return found

    def climb(self, image_keys, loss, start, center, radius):
        norm, num = NORMS[self.norm], len(center)

        def step(now, counts):
            i, since = counts
            slope = expected(loss, self.draws, keys.fold_in(image_keys, i), now.x)
            better = slope.loss > now.of_best.loss
            best = jnp.where(expand(better, center), now.x, now.best)
            of_best = jax.tree.map(
                lambda a, b: jnp.where(expand(better, a), a, b), slope, now.of_best
            )
            rises = now.rises + (slope.loss > now.loss)
            stands = (now.halved_then == 0) & (of_best.loss == now.best_then)
            looks = since > 0
            halves = looks & ((rises < self.rising * since) | stands)
            size = jnp.where(halves, now.size / 2, now.size)
            back = expand(halves, center)
            x, before = jnp.where(back, best, now.x), jnp.where(back, best, now.before)
            gradient = jnp.where(back, of_best.gradient, slope.gradient)
            moved = x + expand(size * radius, x) * norm.steepest(gradient)
            ahead = self.project(moved, center, radius)
            # The first step has nothing behind it.
            share = jnp.where(i > 0, self.momentum, 0.0)
            mixed = x + (1 - share) * (ahead - x) + share * (x - before)
            return Climber(
                x=self.project(mixed, center, radius),
                before=x,
                loss=slope.loss,
                best=best,
                of_best=of_best,
                size=size,
                rises=jnp.where(looks, 0.0, rises),
                best_then=jnp.where(looks, of_best.loss, now.best_then),
                halved_then=jnp.where(looks, halves.astype(jnp.float32), now.halved_then),
            ), None

        nothing = jnp.full(num, -jnp.inf)
        first = Climber(
            x=start,
            before=start,
            loss=nothing,
            best=start,
            of_best=Slope(nothing, jnp.zeros_like(start)),
            size=jnp.full(num, self.first),
            rises=jnp.zeros(num),
            best_then=nothing,
            halved_then=jnp.zeros(num),
        )
        counts = jnp.arange(self.steps), jnp.asarray(self.looks())
        return lax.scan(step, first, counts)[0].best


ATTACKS = {'pgd': PGD, 'apgd': APGD}
