"""What `eval` finds out about a score model of vectors: log-densities of simulated states, and how
far samples are from such states, with a picture of both."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Float
from ml_collections import ConfigDict

import keys
import likelihood
import sampling
from choices import fields_of
from datasets.points import Points
from devices import processes, sharding
from evaluation import distances
from evaluation.batchwise import Checkpoint, Found, Measure, OverData
from evaluation.quantities import HIGHER, LOWER, Quantity, mean
from experiments.image_drawing import ARGUMENTS
from experiments.points_model import PointsModel
from reports import plots
from sde_lib import WithoutKernel
from shapes import OneKey
from solvers import simulation
from solvers.ode import ODESolver
from solvers.sampler import Sampler, Samples
from storage import resumable
from training import Params

SHOWN = 5  # times in the picture


def create(config: ConfigDict, model: PointsModel, data: Points, mesh: Mesh) -> list[Measure]:
    """What config.eval asks for; InputError if that does not go together."""
    samplers = {name: create_sampler(config, name) for name in config.eval.samplers}
    measures = [likelihood_measure(config, model, data, mesh)] if config.eval.likelihood else []
    return [*measures, samples_measure(config, model, samplers, data)]


def create_sampler(config: ConfigDict, method: str) -> Sampler:
    """A sampler of config.eval.samplers, which returns its way; no state is denoised."""
    names = {
        'pc': ('steps', 'eta'),
        'ode': ('rtol', 'atol'),
        'adaptive_sde': ('sde_rtol', 'sde_atol', 'eta'),
    }[method]
    fields = {name: config.sampling[name] for name in names if config.sampling[name] is not None}
    with fields_of('sampling'):
        own = {ARGUMENTS.get(name, name): value for name, value in fields.items()}
        return sampling.create(method, denoise=False, **own)


def simulated(
    config: ConfigDict, model: PointsModel, key: Array, x0: Float[Array, 'num dim'], t: float
) -> Float[Array, 'num dim']:
    """States at one time, simulated from data."""
    num = len(x0)
    # Of times that it knows XLA rewrites the steps in circles, for a minute.
    times = lax.optimization_barrier(jnp.full(num, t))
    return simulation.simulate(
        jax.random.split(key, num), model.sde, x0, times, config.simulation.steps
    )


# Likelihoods


def likelihood_measure(config: ConfigDict, model: PointsModel, data: Points, mesh: Mesh) -> Measure:
    """The mean log-density at t_min of states that are simulated from the test split; and, of data
    whose law is known, how far that is below the truth: KL(p_t_min || model).

    The drift from time 0 to t_min is left out of the truth, and its noise is not.
    """
    fields, sde = config.eval, model.sde
    with fields_of('eval'):
        solver = ODESolver(fields.solver, fields.rtol, fields.atol)
        solver.check_adaptive()
    blur = sde.diffusion(jnp.float32(sde.t_min)) * sde.t_min**0.5

    def of_batch(params, key, batch):
        key_path, key_probes = jax.random.split(key)
        x = simulated(config, model, key_path, batch['x'], sde.t_min)
        process, image_keys = model.process(params), jax.random.split(key_probes, len(x))
        found = likelihood.log_prob(image_keys, process, x, solver=solver, divergence='exact')
        arrays = {'log_prob': found.log_prob, 'nfe': found.nfe}
        if data.law is not None:
            arrays['truth'] = data.law.blurred_log_prob(x, blur)
        return arrays

    over_test_data = OverData(
        name='likelihood',
        function=sharding.jit(mesh, of_batch),
        data=data,
        batch_size=fields.batch_size,
        seed=config.seed,
        mesh=mesh,
        depends_on=(solver, config.simulation.steps),
    )

    def measure(checkpoint: Checkpoint) -> Found:
        found = over_test_data(checkpoint)
        quantities = [mean('log_prob', found['log_prob'], better=HIGHER)]
        if 'truth' in found:
            gap = found['truth'] - found['log_prob']
            quantities.append(mean('kl', gap, better=LOWER, of='data'))
        return Found([*quantities, mean('log_prob_nfe', found['nfe'], better=LOWER)])

    return measure


# Samples


def samples_measure(
    config: ConfigDict, model: PointsModel, samplers: dict[str, Sampler], data: Points
) -> Measure:
    """Kernel and Fréchet distances of samples from states that are simulated up to t_min, those of
    others that are simulated beside them; `densities.png` has all on their way, and
    `samples_METHOD.npz` the samples.
    """
    num = config.sampling.num_samples
    key_samples, *keys_paths = jax.random.split(jax.random.key(config.seed), 3)
    x0 = data.gather(np.arange(num) % len(data))['x']

    @jax.jit
    def simulate(key: OneKey) -> Float[Array, 'shown num dim']:
        path_keys = jax.random.split(key, SHOWN)
        return jnp.stack(
            [
                simulated(config, model, path_keys[i], jnp.asarray(x0), t)
                for i, t in enumerate(shown_times(model.sde))
            ]
        )

    @functools.partial(jax.jit, static_argnums=0)
    def draw(sampler: Sampler, params: Params) -> Samples:
        with_way = dataclasses.replace(sampler, trajectory=True)
        image_keys = keys.per_image(key_samples, num)
        return with_way(image_keys, model.process(params), (model.dim,))

    def measure(checkpoint: Checkpoint) -> Found:
        truth, others = (np.asarray(simulate(key)) for key in keys_paths)
        rows, found = {'simulated': truth}, distances_of('simulated', others[-1], truth[-1])
        problems = []
        for name, sampler in samplers.items():
            processes.say(f'drawing {num:,} samples by {name} ...')
            drawn = jax.device_get(draw(sampler, checkpoint.params))
            kept = drawn.ending.is_done & np.isfinite(drawn.trajectory).all(axis=(0, 2))
            if not kept.all():
                left = f'{num - kept.sum():,} of {num:,}'
                problems.append(f'{name}: {left} samples are not done, or not finite')
            if kept.sum() < 2:
                continue
            way = drawn.trajectory[:, kept]
            nearest = [int(np.abs(drawn.times - t).argmin()) for t in shown_times(model.sde)]
            rows[name] = way[nearest]
            found += distances_of(name, drawn.x[kept], truth[-1])
            found.append(Quantity('nfe', float(drawn.nfe.mean()), better=LOWER, of=name))
            path = checkpoint.directory / f'samples_{name}.npz'
            processes.on_first(resumable.save, path, {'x': drawn.x[kept]})
        titles = [f't = {t:.2g}' for t in shown_times(model.sde)]
        figure = plots.densities(rows, titles)
        processes.on_first(plots.save, figure, checkpoint.directory / 'densities.png')
        return Found(found, problems=problems)

    return measure


def shown_times(sde: WithoutKernel) -> list[float]:
    """Times of the picture: each a quarter of the one before, and t_min."""
    return [sde.T / 4**i for i in range(SHOWN - 1)] + [sde.t_min]


def distances_of(
    name: str, x: Float[np.ndarray, 'num dim'], truth: Float[np.ndarray, 'others dim']
) -> list[Quantity]:
    """How far states are from others."""
    kernel = distances.kernel_distance(x, truth)
    frechet = distances.frechet_distance(distances.fit(x), distances.fit(truth))
    return [
        Quantity('kd', kernel.value, kernel.standard_error, better=LOWER, of=name),
        Quantity('fd', frechet, better=LOWER, of=name),
    ]
