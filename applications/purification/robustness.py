"""How robust a defended classifier is: images are attacked, and then judged by fresh draws.

What a random defence does while it is attacked counts for nothing: `judge` draws anew, and so no
attack can wait for a lucky draw, nor a defence hope for one. Three numbers of each image say how
random its answers are: by the mean logits of all runs, the share of runs that are right, and
whether all of them are.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

import keys
from applications.purification import attacks
from applications.purification.attacks import Attack, Classify, Purify
from choices import choose
from shapes import Classes, Flags, ImageKeys, PerImage, State

# The numbers of an image's keys.
ATTACK, JUDGE = 0, 1


class Defence(NamedTuple):
    """A classifier, `classify(x) -> logits`, and what stands before it,
    `purify(image_keys, x) -> x`.
    """

    classify: Classify
    purify: Purify


class Verdict(NamedTuple):
    """Of each image: whether the mean logits of all runs are right, the share of runs that are
    right, and whether all are.
    """

    by_mean: Flags
    single: PerImage
    always: Flags


def attacked(
    image_keys: ImageKeys,
    defence: Defence,
    attack: Attack,
    knows: str,
    x: State,
    labels: Classes,
    radius: PerImage,
) -> State:
    """Images within `radius` of `x`, attacked by one who `knows` what one of attacks.LOSSES says;
    ArgumentError for another name.
    """
    loss = choose(attacks.LOSSES, knows, 'knows')(*defence, labels)
    return attack(keys.fold_in(image_keys, ATTACK), loss, x, radius)


def judge(image_keys: ImageKeys, defence: Defence, x: State, labels: Classes, runs: int) -> Verdict:
    """How often images are classified rightly in `runs` fresh draws of the defence."""
    own_keys = keys.fold_in(image_keys, JUDGE)

    def run(i):
        return defence.classify(defence.purify(keys.fold_in(own_keys, i), x))

    logits = lax.map(run, jnp.arange(runs))
    right = logits.argmax(2) == labels
    return Verdict(
        by_mean=logits.mean(0).argmax(1) == labels,
        single=right.mean(0),
        always=right.all(0),
    )
