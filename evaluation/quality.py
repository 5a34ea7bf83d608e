"""How good samples are: their features against those of data, by the measures of
distances.py.

The floor is what another split of the data gets in place of as many samples: sampling cannot be
better. Features are computed once, and kept in files whose names hold a fingerprint of images,
network and preprocessing; until they are whole, batch by batch.
"""

import dataclasses
import functools
import pathlib
import shutil
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from choices import ArgumentError, choose
from datasets import batching, identity, loading
from devices import processes, sharding
from evaluation import distances
from evaluation.distances import Moments
from evaluation.extractors import Extractor
from evaluation.quantities import HIGHER, LOWER, Quantity
from shapes import HostPixels
from storage import resumable

FEWEST = 10  # images of a set
# One more split of the Inception score for each so many images, up to 10.
IMAGES_OF_A_SPLIT = 5000

# Names of the Frechet distance, the kernel distance and the score of logits; those by Inception
# have names of their own.
NAMES, OWN_NAMES = ('fd', 'kd', 'score'), ('fid', 'kid', 'inception_score')


class FeatureSet(NamedTuple):
    """Moments of all features of a set; features and logits of the first images."""

    moments: Moments
    features: Float[np.ndarray, 'kept dim']
    logits: Float[np.ndarray, 'kept classes']


@dataclasses.dataclass(frozen=True)
class Quality:
    """Compares samples with `reference`, and as many images of `other` for the floor."""

    networks: list[Extractor]
    reference: loading.Images
    other: loading.Images
    other_name: str
    batch_size: int
    max_features: int
    extrapolate: bool
    cache_dir: pathlib.Path
    mesh: Mesh

    def of_samples(self, name: str, pixels: HostPixels, directory: pathlib.Path) -> list[Quantity]:
        """Measures of samples by every network; features are kept in `directory`."""
        data = loading.from_arrays(pixels)
        return self._compare(name, lambda by: self._cached(by, data, len(data), name, directory))

    def floor(self, num: int) -> list[Quantity]:
        """Measures of the first images of the other split."""
        data = dataclasses.replace(self.other, length=min(num, len(self.other)))
        name, directory = self.other_name, self.cache_dir
        return self._compare(name, lambda by: self._cached(by, data, len(data), name, directory))

    def _compare(self, name: str, extract: Callable[[Extractor], FeatureSet]) -> list[Quantity]:
        found = []
        for by in self.networks:
            reference = self._cached(
                by, self.reference, self.max_features, 'reference', self.cache_dir
            )
            features = extract(by)
            with processes.saying(f'comparing {name} with data by {by.name}'):
                measured = compare(by, features, reference, self.max_features, self.extrapolate)
            found += [quantity._replace(of=name) for quantity in measured]
        return found

    def _cached(
        self, by: Extractor, data: loading.Images, keep: int, name: str, directory: pathlib.Path
    ) -> FeatureSet:
        path = directory / f'{by.name}_{fingerprint(by, data, keep)}.npz'
        if whole := processes.from_first(lambda: resumable.load(path)):
            return from_arrays(whole)
        batches = path.with_name(f'{path.stem}_batches_of_{self.batch_size}')
        title = f'{name}, {by.name}'
        found = extract(by, data, self.batch_size, keep, self.mesh, title, batches)
        processes.on_first(resumable.save, path, to_arrays(found))
        processes.on_first(functools.partial(shutil.rmtree, batches, ignore_errors=True))
        return found


def create(
    networks: list[Extractor],
    load: Callable[[str], loading.Images],
    num_samples: int,
    *,
    reference: str,
    batch_size: int,
    max_features: int,
    extrapolate: bool,
    cache_dir: pathlib.Path,
    mesh: Mesh,
) -> Quality:
    """Compares samples with the split `reference`, of which `load` gives the images.

    Raises ArgumentError for a split that does not exist, and for sets that are too small to
    compare.
    """
    other_name = choose(OTHER_SPLITS, reference, 'reference')
    images, other = load(reference), load(other_name)
    for argument, what, num in (
        ('num_samples', '', num_samples),
        ('max_features', '', max_features),
        ('source', f'images of the {reference} split: ', len(images)),
        ('source', f'images of the {other_name} split: ', len(other)),
    ):
        if num < FEWEST:
            raise ArgumentError(argument, f'{what}{num}; eval.quality needs at least {FEWEST}')
    return Quality(
        networks=networks,
        reference=images,
        other=other,
        other_name=other_name,
        batch_size=batch_size,
        max_features=max_features,
        extrapolate=extrapolate,
        cache_dir=cache_dir,
        mesh=mesh,
    )


OTHER_SPLITS = {'test': 'train', 'train': 'test'}


def extract(
    by: Extractor,
    data: loading.Images,
    batch_size: int,
    keep: int,
    mesh: Mesh,
    name: str,
    directory: pathlib.Path | None = None,
) -> FeatureSet:
    """Features of every image, batch by batch over all devices, and moments that need no more.

    Those of batches are kept in `directory`, if there is one, for the case of an interruption.
    """
    total, features, logits, kept = None, [], [], 0
    batches = batching.epoch(data, batch_size, *processes.place())
    with processes.bar(total=len(data), unit='image', desc=f'features of {name}') as bar:
        for i, batch in enumerate(batches):
            left = len(data) - i * batch_size
            of_batch = functools.partial(_features, by, batch['image'], left, mesh)
            new = list(resumable.keep(directory, i, of_batch).values())
            moments = distances.moments(new[0])
            total = distances.merge(total, moments) if total else moments
            if kept < keep:
                for rows, part in zip((features, logits), new, strict=True):
                    rows.append(part[: keep - kept])
                kept += len(features[-1])
            bar.update(len(new[0]))
    return FeatureSet(total, np.concatenate(features), np.concatenate(logits))


def _features(by, pixels, num, mesh):
    outputs = processes.gather(by.run(by.params, sharding.split(mesh, pixels)))
    kept = [output[:num] for output in outputs]
    return dict(zip(('features', 'logits'), kept, strict=True))


def compare(
    by: Extractor, samples: FeatureSet, reference: FeatureSet, max_features: int, extrapolate: bool
) -> list[Quantity]:
    """All measures by one network."""
    frechet, kernel, score = OWN_NAMES if by.has_own_names else NAMES
    label = None if by.has_own_names else by.name
    gaussian = distances.gaussian(reference.moments)
    kernel_distance = distances.kernel_distance(samples.features, reference.features)
    splits = min(10, 1 + len(samples.logits) // IMAGES_OF_A_SPLIT)
    scores = distances.inception_score(samples.logits, splits)
    distance = distances.frechet_distance(distances.fit(samples.features), gaussian)
    score_error = scores.standard_error if splits > 1 else None
    found = [
        Quantity(frechet, distance, better=LOWER, by=label),
        Quantity(f'{frechet}_images', samples.moments.count, by=label),
        Quantity(kernel, kernel_distance.value, kernel_distance.standard_error, LOWER, by=label),
        Quantity(score, scores.value, score_error, HIGHER, by=label),
    ]
    if extrapolate:
        line = distances.extrapolated_frechet_distance(samples.features, gaussian)
        bias = line.slope / samples.moments.count
        found += [
            Quantity(f'{frechet}_infinity', line.at_infinity, better=LOWER, by=label),
            Quantity(f'{frechet}_bias', bias, by=label),
        ]
    near = distances.neighbours(reference.features, samples.features[:max_features])
    return found + [
        Quantity(name, value, better=HIGHER, by=by.name) for name, value in near._asdict().items()
    ]


# Files


def fingerprint(by: Extractor, data: loading.Images, keep: int) -> str:
    """Changes with the network, and with images, as datasets/identity.py sees them."""
    return identity.of_text(by.fingerprint, len(data), data.shape, keep, data.fingerprint)


def to_arrays(found: FeatureSet) -> resumable.Arrays:
    """For a file."""
    return {**found.moments._asdict(), 'features': found.features, 'logits': found.logits}


def from_arrays(arrays: resumable.Arrays) -> FeatureSet:
    """What `to_arrays` was given."""
    moments = Moments(int(arrays['count']), arrays['mean'], arrays['scatter'])
    return FeatureSet(moments, arrays['features'], arrays['logits'])
