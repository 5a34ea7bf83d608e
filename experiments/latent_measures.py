"""What `eval` finds out about a latent score model: the evidence bound of test images by the ODE of
their codes and by sampling, how far apart these are, samples and their quality, and pictures for
the report."""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable
from typing import NamedTuple

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
from experiments import image_drawing, latent_exhibits, run_files, score_measures
from experiments.experiment import Batch, Drawing, Program
from experiments.latent_model import AUTOENCODER, PRIOR, LatentModel
from experiments.reading import check_time
from experiments.score_measures import Load
from models import spectral
from parameterization import Process
from shapes import ImageKeys, PerImage, State
from solvers.ode import ODESolver
from storage import resumable
from storage.resumable import Arrays
from training import Params


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
    if config.eval.exhibits:
        draw, write = functools.partial(latent_exhibits.create, model), latent_exhibits.write
        measures.append(
            score_measures.exhibits_measure(config, model.codes, draw, write, load_compared, mesh)
        )
    penalised = [part for part in (AUTOENCODER, PRIOR) if config.training[f'spectral_{part}']]
    return [*measures, spectral_measure(penalised)] if penalised else measures


def drawing(config: ConfigDict, model: LatentModel, method: str) -> Drawing:
    """Codes by a method, decoded."""
    return image_drawing.create_drawing(config, model.codes, method, model.draw)


def evidence_measure(
    config: ConfigDict, model: LatentModel, test_images: Images, mesh: Mesh
) -> Measure:
    """The negative evidence bound of the first images of the test split by the ODE, and of all of
    it by sampling if that is asked for.
    """
    fields = config.eval
    remedy = f'raise eval.rtol ({fields.rtol:g}) or eval.atol ({fields.atol:g})'
    num = min(fields.num_bpd_images or len(test_images), len(test_images))
    by_ode = OverData(
        name='evidence',
        function=evidence_program(config, model, mesh).run,
        data=dataclasses.replace(test_images, length=num),
        batch_size=fields.batch_size,
        seed=config.seed,
        mesh=mesh,
        depends_on=(
            create_solver(fields),
            [fields[name] for name in ('t_min', 'divergence', 'num_probes', 'precision')],
        ),
    )
    by_sampling = OverData(
        name='sampled_evidence',
        function=sampled_program(config, model, mesh).run,
        data=test_images,
        batch_size=fields.batch_size,
        seed=config.seed,
        mesh=mesh,
        depends_on=[fields[name] for name in ('t_min', 'cross_entropy_draws', 'precision')],
    )

    def measure(checkpoint: Checkpoint) -> Found:
        arrays = by_ode(checkpoint)
        problem = left_out.line('evidence', arrays, remedy, checkpoint.params)
        path = checkpoint.directory / 'bits_per_dim.npz'
        if problem:
            processes.on_first(path.unlink, True)  # That of another evaluation, if any.
            return Found([left_out.quantity(arrays, of='evidence')], problems=[problem])
        dim = math.prod(model.image_shape)
        sampled = by_sampling(checkpoint) if fields.cross_entropy_draws else None
        of_images = {'bits_per_dim': negative_evidence(arrays) / (dim * math.log(2)), **arrays}
        if sampled:
            of_images |= {'by_sampling': sampled['cross_entropy'][:num]}
        processes.on_first(resumable.save, path, of_images)
        return Found(summary(arrays, sampled, dim))

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


def summary(by_ode: Arrays, sampled: Arrays | None, dim: int) -> list[Quantity]:
    """What is reported of the arrays of `evidence_program` and `sampled_program`: means over
    images, with their standard errors, of the bound in nats and of its terms.

    The gap is the cross-entropy by sampling less that by the ODE, image by image, of those that
    have both: the first of the sampled ones.
    """
    cross_entropy, bound = -by_ode['log_prob'], negative_evidence(by_ode)
    quantities = [
        mean('nats', bound, better=LOWER),
        mean('nats_reconstruction', by_ode['reconstruction'], better=LOWER),
        mean('nats_codes_negative_entropy', by_ode['log_q']),
        mean('nats_codes_cross_entropy', cross_entropy, better=LOWER),
        mean('bits_per_dim', bound / (dim * math.log(2)), better=LOWER),
        Quantity('bits_per_dim_images', len(bound)),
        Quantity('bits_per_dim_nfe', float(by_ode['nfe'].mean()), better=LOWER),
    ]
    if 'finer' in by_ode:
        quantities.append(mean('nats_finer_latents', by_ode['finer']))
    if sampled:
        gap = sampled['cross_entropy'][: len(bound)] - cross_entropy
        in_all = negative_evidence({**sampled, 'log_prob': -sampled['cross_entropy']})
        quantities += [
            mean('nats_codes_cross_entropy_gap', gap),
            mean('nats_by_sampling', in_all, better=LOWER),
            Quantity('nats_by_sampling_images', len(in_all)),
        ]
    return quantities


def negative_evidence(found: Arrays) -> np.ndarray:
    """The bound on -log p(x) of each image, in nats."""
    return found['reconstruction'] + found['log_q'] - found['log_prob'] + found.get('finer', 0)


def evidence_program(config: ConfigDict, model: LatentModel, mesh: Mesh) -> Program:
    """The terms of the evidence bound of each image of a batch: `reconstruction`, -log p(x | z),
    `log_q` and `log_prob` of one code, the last by the ODE; and of latents of finer sizes, if there
    are any, `finer`: log q - log N(0, I).
    """
    fields, solver = config.eval, create_solver(config.eval)
    code_of = _code_of(config, model)

    def of_batch(params, _, batch):
        code, terms = code_of(params, batch)
        found = likelihood.log_prob(
            code.keys_probes,
            code.process,
            code.values,
            solver=solver,
            t_min=fields.t_min,
            divergence=fields.divergence,
            num_probes=fields.num_probes,
        )
        arrays = {**terms, 'log_prob': found.log_prob, 'nfe': found.nfe}
        return {**arrays, **left_out.arrays(found.ending, *arrays.values())}

    return _program('evidence', config, model, mesh, of_batch)


def sampled_program(config: ConfigDict, model: LatentModel, mesh: Mesh) -> Program:
    """The terms of the evidence bound of each image of a batch without an ODE: those of
    `evidence_program` but `log_prob`, of the same code, and its `cross_entropy` by sampling.
    """
    fields, code_of = config.eval, _code_of(config, model)

    def of_batch(params, _, batch):
        code, terms = code_of(params, batch)
        draws = {'num_draws': fields.cross_entropy_draws, 't_min': fields.t_min}
        found = bounds.cross_entropy(code.keys_times, code.process, code.values, **draws)
        return {**terms, 'cross_entropy': found.bound}

    return _program('sampled evidence', config, model, mesh, of_batch)


class _Code(NamedTuple):
    """One code of each image of a batch, the process that they are likely by, and the keys of what
    else is drawn.
    """

    values: State
    process: Process
    keys_probes: ImageKeys
    keys_times: ImageKeys


def _code_of(
    config: ConfigDict, model: LatentModel
) -> Callable[[Params, Batch], tuple[_Code, dict[str, PerImage]]]:
    """Codes of a batch, and the terms of the bound that need no prior."""
    fields, key = config.eval, jax.random.key(config.seed)
    check_time('eval.t_min', fields.t_min, model.codes.sde)
    precise = dataclasses.replace(model, codes=model.codes.with_precision(fields.precision))

    def code_of(params, batch):
        # What is drawn for an image depends on its index alone.
        image_keys = keys.of_images(key, batch['index'])
        keys_pixels, keys_codes, *others = keys.split(image_keys, 4)
        pixels = precise.of_each(keys_pixels, batch['image'])
        noises = precise.noises_of_each(keys_codes)
        (codes, *finer), features = precise.through(params, pixels, noises)
        terms = {
            'reconstruction': -precise.distribution.log_prob(features, pixels),
            'log_q': codes.log_q.sum(axis=1),
        }
        if finer:
            terms['finer'] = sum(of_size.divergence().sum(axis=1) for of_size in finer)
        return _Code(codes.z, precise.process(params), *others), terms

    return code_of


def _program(
    title: str, config: ConfigDict, model: LatentModel, mesh: Mesh, of_batch: Callable
) -> Program:
    size = config.eval.batch_size
    index = jax.ShapeDtypeStruct((size,), np.int32)
    shapes = model.format.batch_shapes(size) | {'index': index}
    return Program(title, sharding.jit(mesh, of_batch), shapes)


def create_solver(fields: ConfigDict) -> ODESolver:
    """The solver of config.eval; InputError if it does not adapt its steps."""
    with fields_of('eval'):
        solver = ODESolver(fields.solver, fields.rtol, fields.atol, fields.per_image_steps)
        solver.check_adaptive()
    return solver
