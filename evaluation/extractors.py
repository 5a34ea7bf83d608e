"""Networks whose features images are compared by, from config.eval: uint8 images in, features out.

    classifier   this project's own noise-conditional classifier, trained on the data in question:
                 the layer before its logits, at its lowest noise level
    inception    the network that FID is defined by, with weights that users bring along

Every number is labelled with its network, because numbers by different networks do not compare.
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
from jaxtyping import Array, Float, UInt8
from ml_collections import ConfigDict

from choices import InputError, choose
from devices import sharding
from experiments import trained
from models import inception
from published import torch_legacy, torch_zip

Pixels = UInt8[Array, 'batch height width channels']
Outputs = tuple[Float[Array, 'batch dim'], Float[Array, 'batch classes']]

INCEPTION_FILE = 'pt_inception-2015-12-05-6726825d.pth'
INCEPTION_SHA256 = '6726825d'  # how it begins; the name of the file says so
INCEPTION_VARIABLE = 'INCEPTION_WEIGHTS'


@dataclasses.dataclass(frozen=True)
class Extractor:
    """`run(params, pixels)` are features and logits; `fingerprint` changes with either of them."""

    name: str
    params: Any
    run: Callable[[Any, Pixels], Outputs]
    fingerprint: str


def create(
    name: str, fields: ConfigDict, image_shape: tuple[int, int, int], mesh: Mesh
) -> Extractor:
    """The network of this name, as config.eval says; InputError if its weights are not there."""
    params, run, preprocessing = choose(EXTRACTORS, name, 'eval.quality')(fields, image_shape)
    return Extractor(
        name=name,
        params=sharding.put(params, sharding.by_size(mesh, params)),
        run=sharding.jit(mesh, run, out_shardings=sharding.by_batch(mesh)),
        fingerprint=_fingerprint(params, preprocessing),
    )


def _fingerprint(params, preprocessing):
    digest = hashlib.sha256(preprocessing.encode())
    for path, value in jax.tree_util.tree_leaves_with_path(params):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


# The classifier


def _classifier(fields, image_shape):
    if fields.classifier_workdir is None:
        raise InputError(
            'eval.classifier_workdir: None; a classifier is needed, trained on images of this kind '
            'with --mode=train, as configs/ve/mnist_classifier.py is'
        )
    workdir = pathlib.Path(fields.classifier_workdir)
    classifier, params = trained.load('eval.classifier_workdir', workdir, image_shape)
    preprocessing = f'centered={classifier.centered} t_min={classifier.t_min} {classifier.network}'
    return params, classifier.features, preprocessing


# Inception


def _inception(fields, image_shape):
    path = fields.inception_weights or os.environ.get(INCEPTION_VARIABLE)
    if path is None:
        raise InputError(
            f'eval.inception_weights: None, and no {INCEPTION_VARIABLE} in the environment; one of '
            f'them must be the path of {INCEPTION_FILE}, the weights of the FID Inception that '
            'pytorch-fid and torch-fidelity publish, or of an .npz with the same arrays'
        )
    if image_shape[2] not in (1, 3):
        raise InputError(f'data.channels: {image_shape[2]}; Inception takes grey or RGB images')

    def run(params, pixels):
        found = inception.Inception().apply({'params': params}, _as_rgb(pixels))
        # The Inception score is that of logits without their bias, as its first code had them.
        return found.features, found.logits_unbiased

    return read_inception(pathlib.Path(path)), run, inception.GRAPH


def _as_rgb(pixels):
    return jnp.broadcast_to(pixels, (*pixels.shape[:3], 3))


def read_inception(path: pathlib.Path) -> dict:
    """The parameters in a file of PyTorch, whose checksum must be the known one, or in an .npz with
    the same names; raises InputError if they are something else."""
    field = 'eval.inception_weights'
    if not path.is_file():
        raise InputError(f'{field}: {path}: there is no such file')
    try:
        return inception.from_torch(_read_npz(path) if path.suffix == '.npz' else _read_pth(path))
    except (InputError, *torch_zip.BROKEN) as error:
        raise InputError(f'{field}: {path}: {error}') from error


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


EXTRACTORS = {'classifier': _classifier, 'inception': _inception}
