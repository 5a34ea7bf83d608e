"""How far any set of images is from any other, by the features of a network: FID and the others of
docs/quality.md.

python -m applications.compare runs/vp/samples/0001200_pc folder:photos --inception=FILE
"""

import argparse
import sys
from collections.abc import Sequence

from jax.sharding import Mesh

from choices import InputError, RunError, fields_of
from datasets import loading, sources
from datasets.loading import DataError, Images
from devices import preemption, processes, program_cache, sharding
from evaluation import extractors, quality, quantities
from evaluation.extractors import Network
from evaluation.quantities import Quantity
from experiments import trained
from storage import files

MAX_FEATURES = 10_000  # of each set, for what is measured by pairs


def main(argv: Sequence[str] | None = None) -> None:
    """Prints a table; what cannot be used ends the program in one line."""
    given = parser().parse_args(argv)
    try:
        with preemption.ending_at_once('ended before its time'):
            print(quantities.table(measure(given)))
    except (InputError, RunError) as error:
        sys.exit('error: ' + ' '.join(str(error).split()))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog='python -m applications.compare', description=__doc__)
    source = 'a folder, an .npz file, or what data.source may be'
    made.add_argument('images', help=source)
    made.add_argument('reference', help=f'what they are compared with: {source}')
    made.add_argument('--split', default='train', choices=('train', 'test'), help='of both')
    network = made.add_mutually_exclusive_group()
    network.add_argument('--inception', help='its weights; default: INCEPTION_WEIGHTS')
    network.add_argument('--classifier', help='workdir of a classifier, in place of Inception')
    made.add_argument('--batch_size', type=int, default=64, help='images at once')
    return made


def measure(given: argparse.Namespace) -> list[Quantity]:
    """All measures of a command line; InputError for what cannot be used."""
    if given.batch_size < 1:
        raise InputError(f'--batch_size: {given.batch_size}; a number of at least 1 needed')
    sharding.use_cores(given.batch_size)
    program_cache.keep_programs()
    mesh = sharding.create_mesh()
    sharding.check_divides(mesh, '--batch_size', given.batch_size)
    network, *shape = network_of(given)
    images, reference = (
        load(name, source, given.split, *shape)
        for name, source in (('IMAGES', given.images), ('REFERENCE', given.reference))
    )
    if images.shape != reference.shape:
        sizes = ['x'.join(map(str, data.shape[:2])) for data in (images, reference)]
        raise InputError(f'IMAGES: {sizes[0]} pixels, and REFERENCE has {sizes[1]}')
    return compare(images, reference, network, given.batch_size, mesh)


def network_of(given: argparse.Namespace) -> tuple[Network, tuple[int, int] | None, int]:
    """The network that features are by, and the size and channels of the images it takes; None:
    any size.
    """
    if given.classifier is not None:
        path = files.user_path(given.classifier, '--classifier')
        network = trained.features('--classifier', path)
        height, width, channels = network.image_shape
        return network, (height, width), channels
    with fields_of('', inception_weights='--inception'):
        return extractors.load_inception(given.inception, (None, None, 3)), None, 3


def load(name: str, source: str, split: str, size: tuple[int, int] | None, channels: int) -> Images:
    """All images of one of both sets, and a line that says what was found; InputError, which begins
    with its `name`.
    """
    try:
        found = loading.load_all(sources.at(source), size, channels, fit=None, split=split)
        found[0]  # It may be of another size.
    except DataError as error:
        raise InputError(f'{name}: {error}') from error
    if len(found) < quality.FEWEST:
        raise InputError(f'{name}: {len(found)} images; at least {quality.FEWEST} needed')
    processes.tell_once(f'{name} {found.found()}')
    return found


def compare(
    images: Images, reference: Images, network: Network, batch_size: int, mesh: Mesh
) -> list[Quantity]:
    """All measures of `images` against `reference`, by the features of a network."""
    by = extractors.create(network, mesh)
    of_images = quality.extract(by, images, batch_size, len(images), mesh, 'IMAGES')
    of_reference = quality.extract(by, reference, batch_size, MAX_FEATURES, mesh, 'REFERENCE')
    with processes.saying('comparing both'):
        return quality.compare(by, of_images, of_reference, MAX_FEATURES, extrapolate=False)


if __name__ == '__main__':
    main()
