"""Networks whose features images are compared by: uint8 images in, features and logits out.

Every number is labelled with its network, because numbers by different networks do not compare. The
one that FID is defined by is here, Inception, with weights that users bring along.
"""

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from choices import ArgumentError, InputError
from devices import compiling, sharding
from models import inception
from published import torch_legacy, torch_zip
from shapes import ImageShape, Pixels
from storage import files

Features = tuple[Float[Array, 'batch dim'], Float[Array, 'batch classes']]

INCEPTION_FILE = 'pt_inception-2015-12-05-6726825d.pth'
INCEPTION_SHA256 = '6726825d'  # how it begins; the name of the file says so
INCEPTION_VARIABLE = 'INCEPTION_WEIGHTS'


@dataclasses.dataclass(frozen=True)
class Network:
    """`apply(params, pixels)` are features and logits; `preprocessing` says what else these depend
    on. `has_own_names`: distances by it have names of their own (FID, KID). `image_shape` is that
    of all images it takes, if that is fixed.
    """

    name: str
    params: Any
    apply: Callable[[Any, Pixels], Features]
    preprocessing: str
    has_own_names: bool = False
    image_shape: ImageShape | None = None


@dataclasses.dataclass(frozen=True)
class Extractor:
    """`run(params, pixels)` are features and logits; `fingerprint` changes with either of them."""

    name: str
    params: Any
    run: Callable[[Any, Pixels], Features]
    fingerprint: str
    has_own_names: bool


def create(network: Network, mesh: Mesh) -> Extractor:
    """A network on the devices of a mesh."""
    return Extractor(
        name=network.name,
        params=sharding.put(network.params, sharding.by_size(mesh, network.params)),
        run=compiling.told(
            f'the network {network.name}',
            sharding.jit(mesh, network.apply, out_shardings=sharding.by_batch(mesh)),
        ),
        fingerprint=_fingerprint(network),
        has_own_names=network.has_own_names,
    )


def _fingerprint(network: Network) -> str:
    digest = hashlib.sha256(network.preprocessing.encode())
    for path, value in jax.tree_util.tree_leaves_with_path(network.params):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


# Inception


def load_inception(path: str | None, image_shape: ImageShape) -> Network:
    """Inception with the weights of a file, or of the one that the environment names.

    Raises ArgumentError, of 'inception_weights' or 'channels', if that cannot be.
    """
    path = path or os.environ.get(INCEPTION_VARIABLE)
    if path is None:
        raise ArgumentError(
            'inception_weights',
            f'None, and no {INCEPTION_VARIABLE} in the environment; one of them must be the path '
            f'of {INCEPTION_FILE}, the weights of the FID Inception that pytorch-fid and '
            'torch-fidelity publish, or of an .npz with the same arrays',
        )
    if image_shape[2] not in (1, 3):
        raise ArgumentError('channels', f'{image_shape[2]}; Inception takes grey or RGB images')

    def apply(params, pixels):
        found = inception.Inception().apply({'params': params}, _as_rgb(pixels))
        # The Inception score is that of logits without their bias, as its first code had them.
        return found.features, found.logits_unbiased

    params = read_inception(files.user_path(path, 'eval.inception_weights'))
    return Network('inception', params, apply, inception.GRAPH, has_own_names=True)


def _as_rgb(pixels: Pixels) -> Pixels:
    return jnp.broadcast_to(pixels, (*pixels.shape[:3], 3))


def read_inception(path: pathlib.Path) -> dict:
    """The parameters in a file of PyTorch, whose checksum must be the known one, or in an .npz with
    the same names; raises ArgumentError if they are something else."""
    if not path.is_file():
        raise ArgumentError('inception_weights', f'{path}: there is no such file')
    try:
        return inception.from_torch(_read_npz(path) if path.suffix == '.npz' else _read_pth(path))
    except (InputError, *torch_zip.BROKEN) as error:
        raise ArgumentError('inception_weights', f'{path}: {error}') from error


def _read_npz(path):
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def _read_pth(path):
    with path.open('rb') as file:
        found = hashlib.file_digest(file, 'sha256').hexdigest()
    if not found.startswith(INCEPTION_SHA256):
        raise InputError(
            f'its SHA-256 begins with {found[:8]}, and that of {INCEPTION_FILE} with '
            f'{INCEPTION_SHA256}: it is another file, or damaged'
        )
    return (torch_legacy if torch_legacy.is_torch_legacy(path) else torch_zip).load(path)
