"""Random weights of the FID Inception, and the recording of what torch-fidelity makes of them.

`tests/data/inception.npz` is written by this file, with torch-fidelity 0.3.0 and PyTorch 2.13:

python -m tests.inception_reference

The weights are made again from their names wherever they are needed, so that they need no file.
"""

import json
import sys
import zlib
from unittest import mock

import numpy as np

from tests.support import golden

SHAPE = (2, 28, 40, 3)


def recorded() -> tuple[dict[str, tuple[int, ...]], dict[str, np.ndarray]]:
    """Shapes of the weights by PyTorch's names, and the outputs."""
    found = golden.load('inception')
    names, shapes = found.pop('names'), found.pop('shapes')
    return dict(zip(names.tolist(), map(json.loads, shapes.tolist()), strict=True)), found


def weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Arrays for PyTorch's names and shapes, under which activations neither grow nor vanish."""
    return {name: _array(name, shape) for name, shape in shapes.items()}


def _array(name, shape):
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    kind = name.rsplit('.', 1)[-1]
    if kind == 'num_batches_tracked':
        return np.int64(0)
    if kind == 'running_var' or name.endswith('bn.weight'):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if kind in ('bias', 'running_mean'):
        return rng.normal(0, 0.2, shape).astype(np.float32)
    gain = 2.0 if len(shape) == 4 else 1.0
    return rng.normal(0, np.sqrt(gain / np.prod(shape[1:])), shape).astype(np.float32)


def images() -> np.ndarray:
    """uint8 images: noise over shades, so that resizing has edges to show."""
    rng = np.random.default_rng(0)
    batch, height, width, channels = SHAPE
    shade = np.linspace(0, 1, width)[:, None] * rng.uniform(size=(batch, height, 1, channels))
    return (255 * (0.5 * shade + 0.5 * rng.uniform(size=SHAPE))).astype(np.uint8)


def _record():
    import torch  # Only for recording.

    # torchvision, which the package imports for its data sets, is not needed here.
    for name in ('', '.datasets', '.transforms', '.transforms.functional', '.models'):
        sys.modules[f'torchvision{name}'] = mock.MagicMock()
    from torch_fidelity import feature_extractor_inceptionv3 as published

    shapes = {}

    def random_weights(network):
        shapes.update({k: tuple(v.shape) for k, v in network.state_dict().items()})
        return {k: torch.from_numpy(np.array(v)) for k, v in weights(shapes).items()}

    class Extractor(published.FeatureExtractorInceptionV3):
        """With random weights in place of the file's."""

        def load_state_dict(self, _):
            return super().load_state_dict(random_weights(self))

    published.torch.load = lambda *_: None
    kinds = ['2048', 'logits_unbiased', 'logits']
    extractor = Extractor('inception', kinds, feature_extractor_weights_path='none').eval()
    found = {'names': list(shapes), 'shapes': [json.dumps(s) for s in shapes.values()]}
    with torch.no_grad():
        outputs = extractor(torch.from_numpy(images().transpose(0, 3, 1, 2)))
    found |= {kind: output.numpy() for kind, output in zip(kinds, outputs, strict=True)}
    np.savez_compressed(golden.DATA / 'inception.npz', **found)


if __name__ == '__main__':
    _record()
