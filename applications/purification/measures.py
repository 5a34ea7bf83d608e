"""What `--mode=eval` finds out about a classifier with a purifier before it: `eval.robustness`
under attacks, `eval.corruptions` of images that are corrupted.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from applications.purification import purifiers
from applications.purification.attacks import Attack
from applications.purification.purifiers import Purifier
from applications.purification.settings import create_attack, create_purifier, lowest
from applications.purification.trials import Attacked, Trial, Trials
from choices import InputError
from datasets.loading import Images
from devices import processes, sharding
from evaluation import corruptions
from evaluation.batchwise import Checkpoint, Found, Measure
from evaluation.quantities import HIGHER, Quantity, mean
from experiments import trained
from experiments.classifier import Classifier
from experiments.experiment import Experiment
from experiments.reading import ImageFormat
from experiments.score_model import ScoreModel
from reports import pictures
from storage import files
from storage.resumable import Arrays
from training import Params

SHOWN = 8  # images of a picture of attacks
PICTURE = 'purification.png'
ROBUST = 'robust_accuracy'


def create_measures(config: ConfigDict, experiment: Experiment, mesh: Mesh) -> list[Measure]:
    """What config.eval asks for of a classifier with a purifier before it; InputError for what
    cannot be.
    """
    fields = config.eval
    if not (fields.robustness or fields.corruptions):
        return []
    model, images = experiment.model, experiment.data('test')
    of_score, score_model, score = _load_score(config, model.format)
    purifier = create_purifier(config.purify, of_score, score_model, lowest(model.format))
    if 'full' in fields.robustness and not purifier.has_gradient:
        raise InputError(
            "eval.robustness: 'full' needs the gradient of the purifier, which a sampler that "
            "chooses its steps has not; another purify.sampler, such as 'pc', or 'bpda'"
        )
    num = min(config.purify.num_images or len(images), len(images))
    judge = Judge(
        config=config,
        classifier=model,
        images=dataclasses.replace(images, length=num),
        model=score_model,
        score=None if score is None else sharding.put(score, sharding.copied(mesh)),
        purifier=purifier,
        attack=create_attack(config.attack, lowest(model.format)),
        mesh=mesh,
    )
    asked = (judge.robustness, fields.robustness), (judge.corruptions, fields.corruptions)
    return [measure for measure, is_asked in asked if is_asked]


@dataclasses.dataclass(frozen=True)
class Judge:
    """Both measures of a classifier, of these test images; `score` are the parameters of the score
    `model`, if the purifier needs one.
    """

    config: ConfigDict
    classifier: Classifier
    images: Images
    model: ScoreModel | None
    score: Params | None
    purifier: Purifier
    attack: Attack
    mesh: Mesh

    def robustness(self, checkpoint: Checkpoint) -> Found:
        """Under every attack, of every radius; and a picture of the last one."""
        defended, last = self._trials(self.purifier, checkpoint), None
        found = told(defended.judged(), 'purified')
        scale = 1 - lowest(self.classifier.format)
        for eps in self.config.attack.eps:
            of_eps = []
            for knows in self.config.eval.robustness:
                # Who does not know of the purifier has no random loss.
                draws = 1 if knows == 'blind' else self.attack.draws
                own = dataclasses.replace(self.attack, draws=draws)
                [last] = defended.attacked(own, knows, [scale * eps])
                of_eps += told(defended.judged(last), f'{knows}_eps={eps:g}')
            least = min((q for q in of_eps if q.name == ROBUST), key=lambda q: q.value)
            found += [*of_eps, least._replace(of=f'least_eps={eps:g}')]
        sheet = show_attacks(defended, last)
        processes.on_first(pictures.save_png, checkpoint.directory / PICTURE, sheet)
        return Found(found)

    def corruptions(self, checkpoint: Checkpoint) -> Found:
        """Of all corruptions and strengths, without and with the purifier."""
        found, image_format = [], self.classifier.format
        for suffix, purifier in {'': purifiers.Nothing(), '_purified': self.purifier}.items():
            of = self._trials(purifier, checkpoint)
            for name in self.config.eval.corruptions:
                for strength in corruptions.STRENGTHS:
                    given = corrupt(of.images, name, strength, self.config.seed, image_format)
                    found += told(of.judged(given), f'{name}_{strength}{suffix}')[:1]
        return Found(found)

    def _trials(self, purifier: Purifier, checkpoint: Checkpoint) -> Trials:
        return Trials(
            trial=Trial(self.classifier, self.model, purifier, self.config.seed),
            images=self.images,
            classifier=checkpoint.params,
            score=self.score,
            checkpoint=checkpoint,
            runs=self.config.purify.runs if purifier.is_random else 1,
            batch_size=self.config.eval.batch_size,
            mesh=self.mesh,
        )


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
