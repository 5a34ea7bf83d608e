"""Purifiers and attacks from the fields of a config."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from applications.purification import attacks, purifiers
from applications.purification.attacks import Attack
from applications.purification.purifiers import DiffPure, PublishedADP, Purifier
from choices import InputError, choose, fields_of
from experiments import image_drawing
from experiments.reading import ImageFormat, plain_fields
from experiments.score_model import ScoreModel
from sde_lib import SDE
from solvers.sampler import Sampler

ASCENTS = ('adp', 'adp_published')  # which have a rate and a number of steps of their own


def create_purifier(
    fields: ConfigDict, of_score: ConfigDict | None, model: ScoreModel | None, low: float
) -> Purifier:
    """The purifier of config.purify for images from `low` to 1, with a sampler by the config of the
    score model; InputError for what cannot be. Without a model: one that needs no score.
    """
    kind = choose(purifiers.PURIFIERS, fields.method, 'purify.method')
    if kind is purifiers.Nothing:
        return kind()
    given = plain_fields(fields, only=('rate', 'steps') if fields.method in ASCENTS else ())
    if kind is PublishedADP:
        given['low'] = low
    level, last = (1 - low) * fields.level, None
    if kind is DiffPure:
        given['sampler'] = _sampler(fields, of_score, model)
        last = given['sampler'].t_min
    if model is not None:
        check_level(fields.level, level, model.sde, last)
    return kind(level=level, **given)


def check_level(said: float, level: float, sde: SDE, t_min: float | None = None) -> None:
    """Raises InputError for a `level` of noise, of pixels from 0 to 1 `said`, that the SDE has at
    no time from `t_min` (None: its own) to T.
    """
    ends = jnp.array([sde.t_min if t_min is None else t_min, sde.T])
    least, most = said / level * np.exp(-0.5 * np.asarray(sde.log_snr(ends)))
    if not least < said < most:
        raise InputError(
            f'purify.level: {said:g}; a number above {least:.3g} and below {most:.3g} needed, the '
            'noise that the score model knows'
        )


def _sampler(fields: ConfigDict, of_score: ConfigDict, model: ScoreModel) -> Sampler:
    image_drawing.check_one_by_one(of_score, 'purification, in which images are independent')
    method = fields.sampler or of_score.sampling.method
    sampler = image_drawing.create_sampler(of_score, model.sde, method)
    if fields.steps is None:
        return sampler
    return dataclasses.replace(sampler, grid=dataclasses.replace(sampler.grid, steps=fields.steps))


def create_attack(fields: ConfigDict, low: float) -> Attack:
    """The attack of config.attack on images from `low` to 1."""
    kind = choose(attacks.ATTACKS, fields.method, 'attack.method')
    given = plain_fields(fields, only=('norm', 'steps', 'draws', 'restarts'))
    with fields_of('attack'):
        return kind(low=low, **given)


def lowest(image_format: ImageFormat) -> float:
    """The value of black; white is 1."""
    return -1.0 if image_format.centered else 0.0
