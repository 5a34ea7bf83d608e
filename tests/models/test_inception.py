"""The FID Inception against torch-fidelity's, on the same random weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from choices import InputError
from models import inception
from tests.support import inception_reference as reference


@pytest.fixture(scope='module')
def state():
    return reference.weights(reference.recorded()[0])


def test_outputs_are_those_of_torch_fidelity(state):
    """To 1e-4 of their scale (found: 1e-6); images are neither square nor of the usual size."""
    params = inception.from_torch(state)
    run = jax.jit(lambda params, x: inception.Inception().apply({'params': params}, x))
    found = run(params, reference.images())
    expected = reference.recorded()[1]
    for ours, name in zip(found, ('2048', 'logits_unbiased', 'logits'), strict=True):
        theirs = expected[name]
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5 * np.abs(theirs).max())


def test_weights_that_do_not_fit_are_named(state):
    broken = {**state, 'Mixed_6b.branch7x7_2.conv.weight': np.zeros((128, 128, 7, 1))}
    with pytest.raises(InputError, match=r'Mixed_6b.branch7x7_2.kernel has shape \(7, 1,'):
        inception.from_torch(broken)
    del broken['Mixed_5b.branch1x1.bn.bias']
    with pytest.raises(InputError, match='Mixed_5b.branch1x1.bn.bias is missing'):
        inception.from_torch(broken)


@pytest.mark.parametrize('old', [(5, 7), (299, 299), (640, 301)])
def test_resizing_takes_pixels_as_tensorflow_1_did(old):
    """Pixel i lies at i * old / new, between its lower neighbour and the next, if there is one."""
    x = np.random.default_rng(0).uniform(0, 255, (1, *old, 1)).astype(np.float32)
    found = inception.resize(jnp.asarray(x), 299)[0, :, :, 0]
    for i, j in [(0, 0), (1, 298), (150, 297), (298, 4), (298, 298)]:
        (y, dy), (z, dz) = (divmod(k * n / 299, 1) for k, n in zip((i, j), old, strict=True))
        rows = [min(int(y), old[0] - 1), min(int(y) + 1, old[0] - 1)]
        columns = [min(int(z), old[1] - 1), min(int(z) + 1, old[1] - 1)]
        expected = [1 - dy, dy] @ x[0, :, :, 0][np.ix_(rows, columns)] @ [1 - dz, dz]
        # Places are float32, as TensorFlow's: off by 1e-5 pixels of shades up to 255.
        np.testing.assert_allclose(found[i, j], expected, atol=2e-2)
