"""Pictures for the report: ends of arcs are the images, and neighbours are the nearest."""

import jax
import numpy as np

from datasets import loading
from experiments import exhibits, kinds
from solvers.ode import ODESolver
from tests import tiny_config
from tests.support import networks


def test_arcs_end_at_the_test_images_and_strips_at_the_samples(tmp_path):
    config = tiny_config.get_config()
    config.model.nf = 4
    experiment = kinds.create(config)
    model, solver = experiment.model, ODESolver('tsit5', rtol=1e-4, atol=1e-4)
    shapes = jax.eval_shape(model.init_params, jax.random.key(0))
    params = jax.tree.map(lambda a: 0.3 * a, networks.randomised(shapes))
    data = experiment.data('test')
    ends = data.gather(exhibits.ENDS)
    found = jax.jit(exhibits.create(model, solver, t_min=None))(params, jax.random.key(0), ends)
    found = jax.device_get(found)

    arcs = found['interpolation'].astype(int)
    first, second = np.split(ends['image'].astype(int), 2)
    # The last picture is what the network takes to be the image, at noise below one grey level.
    np.testing.assert_allclose(arcs[:, 0], first, atol=6)
    np.testing.assert_allclose(arcs[:, -1], second, atol=6)
    assert np.abs(arcs[:, 3] - first).max() > 20
    strips = found['denoising']
    np.testing.assert_array_equal(strips[:, 1, -1], found['samples'][: exhibits.STRIPS])
    assert strips[:, 0, 0].std() > 80  # noise, clipped

    exhibits.write(tmp_path, found, data)
    assert {path.stem for path in tmp_path.glob('*.png')} == {
        'denoising',
        'interpolation',
        'neighbours',
    }


def test_neighbours_are_the_nearest_images_in_order():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (1200, 3, 3, 1), np.uint8)
    wanted = rng.integers(0, 256, (4, 3, 3, 1), np.uint8)
    found = exhibits.nearest(wanted, loading.from_arrays(pixels))
    for image, near in zip(wanted, found, strict=True):
        distances = ((pixels.astype(int) - image.astype(int)) ** 2).sum(axis=(1, 2, 3))
        expected = np.sort(distances)[: exhibits.NEIGHBOURS]
        np.testing.assert_array_equal(
            ((near.astype(int) - image.astype(int)) ** 2).sum(axis=(1, 2, 3)), expected
        )
