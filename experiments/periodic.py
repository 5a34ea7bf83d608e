"""What happens between two dispatches of a training: tests, pictures, checkpoints."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from datasets import batching
from datasets.stored import Examples
from devices import compiling, processes, sharding
from devices.preemption import StoppedError, StopRequest
from evaluation.batchwise import Draws
from experiments import programs
from experiments.experiment import Drawing, Experiment
from reports import pictures
from reports.logs import ProgressLog
from storage.checkpoints import Checkpoints
from training import Params, TrainState


@dataclasses.dataclass(frozen=True)
class Periodic:
    """What happens between two dispatches, each as often as `fields`, config.training, say: the
    loss of the first test examples, a checkpoint with that loss, a picture of samples.
    """

    fields: ConfigDict
    key: jax.Array
    test_loss: Callable
    test_batch: dict[str, jax.Array]
    drawing: Drawing | None
    draws: Draws | None
    workdir: pathlib.Path

    @classmethod
    def create(
        cls,
        config: ConfigDict,
        experiment: Experiment,
        mesh: Mesh,
        test_data: Examples,
        workdir: pathlib.Path,
    ) -> 'Periodic':
        """Compiles nothing yet; InputError if images cannot be drawn as the config says."""
        fields, drawing = config.training, experiment.drawing()
        return cls(
            fields,
            jax.random.key(config.seed),
            compiling.told('the test loss', programs.mean_loss(experiment, mesh)),
            first_batch(test_data, fields.batch_size, mesh),
            drawing,
            drawing and training_draws(config, drawing, mesh),
            workdir,
        )

    def __call__(
        self,
        step: int,
        state: TrainState,
        progress: ProgressLog,
        checkpoints: Checkpoints,
        stop: StopRequest,
    ) -> None:
        """Does what is due after `step`; of a picture no further batch is drawn after a signal."""
        is_tested, is_saved = self._is_due(step, 'eval_every', 'checkpoint_every')
        if is_tested or is_saved:
            tested = self.test_loss(state.evaluated, self.key, self.test_batch)
        if is_tested:
            progress.add_test_loss(step, tested)
        if is_saved:
            checkpoints.save(state, float(tested))
        if self._is_drawn(step):
            # Pictures take longest, and schedulers do not wait: all that is due is safe before.
            progress.read()
            if is_saved:
                checkpoints.wait()
            self._draw(step, state, stop, is_saved)

    def catch_up(self, step: int, state: TrainState, stop: StopRequest) -> None:
        """Draws the picture of `step`, which is saved, if a signal came before it was there."""
        path = self._path(step)
        if step and self._is_drawn(step) and not processes.from_first(path.exists):
            self._draw(step, state, stop, is_saved=True)

    def _is_drawn(self, step: int) -> bool:
        return self.drawing is not None and all(self._is_due(step, 'sample_every'))

    def _draw(self, step: int, state: TrainState, stop: StopRequest, is_saved: bool) -> None:
        saved = f'{self.workdir}: step {step} is saved, and the same command goes on from it'
        with (
            stop.while_saved(saved) if is_saved else contextlib.nullcontext(),
            contextlib.suppress(StoppedError),
        ):
            self._save_picture(step, state.evaluated, stop)

    def _is_due(self, step: int, *periods: str) -> list[bool]:
        """Whether something with each of these periods (0: never) happens; the last step counts."""
        ends = step == self.fields.num_steps
        return [self.fields[p] > 0 and (step % self.fields[p] == 0 or ends) for p in periods]

    def _save_picture(self, step: int, params: Params, stop: StopRequest) -> None:
        stop.check()  # Before a line says that something is drawn, and it is compiled.
        drawn = self.draws(params, before_batch=stop.check)
        if drawn.problem:
            processes.say(f'step {step}, {drawn.problem}')
        if len(drawn.index):
            sheet = self.drawing.show(drawn.pixels, drawn.index).sheet
            processes.on_first(pictures.save_png, self._path(step), sheet)

    def _path(self, step: int) -> pathlib.Path:
        return self.workdir / 'samples' / f'{step:07d}.png'


def training_draws(config: ConfigDict, drawing: Drawing, mesh: Mesh) -> Draws:
    """As many images as config.training says, by the seed of the run."""
    draws = programs.draws(drawing, mesh, config.training.num_samples)
    return dataclasses.replace(draws, seed=config.seed)


def first_batch(data: Examples, size: int, mesh: Mesh) -> dict[str, jax.Array]:
    """The first examples of a split on the devices, repeated if there are too few."""
    rows = batching.own_rows(size, *processes.place())
    return sharding.split(mesh, data.gather(rows % len(data)))
