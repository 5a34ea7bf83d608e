"""The log-likelihood of 32 digits: our program against the published algorithm, in one process.

    python -m benchmarks.likelihood [--workdir runs/vp] [--tolerance 1e-5] [--repeats 3]
        [--only 'published, one device' 'ours, dopri5, one step size']

The published algorithm is written anew here: SciPy's RK45 on the host, over the flattened batch in
float64 with one error norm for all of it, in time t, drift and divergence by two compiled functions
(the latter by reverse mode), arrays to and from the host at every stage. Ours is one compiled
program: in log signal-to-noise ratio, drift and divergence from one forward pass. Both get the same
dequantised digits, probes, tolerance and first time. Ours uses all cores, as devices; the published
algorithm is timed on one device, which is what JAX makes of a CPU unless told otherwise, and on all
of them. They are timed in turn, so that their ratio holds on a busy machine too.

Without a workdir the network has initial parameters, and noise on them so that its output is not
zero.
"""

import argparse
import functools
import pathlib
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
from scipy import integrate

import keys
import likelihood
from benchmarks import machine
from configs.vp import mnist_ddpmpp
from datasets import quantization
from devices import sharding
from experiments import kinds, run_files
from solvers.ode import ODESolver

BATCH = 32


def published(model, params, probes, t_min, tolerance, placement):
    """`log_prob(x) -> ([batch], evaluations)`, as published (Song et al. 2021, appendix D.2).

    The batch lies on devices as `placement` says.
    """
    sde, process = model.sde, model.process(params)

    def drift(x, t):
        return sde.probability_flow(x, t, process.score(x, t))

    def divergence(x, t):
        gradient = jax.grad(lambda x: jnp.sum(drift(x, t) * probes))(x)
        return jnp.sum((gradient * probes).reshape(BATCH, -1), axis=1)

    drift_fn, divergence_fn = jax.jit(drift), jax.jit(divergence)

    def log_prob(x):
        shape, split = x.shape, x.size

        def derivative(t, state):
            x = jax.device_put(state[:split].reshape(shape).astype(np.float32), placement)
            times = jnp.full(BATCH, t, jnp.float32)
            return np.concatenate(
                [np.asarray(drift_fn(x, times)).ravel(), np.asarray(divergence_fn(x, times))]
            )

        start = np.concatenate([np.asarray(x).ravel(), np.zeros(BATCH)])
        solution = integrate.solve_ivp(
            derivative, (t_min, sde.T), start, method='RK45', rtol=tolerance, atol=tolerance
        )
        end = solution.y[:, -1]
        latent = jnp.asarray(end[:split].reshape(shape), jnp.float32)
        return np.asarray(sde.prior_log_prob(latent)) + end[split:], solution.nfev

    return log_prob


def ours(model, params, image_keys, t_min, tolerance, solver, per_image):
    """`log_prob(x) -> ([batch], evaluations)` by `likelihood.log_prob`."""
    run = jax.jit(
        functools.partial(
            likelihood.log_prob,
            process=model.process(params),
            t_min=t_min,
            solver=ODESolver(solver, tolerance, tolerance, per_image),
        )
    )

    def log_prob(x):
        found = run(image_keys, x=x)
        return np.asarray(found.log_prob), int(found.nfe.max())

    return log_prob


def parameters(config, experiment, mesh, workdir):
    """Trained ones, or initial ones with noise."""
    if workdir:
        return run_files.restore(config, workdir, experiment, mesh).evaluated
    params = experiment.model.init_params(jax.random.key(0))
    leaves, tree = jax.tree.flatten(params)
    noise = jax.random.split(jax.random.key(1), len(leaves))
    return tree.unflatten(
        [a + 0.02 * jax.random.normal(k, a.shape) for a, k in zip(leaves, noise, strict=True)]
    )


def timed(ways, x, repeats):
    """Results, and the median seconds of ways that take turns; the first turn compiles."""
    results = {name: run(x) for name, run in ways.items()}
    seconds = {name: [] for name in ways}
    for _ in range(repeats):
        for name, run in ways.items():
            started = time.perf_counter()
            run(x)
            seconds[name].append(time.perf_counter() - started)
    return results, {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--workdir', type=pathlib.Path)
    parser.add_argument('--tolerance', type=float, default=1e-5)
    parser.add_argument('--repeats', type=int, default=3)
    parser.add_argument('--only', nargs='+', help='rows, a published one among them; default: all')
    args = parser.parse_args()

    sharding.use_cores(BATCH)
    config = mnist_ddpmpp.get_config()
    experiment = kinds.create(config)
    ways, x = contestants(config, experiment, args.workdir, args.tolerance)
    names = args.only or list(ways)
    references = [name for name in names if name.startswith('published')]
    if not references or not set(names) <= set(ways):
        parser.error(f'--only: {names}; rows are {list(ways)}, and a published one is needed')
    ways = {name: ways[name] for name in names}
    results, seconds = timed(ways, x, args.repeats)
    print(
        f'{BATCH} digits, tolerance {args.tolerance:g}, {jax.device_count()} devices, medians of '
        f'{args.repeats}; {machine.name()}\n'
    )
    print_table(results, seconds, references, experiment.model, x[0].size)


def contestants(config, experiment, workdir, tolerance):
    """What is compared, by name, the published ways first; and the digits."""
    model, mesh = experiment.model, sharding.create_mesh()
    params = parameters(config, experiment, mesh, workdir)
    params = jax.device_put(params, sharding.copied(mesh))
    pixels = experiment.data('test').gather(np.arange(BATCH))['image']
    noise_keys, image_keys = keys.split(keys.per_image(jax.random.key(0), BATCH), 2)
    draw = functools.partial(likelihood.PROBES['rademacher'], num=1, shape=model.image_shape)
    x = quantization.dequantize_each(noise_keys, jnp.asarray(pixels), model.format.centered)
    probes = jax.vmap(draw)(image_keys)[:, 0]
    x, probes, image_keys = jax.device_put((x, probes, image_keys), sharding.by_batch(mesh))

    t_min, ways = model.sde.t_min, {}
    for where, placements in {
        'one device': (jax.devices()[0], jax.devices()[0]),
        'all devices': (sharding.copied(mesh), sharding.by_batch(mesh)),
    }.items():
        placed = jax.device_put((params, probes), placements)
        ways[f'published, {where}'] = published(model, *placed, t_min, tolerance, placements[1])
    for solver in ('dopri5', 'tsit5'):
        for per_image in (False, True):
            name = f'ours, {solver}, one step size{" an image" if per_image else ""}'
            ways[name] = ours(model, params, image_keys, t_min, tolerance, solver, per_image)
    return ways, x


def print_table(results, seconds, references, model, dim):
    """A row for each way, with its seconds over those of the references."""
    width = quantization.bin_width(model.format.centered)
    print('| | evaluations | bits/dim | largest difference of an image | seconds | ratios |')
    print('| --- | --- | --- | --- | --- | --- |')
    reference = likelihood.bits_per_dim(results[references[0]][0], dim, width)
    for name, (log_prob, nfe) in results.items():
        bits = likelihood.bits_per_dim(log_prob, dim, width)
        ratios = ', '.join(f'{seconds[name] / seconds[other]:.2f}' for other in references)
        print(
            f'| {name} | {nfe} | {bits.mean():.4f} | {np.abs(bits - reference).max():.4f} '
            f'| {seconds[name]:.1f} | {ratios} |'
        )


if __name__ == '__main__':
    main()
