"""Purification as users run it: `--mode=sample --task=purify` of images, and of a classifier
`--mode=eval` with `eval.robustness` and `eval.corruptions`.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

import keys
from applications.conditional import conditioning
from applications.conditional import run as conditional
from applications.purification import attacks, purifiers
from applications.purification.attacks import Attack
from applications.purification.purifiers import DiffPure, PublishedADP, Purifier
from applications.purification.trials import Attacked, Trial, Trials
from choices import InputError, choose, fields_of
from datasets.loading import Images
from devices import processes, sharding
from evaluation import corruptions
from evaluation.batchwise import Checkpoint, Found, Measure
from evaluation.quantities import HIGHER, Quantity, mean
from experiments import image_drawing, trained
from experiments.experiment import Drawing, Experiment, Shown
from experiments.reading import ImageFormat, plain_fields
from experiments.score_model import ScoreModel
from reports import pictures
from sde_lib import SDE
from solvers.sampler import Sampler
from storage import files, fingerprints
from storage.resumable import Arrays
from training import Params

SHOWN = 8  # images of a picture of attacks
ASCENTS = ('adp', 'adp_published')  # which have a rate and a number of steps of their own
PICTURE = 'purification.png'


# From configs


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


# Images of a user


def create_drawing(config: ConfigDict, model: ScoreModel) -> Drawing:
    """Images of config.task, purified; each row of the picture has the image, the same in the noise
    of its first sample, and what the samples of it are.
    """
    task, label = config.task, conditioning.one_label(config, model)
    purifier = create_purifier(config.purify, config, model, lowest(model.format))
    originals = conditional.load_pictures(config, model.image_shape)
    x, seed = model.format.to_float(jnp.asarray(originals)), image_drawing.seed(config)

    def draw(params, key, indices, given):
        image_keys, process = keys.of_images(key, indices), model.process(params, label)
        found = purifier(image_keys, process, given[indices // task.samples_each])
        return image_drawing.in_8_bits(model.format, found)

    def show(pixels, index):
        each, num = task.samples_each, len(originals)
        drawn = conditional.in_place(pixels, index, num * each)
        first = keys.of_images(jax.random.key(seed), each * jnp.arange(num))
        noised = np.asarray(model.format.to_uint8(purifier.noised(first, x)))
        columns = [originals, noised, *drawn.reshape(num, each, *model.image_shape).swapaxes(0, 1)]
        return Shown(in_rows(columns), {'originals': originals})

    return Drawing(
        name=f'purify_{config.purify.method}',
        num=len(originals) * task.samples_each,
        batch_size=config.sampling.batch_size,
        seed=seed,
        draw=draw,
        fingerprint=repr((purifier, model.network.precision, label, fingerprints.of_arrays(x))),
        given=x,
        show=show,
        is_bounded=True,
    )


def in_rows(columns: list[np.ndarray]) -> np.ndarray:
    """A picture with these images [images, ...] side by side, as many rows as there is room for."""
    rows = np.stack(columns, axis=1)
    shape = rows.shape[2:]
    most = max(1, pictures.most((0, *shape)) // len(columns))
    return pictures.grid(rows[:most].reshape(-1, *shape), len(columns))


# A classifier that is attacked, or whose images are corrupted


def create_measures(config: ConfigDict, experiment: Experiment, mesh: Mesh) -> list[Measure]:
    """What config.eval asks for of a classifier with a purifier before it; InputError for what
    cannot be.
    """
    fields = config.eval
    if not (fields.robustness or fields.corruptions):
        return []
    model, images = experiment.model, experiment.data('test')
    of_score, score_model, score = _load_score(config, model.format)
    low = lowest(model.format)
    purifier = create_purifier(config.purify, of_score, score_model, low)
    if 'full' in fields.robustness and not purifier.has_gradient:
        raise InputError(
            "eval.robustness: 'full' needs the gradient of the purifier, which a sampler that "
            "chooses its steps has not; another purify.sampler, such as 'pc', or 'bpda'"
        )
    attack = create_attack(config.attack, low)
    num = min(config.purify.num_images or len(images), len(images))
    placed = None if score is None else sharding.put(score, sharding.copied(mesh))

    def trials(purifier: Purifier, checkpoint: Checkpoint) -> Trials:
        return Trials(
            trial=Trial(model, score_model, purifier, config.seed),
            images=dataclasses.replace(images, length=num),
            classifier=checkpoint.params,
            score=placed,
            checkpoint=checkpoint,
            runs=config.purify.runs if purifier.is_random else 1,
            batch_size=fields.batch_size,
            mesh=mesh,
        )

    def robustness(checkpoint: Checkpoint) -> Found:
        defended = trials(purifier, checkpoint)
        found = told(defended.judged(), 'purified')
        scale, radii, last = 1 - low, config.attack.eps, None
        for eps in radii:
            of_eps = []
            for knows in fields.robustness:
                # Who does not know of the purifier has no random loss.
                draws = 1 if knows == 'blind' else attack.draws
                own = dataclasses.replace(attack, draws=draws)
                [last] = defended.attacked(own, knows, [scale * eps])
                of_eps += told(defended.judged(last), f'{knows}_eps={eps:g}')
            least = min((q for q in of_eps if q.name == ROBUST), key=lambda q: q.value)
            found += [*of_eps, least._replace(of=f'least_eps={eps:g}')]
        sheet = show_attacks(defended, last)
        processes.on_first(pictures.save_png, checkpoint.directory / PICTURE, sheet)
        return Found(found)

    def corrupted(checkpoint: Checkpoint) -> Found:
        found = []
        both = {'': purifiers.Nothing(), '_purified': purifier}
        for suffix, stands_before in both.items():
            of = trials(stands_before, checkpoint)
            for name in fields.corruptions:
                for strength in corruptions.STRENGTHS:
                    given = corrupt(of.images, name, strength, config.seed, model.format)
                    found += told(of.judged(given), f'{name}_{strength}{suffix}')[:1]
        return Found(found)

    asked = (robustness, fields.robustness), (corrupted, fields.corruptions)
    return [measure for measure, is_asked in asked if is_asked]


ROBUST = 'robust_accuracy'


def told(found: Arrays, of: str) -> list[Quantity]:
    """What is reported of a robustness.Verdict: shares of images, and their standard errors."""
    names = {ROBUST: 'by_mean', f'{ROBUST}_single': 'single', f'{ROBUST}_always': 'always'}
    return [mean(name, found[field], better=HIGHER, of=of) for name, field in names.items()]


def corrupt(
    images: Images, name: str, strength: int, seed: int, image_format: ImageFormat
) -> Attacked:
    """All images with a corruption, in the range of their values."""
    pixels = images.gather(np.arange(len(images)))['image']
    changed = corruptions.corrupt(pixels, name, strength, seed)
    return np.asarray(image_format.to_float(jnp.asarray(changed)))


def _load_score(
    config: ConfigDict, image_format: ImageFormat
) -> tuple[ConfigDict, ScoreModel, Params] | tuple[None, None, None]:
    if not purifiers.PURIFIERS[config.purify.method].needs_score:
        return None, None, None
    if config.purify.workdir is None:
        raise InputError(
            f'purify.workdir: {config.purify.method!r} needs one, of a score model of such images'
        )
    path = files.user_path(config.purify.workdir, 'purify.workdir')
    return trained.load_score_model(
        'purify.workdir', path, image_format.shape, image_format.centered
    )


def show_attacks(defended: Trials, attacked: Attacked) -> np.ndarray:
    """A picture of the first images, one a column: as they are, attacked, in noise, purified."""
    pixels = defended.images.gather(np.arange(min(SHOWN, len(attacked))))['image']
    first = attacked[: len(pixels)]
    to_uint8 = defended.trial.classifier.format.to_uint8
    states = [first, *defended.purified(first)]
    rows = [pixels, *(np.asarray(to_uint8(jnp.asarray(state))) for state in states)]
    return pictures.grid(np.concatenate(rows), len(pixels))
