"""Stand-ins for the archives of CIFAR-10 and CIFAR-100, in both of their formats."""

import io
import pickle
import tarfile

import numpy as np

NAMES = tuple(f'class_{i}' for i in range(10))
FINE = tuple(f'fine_{i}' for i in range(100))
NUM_TRAIN, NUM_TEST = 12, 4

rng = np.random.default_rng(0)
IMAGES = rng.integers(0, 256, (NUM_TRAIN + NUM_TEST, 32, 32, 3), np.uint8)
LABELS = rng.integers(0, 10, NUM_TRAIN + NUM_TEST)


def rows():
    """Reds, greens and blues of each image, one after the other."""
    return np.ascontiguousarray(IMAGES.transpose(0, 3, 1, 2)).reshape(len(IMAGES), -1)


def binary_rows(*columns):
    """With bytes of labels before them."""
    return np.concatenate([*(c.astype(np.uint8)[:, None] for c in columns), rows()], axis=1)


def python10(num_batches=3, protocol=2):
    """By their names, the files of the Python format of CIFAR-10."""
    files = {'batches.meta': pickle.dumps({'label_names': list(NAMES)}, protocol)}
    parts = np.split(np.arange(NUM_TRAIN), num_batches)
    for name, chosen in [
        *((f'data_batch_{i + 1}', part) for i, part in enumerate(parts)),
        ('test_batch', np.arange(NUM_TRAIN, len(IMAGES))),
    ]:
        batch = {b'data': rows()[chosen], b'labels': LABELS[chosen].tolist(), b'filenames': ['a']}
        files[name] = pickle.dumps(batch, protocol)
    return {f'cifar-10-batches-py/{name}': content for name, content in files.items()}


def binary10():
    """By their names, the files of the binary format of CIFAR-10."""
    content = binary_rows(LABELS)
    files = {
        'batches.meta.txt': '\n'.join([*NAMES, '']).encode(),
        'data_batch_1.bin': content[:8].tobytes(),
        'data_batch_2.bin': content[8:NUM_TRAIN].tobytes(),
        'test_batch.bin': content[NUM_TRAIN:].tobytes(),
        'readme.html': b'<a href="https://www.cs.toronto.edu/~kriz/cifar.html">',
    }
    return {f'cifar-10-batches-bin/{name}': content for name, content in files.items()}


def python100():
    """By their names, the files of the Python format of CIFAR-100."""
    files = {'meta': pickle.dumps({'fine_label_names': list(FINE)})}
    for name, part in (('train', slice(0, NUM_TRAIN)), ('test', slice(NUM_TRAIN, None))):
        batch = {'data': rows()[part], 'fine_labels': (LABELS[part] + 7).tolist()}
        files[name] = pickle.dumps(batch | {'coarse_labels': LABELS[part].tolist()})
    return {f'cifar-100-python/{name}': content for name, content in files.items()}


def binary100():
    """By their names, the files of the binary format of CIFAR-100."""
    content = binary_rows(LABELS, LABELS + 7)
    files = {
        'fine_label_names.txt': '\n'.join(FINE).encode(),
        'train.bin': content[:NUM_TRAIN].tobytes(),
        'test.bin': content[NUM_TRAIN:].tobytes(),
    }
    return {f'cifar-100-binary/{name}': content for name, content in files.items()}


def pack(path, files):
    """A compressed archive of these files."""
    with tarfile.open(path, 'w:gz') as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def unpack(path, files):
    """The folder that such an archive would unpack to."""
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path / next(iter(files)).split('/')[0]
