"""What `eval` finds out about a score model: bits per dimension, samples and their quality, and
pictures for the report."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from choices import InputError, choose, fields_of
from datasets import identity
from datasets.loading import Images
from devices import compiling, processes, sharding
from evaluation import bits_per_dim, extractors, left_out, quality
from evaluation.batchwise import BATCHES, Checkpoint, Found, Measure, OverData
from evaluation.bits_per_dim import BitsPerDim, Estimator
from evaluation.extractors import Network
from evaluation.quality import Quality
from evaluation.quantities import HIGHER, LOWER, Quantity
from experiments import exhibits, image_drawing, programs, run_files, trained
from experiments.experiment import Drawing, Program
from experiments.reading import check_time
from experiments.score_model import ScoreModel
from reports import pictures
from shapes import HostPixels, ImageShape
from solvers.ode import ODESolver
from storage import files, resumable

Load = Callable[[str], Images]


def create(
    config: ConfigDict, model: ScoreModel, load: Load, workdir: pathlib.Path, mesh: Mesh
) -> list[Measure]:
    """What config.eval asks for; InputError if that does not go together."""
    fields, measures = config.eval, []

    def load_compared(split):
        return run_files.compared(workdir, split, load(split))

    if fields.bpd:
        measures.append(bits_per_dim_measure(config, model, load_compared('test'), mesh))
    drawings = [image_drawing.create_drawing(config, model, method) for method in fields.samplers]
    measures += sample_measures(config, drawings, model.image_shape, load_compared, workdir, mesh)
    if fields.exhibits:
        draw = functools.partial(exhibits.create, model)
        measures.append(exhibits_measure(config, model, draw, exhibits.write, load_compared, mesh))
    return measures


# Likelihood


def bits_per_dim_measure(
    config: ConfigDict, model: ScoreModel, test_images: Images, mesh: Mesh
) -> Measure:
    """Bits per dimension of the first images of the test split."""
    estimator = create_estimator(config, model)
    fields = config.eval
    remedy = f'raise eval.rtol ({fields.rtol:g}) or eval.atol ({fields.atol:g})'
    num = min(config.eval.num_bpd_images or len(test_images), len(test_images))
    over_test_images = OverData(
        name='bits_per_dim',
        function=bits_per_dim_program(config, model, mesh).run,
        data=dataclasses.replace(test_images, length=num),
        batch_size=config.eval.batch_size,
        seed=config.seed,
        mesh=mesh,
        depends_on=(estimator, config.eval.precision),
    )

    def measure(checkpoint: Checkpoint) -> Found:
        arrays = over_test_images(checkpoint)
        problem = left_out.line('bits_per_dim', arrays, remedy, checkpoint.params)
        index = np.flatnonzero(left_out.kept(arrays))
        kept = {name: array[index] for name, array in arrays.items()}
        means = kept['by_draw'].mean(axis=(1, 2))
        path = checkpoint.directory / 'bits_per_dim.npz'
        of_images = {'bits_per_dim': means, 'index': index, **kept}
        if len(index):
            processes.on_first(resumable.save, path, of_images)
        else:
            processes.on_first(path.unlink, True)  # That of another evaluation, if any.
        if problem:
            return Found([left_out.quantity(arrays, of='bits_per_dim')], problems=[problem])
        measured = {name: kept[name] for name in BitsPerDim._fields if name in kept}
        return Found(bits_per_dim.summary(BitsPerDim(**measured), estimator.divergence))

    return measure


def bits_per_dim_program(config: ConfigDict, model: ScoreModel, mesh: Mesh) -> Program:
    """Bits per dimension of a batch: arrays by name, those that are asked for."""
    estimator, key = create_estimator(config, model), jax.random.key(config.seed)
    model = model.with_precision(config.eval.precision)

    def of_batch(params, _, batch):
        process_of = functools.partial(model.process, params)
        # An image is the same in every batch: what is drawn for it depends on its index.
        found = estimator.of_batch(
            process_of, key, batch['index'], batch['image'], model.classes(batch)
        )
        arrays = {name: array for name, array in found._asdict().items() if array is not None}
        ending = arrays.pop('ending')
        return {**arrays, **left_out.arrays(ending, *arrays.values())}

    size = config.eval.batch_size
    index = jax.ShapeDtypeStruct((size,), np.int32)
    shapes = model.format.batch_shapes(size) | {'index': index}
    return Program('bits/dim', sharding.jit(mesh, of_batch), shapes)


def create_estimator(config: ConfigDict, model: ScoreModel) -> Estimator:
    """The estimator of config.eval; InputError for what does not go together."""
    fields = config.eval
    check_time('eval.t_min', fields.t_min, model.sde)
    if model.num_classes and not fields.per_image_steps:
        raise InputError(
            'eval.per_image_steps: False; a class-conditional network (model.num_classes) has a '
            'solve for each image, and so needs True'
        )
    names = (
        *('t_min', 'divergence', 'num_probes', 'num_dequantizations', 'importance_weighted'),
        *('variational_draws', 'round_trip'),
    )
    with fields_of('eval'):
        return Estimator(
            centered=model.format.centered,
            solver=ODESolver(fields.solver, fields.rtol, fields.atol, fields.per_image_steps),
            **{name: fields[name] for name in names},
        )


# Samples


def num_samples(config: ConfigDict) -> int:
    """How many images of each sampler are looked at."""
    return config.eval.num_samples or config.sampling.num_samples


def sample_measures(
    config: ConfigDict,
    drawings: Sequence[Drawing],
    image_shape: ImageShape,
    load: Load,
    workdir: pathlib.Path,
    mesh: Mesh,
) -> list[Measure]:
    """What config.eval asks for of samples by each of these ways to draw images."""
    sharding.check_divides(mesh, 'sampling.batch_size', config.sampling.batch_size)
    judge = None
    if config.eval.quality:
        judge = create_quality(config, image_shape, load, workdir, mesh)
    measures = [sampler_measure(config, drawing, judge, mesh) for drawing in drawings]
    if judge:
        measures.append(lambda _: Found(judge.floor(num_samples(config))))
    return measures


def sampler_measure(
    config: ConfigDict, drawing: Drawing, judge: Quality | None, mesh: Mesh
) -> Measure:
    """Samples by one method, their evaluations, their quality, and their rate once compiled."""
    method, num = drawing.name, num_samples(config)
    draws = programs.draws(drawing, mesh, num)

    def measure(checkpoint: Checkpoint) -> Found:
        # More samples are further batches of the same size, so that those that are there serve.
        kept = checkpoint.batches(method, mesh, draws.size, drawing.fingerprint, draws.seed)
        drawn = draws(checkpoint.params, kept)
        path = checkpoint.directory / f'samples_{method}.png'
        processes.on_first(save_picture, path, drawn.pixels[: config.sampling.num_samples])
        if drawn.problem:
            return Found([drawn.left_out], problems=[drawn.problem])
        nfe = float(drawn.nfe.mean(dtype=np.float64))
        found = [Quantity('nfe', nfe, better=LOWER, of=method)]
        if judge:
            found += judge.of_samples(method, drawn.pixels, checkpoint.directory / BATCHES)
        rate = num / drawn.seconds
        return Found(found, [Quantity('samples_per_second', rate, better=HIGHER, of=method)])

    return measure


def save_picture(path: pathlib.Path, pixels: HostPixels) -> None:
    """The first of these images on one sheet; of none there is no picture."""
    path.unlink(missing_ok=True)
    most = pictures.most(pixels.shape)
    if len(pixels) > most:
        print(f'{path}: the first {most:,} of {len(pixels):,} images', flush=True)
    if len(pixels):
        pictures.save_png(path, pictures.grid(pixels[:most]))


def create_quality(
    config: ConfigDict, image_shape: ImageShape, load: Load, workdir: pathlib.Path, mesh: Mesh
) -> Quality:
    """What compares samples with data, by the networks of config.eval.quality."""
    fields = config.eval
    cache_dir = workdir / 'features'
    if fields.cache_dir:
        cache_dir = files.user_path(fields.cache_dir, 'eval.cache_dir')
    processes.from_first(lambda: files.check_directory(cache_dir, 'eval.cache_dir'))
    elsewhere = {'channels': 'data.channels', 'source': 'data.source'}
    if not fields.num_samples:
        elsewhere['num_samples'] = 'sampling.num_samples'
    with fields_of('eval', **elsewhere):
        networks = [
            extractors.create(choose(NETWORKS, name, 'quality')(config, image_shape), mesh)
            for name in fields.quality
        ]
        return quality.create(
            networks,
            load,
            num_samples(config),
            reference=fields.reference,
            batch_size=fields.batch_size,
            max_features=fields.max_features,
            extrapolate=fields.extrapolate,
            cache_dir=cache_dir,
            mesh=mesh,
        )


def _classifier(config: ConfigDict, image_shape: ImageShape) -> Network:
    """This project's own classifier, trained on the data in question."""
    workdir = config.eval.classifier_workdir
    if workdir is None:
        raise InputError(
            'eval.classifier_workdir: None; a classifier is needed, trained on images of this kind '
            'with --mode=train, as configs/ve/mnist_classifier.py is'
        )
    path = files.user_path(workdir, 'eval.classifier_workdir')
    return trained.features('eval.classifier_workdir', path, image_shape)


def _inception(config: ConfigDict, image_shape: ImageShape) -> Network:
    return extractors.load_inception(config.eval.inception_weights, image_shape)


NETWORKS = {'classifier': _classifier, 'inception': _inception}


# Pictures


def exhibits_measure(
    config: ConfigDict, model: ScoreModel, create: Callable, write: Callable, load: Load, mesh: Mesh
) -> Measure:
    """Pictures for the report, and no numbers: what `create(solver, t_min)`, as that of
    exhibits.py, draws of the test images exhibits.ENDS, and `write` makes files of. `model` is what
    the ODE is of.
    """
    fields = config.sampling
    # By the ODE, whatever other samplers may do.
    check_time('sampling.t_min', fields.t_min, model.sde)
    test_images, train_images = load('test'), load('train')
    solver, remedy = (
        ODESolver('tsit5', fields.rtol, fields.atol),
        image_drawing.remedy(fields, 'ode'),
    )
    draw = compiling.told(
        'exhibits',
        sharding.jit(mesh, create(solver, fields.t_min), out_shardings=sharding.copied(mesh)),
    )

    def measure(checkpoint: Checkpoint) -> Found:
        data = processes.from_first(lambda: identity.fingerprint(test_images))
        processes.say('drawing the exhibits of the report ...')
        depends_on = solver, model.network.precision, fields.t_min, data
        kept = checkpoint.batches('exhibits', mesh, *depends_on)
        ends = test_images.gather(exhibits.ENDS % len(test_images))
        key = jax.random.key(config.seed)
        found = resumable.keep(kept, 0, lambda: jax.device_get(draw(checkpoint.params, key, ends)))
        problem = left_out.line('exhibits', found, remedy, checkpoint.params)
        processes.on_first(write, checkpoint.directory, found, train_images)
        return Found([], problems=[problem] if problem else [])

    return measure
