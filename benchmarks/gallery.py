"""The pictures of docs/conditional.md.

python -m benchmarks.gallery           # all of it: under half an hour on two cores
python -m benchmarks.gallery patches   # the data of configs/vp/patches_ddpmpp.py alone

Trains what has not been trained, and replaces `docs/images/task_*.png`.
"""

import importlib.resources
import importlib.util
import pathlib
import shutil
import subprocess
import sys

import numpy as np
from PIL import Image

RUNS = pathlib.Path('runs')
PICTURES = pathlib.Path('docs/images')
PATCH = 32
STRIDE = 4

DIGITS = 'configs/vp/mnist_ddpmpp.py', RUNS / 'vp'
CLASSES = 'configs/vp/mnist_classes_ddpmpp.py', RUNS / 'classes'
PATCHES = 'configs/vp/patches_ddpmpp.py', RUNS / 'patches'
CLASSIFIER = 'configs/ve/mnist_classifier.py', RUNS / 'classifier'

NOISE = ['--config.task.noise_std=0.02']
PIGDM = ['--config.task.method=pigdm']
ROWS = ['--config.task.num_images=6', '--config.task.samples_each=4']
TENS = ['--config.sampling.num_samples=60', '--config.sampling.batch_size=60']
# The name of a picture, its run, its task and further flags.
TASKS = [
    ('inpaint', PATCHES, 'inpaint', [f'--config.task.mask={RUNS}/mask.png', *ROWS, *PIGDM]),
    ('inpaint_projection', PATCHES, 'inpaint', [f'--config.task.mask={RUNS}/mask.png', *ROWS]),
    ('colourise', PATCHES, 'colourise', [*ROWS, *PIGDM]),
    ('superresolve', PATCHES, 'superresolve', ['--config.task.factor=4', *ROWS, *PIGDM]),
    ('deblur', PATCHES, 'deblur', ['--config.task.blur_std=2', *NOISE, *ROWS, *PIGDM]),
    (
        'class',
        DIGITS,
        'class',
        [f'--config.task.classifier={CLASSIFIER[1]}', '--config.task.guidance=6', *TENS],
    ),
    (
        'class_free',
        CLASSES,
        'class',
        [f'--config.task.classifier={CLASSIFIER[1]}', '--config.task.guidance=3', *TENS],
    ),
]


def photographs() -> list[np.ndarray]:
    """The two that scikit-learn has, at half their size: 213 x 320."""
    package = importlib.util.module_from_spec(importlib.util.find_spec('sklearn'))
    folder = importlib.resources.files(package).joinpath('datasets/images')
    found = []
    for name in ('china.jpg', 'flower.jpg'):
        with folder.joinpath(name).open('rb') as file, Image.open(file) as image:
            found.append(np.asarray(image.convert('RGB').reduce(2)))
    return found


def cut(photograph: np.ndarray, stride: int) -> np.ndarray:
    """All patches of a photograph whose corners lie on a grid."""
    height, width = (side - PATCH + 1 for side in photograph.shape[:2])
    corners = [(i, j) for i in range(0, height, stride) for j in range(0, width, stride)]
    return np.stack([photograph[i : i + PATCH, j : j + PATCH] for i, j in corners])


def write_patches(path: pathlib.Path) -> None:
    """Overlapping patches for training, and separate ones of the right fifth for tests."""
    train = [cut(photo[:, : photo.shape[1] * 4 // 5], STRIDE) for photo in photographs()]
    test = [cut(photo[:, photo.shape[1] * 4 // 5 :], PATCH) for photo in photographs()]
    # Those of the two photographs take turns, and start where there is something to see.
    test = np.stack([part[::-1] for part in test], axis=1).reshape(-1, PATCH, PATCH, 3)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, train_images=np.concatenate(train), test_images=test)


def write_mask(path: pathlib.Path) -> None:
    """A square of 16 pixels in the middle is unknown."""
    mask = np.full((PATCH, PATCH), 255, np.uint8)
    mask[PATCH // 4 : -PATCH // 4, PATCH // 4 : -PATCH // 4] = 0
    Image.fromarray(mask).save(path)


def run(mode: str, experiment: tuple[str, pathlib.Path], *flags: str) -> None:
    """One command of main.py, shown as it is typed."""
    config, workdir = experiment
    command = ['main.py', f'--mode={mode}', f'--config={config}', f'--workdir={workdir}', *flags]
    print('python', *command, flush=True)
    subprocess.run([sys.executable, *command], check=True)


def draw(name: str, experiment: tuple[str, pathlib.Path], task: str, flags: list[str]) -> None:
    """Runs one task, and keeps its picture."""
    run('sample', experiment, f'--task={task}', *flags)
    newest = max((experiment[1] / 'samples').glob('*.png'), key=lambda path: path.stat().st_mtime)
    shutil.copy(newest, PICTURES / f'task_{name}.png')


def main(arguments: list[str]) -> None:
    """Prepares the data, and does the rest unless only they are asked for."""
    write_patches(RUNS / 'patches.npz')
    write_mask(RUNS / 'mask.png')
    if arguments == ['patches']:
        return
    for experiment in (PATCHES, CLASSIFIER, DIGITS, CLASSES):
        run('train', experiment)
    for name, experiment, task, flags in TASKS:
        draw(name, experiment, task, flags)


if __name__ == '__main__':
    main(sys.argv[1:])
