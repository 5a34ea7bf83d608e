"""Pictures of a latent score model for its report: arcs of codes end where reconstructions are."""

import jax
import numpy as np

from experiments import exhibits, kinds, latent_exhibits
from solvers.ode import ODESolver
from tests import tiny_latent
from tests.support import networks


def test_arcs_end_at_the_reconstructions_of_test_images(tmp_path):
    experiment = kinds.create(tiny_latent.get_config())
    model, solver = experiment.model, ODESolver('tsit5', rtol=1e-5, atol=1e-5)
    params = networks.randomised(jax.eval_shape(model.init_params, jax.random.key(0)))
    data = experiment.data('test')
    ends = data.gather(exhibits.ENDS)
    draw = jax.jit(latent_exhibits.create(model, solver, t_min=0.01))
    found = jax.device_get(draw(params, jax.random.key(0), ends))

    assert set(np.unique(found['images'])) == {0, 255}
    assert found['is_done'].all()
    arcs, reconstructions = (
        found[name].astype(int) for name in ('interpolation', 'reconstructions')
    )
    first, second = np.split(reconstructions, 2)
    # The ODE leads back to the code that it began with; a grey level is the rounding.
    np.testing.assert_allclose(arcs[:, 0], first, atol=1)
    np.testing.assert_allclose(arcs[:, -1], second, atol=1)
    middle = arcs[:, exhibits.POINTS // 2]
    assert min(np.abs(middle - end).max() for end in (first, second)) > 20

    latent_exhibits.write(tmp_path, found, data)
    names = {path.stem for path in tmp_path.glob('*.png')}
    assert names == {'interpolation', 'reconstructions'}
