"""What `eval` finds out about a latent score model: the evidence bound of test images by the ODE of
their codes, how far from that their cross-entropy by sampling is, samples and their quality."""

import dataclasses
import math
import pathlib

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

import bounds
import keys
import likelihood
from choices import fields_of
from datasets.loading import Images
from devices import processes, sharding
from evaluation import left_out
from evaluation.batchwise import Checkpoint, Found, Measure, OverData
from evaluation.quantities import LOWER, Quantity, mean
from experiments import image_drawing, run_files, score_measures
from experiments.experiment import Drawing, Program
from experiments.latent_model import AUTOENCODER, PRIOR, LatentModel
from experiments.reading import check_time
from experiments.score_measures import Load
from models import spectral
from solvers.ode import ODESolver
from storage import resumable
from storage.resumable import Arrays


def create(
    config: ConfigDict, model: LatentModel, load: Load, workdir: pathlib.Path, mesh: Mesh
) -> list[Measure]:
    """What config.eval asks for; InputError if that does not go together."""

    def load_compared(split):
        return run_files.compared(workdir, split, load(split))

    drawings = [drawing(config, model, method) for method in config.eval.samplers]
    measures = score_measures.sample_measures(
        config, drawings, model.image_shape, load_compared, workdir, mesh
    )
    if config.eval.bpd:
        measures.insert(0, evidence_measure(config, model, load_compared('test'), mesh))
    penalised = [part for part in (AUTOENCODER, PRIOR) if config.training[f'spectral_{part}']]
    return [*measures, spectral_measure(penalised)] if penalised else measures


def drawing(config: ConfigDict, model: LatentModel, method: str) -> Drawing:
    """Codes by a method, decoded."""
    return image_drawing.create_drawing(config, model.codes, method, model.draw)


def evidence_measure(
    config: ConfigDict, model: LatentModel, test_images: Images, mesh: Mesh
) -> Measure:
    """The negative evidence bound of the first images of the test split."""
    fields = config.eval
    remedy = f'raise eval.rtol ({fields.rtol:g}) or eval.atol ({fields.atol:g})'
    num = min(fields.num_bpd_images or len(test_images), len(test_images))
    names = 't_min', 'divergence', 'num_probes', 'cross_entropy_draws', 'precision'
    over_test_images = OverData(
        name='evidence',
        function=evidence_program(config, model, mesh).run,
        data=dataclasses.replace(test_images, length=num),
        batch_size=fields.batch_size,
        seed=config.seed,
        mesh=mesh,
        depends_on=(create_solver(fields), [fields[name] for name in names]),
    )

    def measure(checkpoint: Checkpoint) -> Found:
        arrays = over_test_images(checkpoint)
        problem = left_out.line('evidence', arrays, remedy, checkpoint.params)
        path = checkpoint.directory / 'bits_per_dim.npz'
        if problem:
            processes.on_first(path.unlink, True)  # That of another evaluation, if any.
            return Found([left_out.quantity(arrays, of='evidence')], problems=[problem])
        dim = math.prod(model.image_shape)
        of_images = {'bits_per_dim': negative_evidence(arrays) / (dim * math.log(2)), **arrays}
        processes.on_first(resumable.save, path, of_images)
        return Found(summary(arrays, dim))

    return measure


def spectral_measure(parts: list[str]) -> Measure:
    """The spectral penalty of these parts of the parameters."""

    def measure(checkpoint: Checkpoint) -> Found:
        penalty = jax.jit(spectral.penalty)
        found = {part: float(penalty(checkpoint.params[part])) for part in parts}
        return Found(
            [
                Quantity(f'spectral_penalty_{part}', value, better=LOWER)
                for part, value in found.items()
            ]
        )

    return measure


def summary(found: Arrays, dim: int) -> list[Quantity]:
    """What is reported of the arrays that `evidence_program` gives: means over images, with their
    standard errors, of the bound in nats and of its terms.

    The gap is the cross-entropy by sampling less that by the ODE, image by image.
    """
    by_ode, bound = -found['log_prob'], negative_evidence(found)
    quantities = [
        mean('nats', bound, better=LOWER),
        mean('nats_reconstruction', found['reconstruction'], better=LOWER),
        mean('nats_codes_negative_entropy', found['log_q']),
        mean('nats_codes_cross_entropy', by_ode, better=LOWER),
        mean('bits_per_dim', bound / (dim * math.log(2)), better=LOWER),
        Quantity('bits_per_dim_images', len(bound)),
        Quantity('bits_per_dim_nfe', float(found['nfe'].mean()), better=LOWER),
    ]
    if 'finer' in found:
        quantities.append(mean('nats_finer_latents', found['finer']))
    if 'by_sampling' in found:
        quantities.append(mean('nats_codes_cross_entropy_gap', found['by_sampling'] - by_ode))
    return quantities


def negative_evidence(found: Arrays) -> np.ndarray:
    """The bound on -log p(x) of each image, in nats."""
    return found['reconstruction'] + found['log_q'] - found['log_prob'] + found.get('finer', 0)


def evidence_program(config: ConfigDict, model: LatentModel, mesh: Mesh) -> Program:
    """The terms of the evidence bound of each image of a batch: `reconstruction`, -log p(x | z),
    `log_q` and `log_prob` of one code, that by the ODE and, if asked for, `by_sampling`; and of
    latents of finer sizes, if there are any, `finer`: log q - log N(0, I).
    """
    fields, key = config.eval, jax.random.key(config.seed)
    solver = create_solver(fields)
    t_min = fields.t_min
    check_time('eval.t_min', t_min, model.codes.sde)
    codes_model = model.codes.with_precision(fields.precision)
    model = dataclasses.replace(model, codes=codes_model)

    def of_batch(params, _, batch):
        # What is drawn for an image depends on its index alone.
        image_keys = keys.of_images(key, batch['index'])
        keys_pixels, keys_codes, keys_probes, keys_times = keys.split(image_keys, 4)
        pixels = model.of_each(keys_pixels, batch['image'])
        noises = model.noises_of_each(keys_codes)
        (codes, *finer), features = model.through(params, pixels, noises)
        process = model.process(params)
        found = likelihood.log_prob(
            keys_probes,
            process,
            codes.z,
            solver=solver,
            t_min=t_min,
            divergence=fields.divergence,
            num_probes=fields.num_probes,
        )
        arrays = {
            'reconstruction': -model.distribution.log_prob(features, pixels),
            'log_q': codes.log_q.sum(axis=1),
            'log_prob': found.log_prob,
            'nfe': found.nfe,
        }
        if finer:
            arrays['finer'] = sum(of_size.divergence().sum(axis=1) for of_size in finer)
        if fields.cross_entropy_draws:
            arrays['by_sampling'] = bounds.cross_entropy(
                keys_times, process, codes.z, num_draws=fields.cross_entropy_draws, t_min=t_min
            ).bound
        return {**arrays, **left_out.arrays(found.ending, *arrays.values())}

    size = fields.batch_size
    index = jax.ShapeDtypeStruct((size,), np.int32)
    shapes = model.format.batch_shapes(size) | {'index': index}
    return Program('evidence', sharding.jit(mesh, of_batch), shapes)


def create_solver(fields: ConfigDict) -> ODESolver:
    """The solver of config.eval; InputError if it does not adapt its steps."""
    with fields_of('eval'):
        solver = ODESolver(fields.solver, fields.rtol, fields.atol, fields.per_image_steps)
        solver.check_adaptive()
    return solver
