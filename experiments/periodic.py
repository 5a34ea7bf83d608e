"""What happens between two dispatches of a training: tests, pictures, checkpoints."""

import dataclasses
import pathlib
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from datasets import batching
from datasets.stored import Examples
from devices import processes, sharding
from evaluation import left_out
from experiments import programs
from experiments.experiment import Drawing, Experiment
from reports import pictures
from reports.logs import ProgressLog
from storage.checkpoints import Checkpoints
from training import Params, TrainState


@dataclasses.dataclass(frozen=True)
class Periodic:
    """What happens between two dispatches, each as often as `fields`, config.training, say: the
    loss of the first test examples, a picture of samples, a checkpoint with that loss.
    """

    fields: ConfigDict
    key: jax.Array
    mesh: Mesh
    test_loss: Callable
    test_batch: dict[str, jax.Array]
    drawing: Drawing | None
    draw: Callable | None
    directory: pathlib.Path  # of pictures

    @classmethod
    def create(
        cls,
        config: ConfigDict,
        experiment: Experiment,
        mesh: Mesh,
        test_data: Examples,
        directory: pathlib.Path,
    ) -> 'Periodic':
        """Compiles nothing yet; InputError if images cannot be drawn as the config says."""
        fields, drawing = config.training, experiment.drawing()
        return cls(
            fields,
            jax.random.key(config.seed),
            mesh,
            programs.mean_loss(experiment, mesh),
            first_batch(test_data, fields.batch_size, mesh),
            drawing,
            drawing and programs.drawing(drawing, mesh, fields.num_samples),
            directory,
        )

    def __call__(
        self, step: int, state: TrainState, progress: ProgressLog, checkpoints: Checkpoints
    ) -> None:
        """Does what is due after `step`."""
        is_tested, is_saved = self._is_due(step, 'eval_every', 'checkpoint_every')
        if is_tested or is_saved:
            tested = self.test_loss(state.evaluated, self.key, self.test_batch)
        if is_tested:
            progress.add_test_loss(step, tested)
        if self.drawing and all(self._is_due(step, 'sample_every')):
            self._save_picture(step, state.evaluated)
        if is_saved:
            checkpoints.save(state, float(tested))

    def _is_due(self, step: int, *periods: str) -> list[bool]:
        """Whether something with each of these periods (0: never) happens; the last step counts."""
        ends = step == self.fields.num_steps
        return [self.fields[p] > 0 and (step % self.fields[p] == 0 or ends) for p in periods]

    def _save_picture(self, step: int, params: Params) -> None:
        num = self.fields.num_samples
        indices = sharding.put(np.arange(num), sharding.if_divided(self.mesh, num))
        drawn = processes.gather(self.draw(params, self.key, indices, self.drawing.given))
        index = np.flatnonzero(left_out.kept(drawn))
        name = f'step {step}, {self.drawing.name}'
        problem = left_out.line(name, drawn, self.drawing.remedy, params)
        if problem:
            print(problem, flush=True)
        if len(index):
            sheet = self.drawing.show(drawn['pixels'][index], index).sheet
            processes.on_first(pictures.save_png, self.directory / f'{step:07d}.png', sheet)


def first_batch(data: Examples, size: int, mesh: Mesh) -> dict[str, jax.Array]:
    """The first examples of a split on the devices, repeated if there are too few."""
    rows = batching.own_rows(size, *processes.place())
    return sharding.split(mesh, data.gather(rows % len(data)))
