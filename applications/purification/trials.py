"""Networks with a purifier before them, attacked and judged: programs, and what they find of all
images of a data set, batch by batch.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

import keys
from applications.purification import robustness
from applications.purification.attacks import Attack
from applications.purification.purifiers import Noise, Purifier
from applications.purification.robustness import Defence
from datasets.loading import Images
from devices import processes, sharding
from evaluation.batchwise import Checkpoint, OverData
from experiments.classifier import Classifier
from experiments.experiment import Batch
from experiments.score_model import ScoreModel
from sde_lib import at
from shapes import Floats, ImageKeys, OneKey, Scalar
from storage import fingerprints
from storage.resumable import Arrays
from training import Params

Attacked = Float[np.ndarray, 'images height width channels']
# (params, key, batch) -> arrays by name
Program = Callable[[dict[str, Any], OneKey, Batch], dict[str, Array]]


@dataclasses.dataclass(frozen=True)
class Trial:
    """A classifier with a purifier before it. Programs run on `params`: those of the `classifier`,
    of the `score` if there is a model, and the `radius` of attacks, so that all radii are one.

    The classifier is told the noise that images have: of a purifier that leaves it in, its level;
    of others the least that it knows.
    """

    classifier: Classifier
    model: ScoreModel | None
    purifier: Purifier
    seed: int

    def defence(self, params: dict[str, Any]) -> Defence:
        """The purifier and the classifier with these parameters."""
        process = self.model.process(params['score']) if self.purifier.needs_score else None
        log_probs, t = self.classifier.class_log_probs(params['classifier']), self._time()

        def purify(image_keys, x):
            return self.purifier(image_keys, process, x).x

        return Defence(lambda x: log_probs(x, at(t, x)), purify)

    def _time(self) -> Scalar:
        if not isinstance(self.purifier, Noise):
            return jnp.float32(0)
        sde = self.classifier.sde
        time = sde.time_at_log_snr(-2 * jnp.log(jnp.float32(self.purifier.level)))
        return jnp.clip(time, 0.0, sde.T)

    def keys(self, batch: Batch) -> ImageKeys:
        """One for each image."""
        return keys.of_images(jax.random.key(self.seed), batch['index'])

    def images(self, batch: Batch) -> Floats:
        """Those of a batch that has been attacked, or as they are."""
        if 'attacked' in batch:
            return batch['attacked']
        return self.classifier.format.to_float(batch['image'])

    def attack(self, attack: Attack, knows: str) -> Program:
        """The images `attacked` by one who knows what robustness.attacked says."""

        def run(params, _, batch):
            x = self.images(batch)
            given = x, batch['label'], jnp.full(len(x), params['radius'])
            of = self.keys(batch), self.defence(params), attack, knows
            return {'attacked': robustness.attacked(*of, *given)}

        return run

    def judge(self, runs: int) -> Program:
        """The fields of a robustness.Verdict on images by so many runs."""

        def run(params, _, batch):
            x, labels = self.images(batch), batch['label']
            found = robustness.judge(self.keys(batch), self.defence(params), x, labels, runs)
            return found._asdict()

        return run


@dataclasses.dataclass(frozen=True, eq=False)
class Trials:
    """A trial on all of `images`, with the parameters of both networks. Batches that `checkpoint`
    has are not computed again.
    """

    trial: Trial
    images: Images
    classifier: Params
    score: Params | None
    checkpoint: Checkpoint
    runs: int
    batch_size: int
    mesh: Mesh

    def attacked(self, attack: Attack, knows: str, radii: Sequence[float]) -> list[Attacked]:
        """Images within each of these radii, in the range of their values, by one program."""
        program = sharding.jit(self.mesh, self.trial.attack(attack, knows))
        name = f'{knows}_attack'
        found = [self._over(name, program, self.images, radius, attack) for radius in radii]
        return [arrays['attacked'] for arrays in found]

    def judged(self, attacked: Attacked | None = None) -> Arrays:
        """What robustness.judge says of images that were attacked; None: of those that were not."""
        if attacked is None:
            return self._over('clean', self._judge, self.images, 0.0, self.runs)

        def gather(indices):
            return {**self.images.gather(indices), 'attacked': attacked[indices]}

        images = dataclasses.replace(self.images, gather=gather)
        seen = fingerprints.of_arrays(attacked)
        return self._over('judge', self._judge, images, 0.0, (self.runs, seen))

    def purified(self, x: Attacked) -> tuple[Attacked, Attacked]:
        """The first images as they were attacked, in the noise of a draw of the purifier, and what
        it makes of them.
        """

        def run(params, x):
            image_keys = self.trial.keys({'index': jnp.arange(len(x))})
            noised = self.trial.purifier.noised(image_keys, x)
            return noised, self.trial.defence(params).purify(image_keys, x)

        copied = sharding.copied(self.mesh)
        return processes.gather(
            sharding.jit(self.mesh, run, out_shardings=copied)(self._params(0.0), x)
        )

    def _params(self, radius: float) -> dict[str, Any]:
        return {
            'classifier': self.classifier,
            'score': self.score,
            'radius': jnp.float32(radius),
        }

    def _over(self, name: str, program: Callable, images: Images, radius: float, *given: Any):
        over_images = OverData(
            name=name,
            function=program,
            data=images,
            batch_size=self.batch_size,
            seed=self.trial.seed,
            mesh=self.mesh,
            depends_on=(self.trial.purifier, self.trial.seed, radius, self._scored, *given),
        )
        return over_images(dataclasses.replace(self.checkpoint, params=self._params(radius)))

    @functools.cached_property
    def _scored(self) -> int | None:
        return None if self.score is None else int(fingerprints.checksum(self.score))

    @functools.cached_property
    def _judge(self) -> Callable:
        return sharding.jit(self.mesh, self.trial.judge(self.runs))
