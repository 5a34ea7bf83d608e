"""How fast images are read: batches of `batching.batches`, from memory and from files.

    python -m benchmarks.inputs [--repeats 5] [--seconds 2]

The images are random pixels, which no PNG compresses: files are as large and as slow to decode as
they get. Small data sets are kept in memory once they are decoded (`loading.CACHE_BYTES`), so that
files are decoded in the first epoch alone; the last column is that of later ones.
"""

import argparse
import pathlib
import statistics
import tempfile
import time

import numpy as np
from PIL import Image

from benchmarks import machine
from datasets import batching, loading

BATCH = 128
# Images, their side in the file, and the side that they are read at.
CASES = {
    'npz, 32x32': (20_000, 32, 32),
    'PNG files, 32x32': (4_000, 32, 32),
    'PNG files, 256x256 to 64x64': (1_500, 256, 64),
}


def write(path: pathlib.Path, num: int, size: int, is_npz: bool) -> str:
    """Random images; the source of `loading.load` that they are."""
    rng = np.random.default_rng(0)
    if is_npz:
        np.savez(path / 'images.npz', images=rng.integers(0, 256, (num, size, size, 3), np.uint8))
        return f'npz:{path / "images.npz"}'
    for i in range(num):
        pixels = rng.integers(0, 256, (size, size, 3), np.uint8)
        Image.fromarray(pixels).save(path / f'{i:05d}.png')
    return f'folder:{path}'


def rate(images: loading.Images, num: int = 0, seconds: float = 0) -> float:
    """Images a second, of so many or in so many seconds, beginning with nothing read ahead."""
    stream = batching.batches(images, BATCH, seed=0)
    done, passed, start = 0, 0.0, time.perf_counter()
    while done < num or passed < seconds:
        done += len(next(stream)['image'])
        passed = time.perf_counter() - start
    return done / passed


def measure(name: str, repeats: int, seconds: float) -> str:
    """Images a second in the first epoch and in later ones."""
    num, stored, size = CASES[name]
    with tempfile.TemporaryDirectory() as directory:
        source = write(pathlib.Path(directory), num, stored, name.startswith('npz'))
        first, later = [], []
        for _ in range(repeats):
            images = loading.load(source, 'train', (size, size), 3)
            first.append(rate(images, num=len(images)))
            later.append(rate(images, seconds=seconds))
    return ' | '.join(f'{statistics.median(rates):,.0f}' for rates in (first, later))


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--seconds', type=float, default=2.0)
    args = parser.parse_args()
    print(f'Batches of {BATCH}, medians of {args.repeats}; {machine.name()}\n')
    print('| images | images a second, first epoch | later |\n' + '| --- ' * 3 + '|')
    for name in CASES:
        print(f'| {name} | {measure(name, args.repeats, args.seconds)} |', flush=True)


if __name__ == '__main__':
    main()
