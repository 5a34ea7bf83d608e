"""Trains, evaluates and samples; imports and exports published checkpoints; estimates costs, and
compiles ahead of time.

python main.py --config=configs/vp/mnist_ddpmpp.py --workdir=runs/vp --mode=train
"""

import pathlib
import sys
from typing import NoReturn

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

import run_lib
from analysis import compile_ahead
from applications.conditional import run as conditional_run
from choices import InputError, RunError
from devices import processes, program_cache
from evaluation import run as evaluation_run
from experiments import validation

MODES = {
    'train': run_lib.train,
    'eval': evaluation_run.evaluate,
    'sample': conditional_run.sample,
}
FILE_MODES = {'import': run_lib.import_checkpoint, 'export': run_lib.export_checkpoint}

COST, COMPILE = 'cost', 'compile'

CONFIG = config_flags.DEFINE_config_file('config', None, 'What to run; --config.a.b=VALUE sets b.')
WORKDIR = flags.DEFINE_string('workdir', None, 'Where the run keeps its files.')
MODE = flags.DEFINE_enum('mode', 'train', [*MODES, *FILE_MODES, COST, COMPILE], 'What to do.')
CHECKPOINT = flags.DEFINE_string(
    'checkpoint', None, 'The published file that --mode=import reads, or that --mode=export writes.'
)
TASK = flags.DEFINE_string(
    'task', None, 'What --mode=sample conditions on: class, inpaint, ...; sets config.task.name.'
)
DEVICES = flags.DEFINE_integer(
    'devices', None, 'How many --mode=cost reckons with; default: as many as there are.', 1
)
TOPOLOGY = flags.DEFINE_string(
    'topology', None, 'The TPU pod that --mode=compile compiles for, such as v5e:16x16.'
)
COORDINATOR = flags.DEFINE_string(
    'coordinator', None, 'HOST:PORT of the first of several processes, where all of them meet.'
)
NUM_PROCESSES = flags.DEFINE_integer('num_processes', None, 'How many processes there are.')
PROCESS_ID = flags.DEFINE_integer('process_id', None, 'Which of them this is, from 0 on.')
flags.mark_flags_as_required(['config'])


def parse(argv: list[str]) -> list[str]:
    """Reads the flags; what cannot be read ends the program in one line."""
    try:
        rest = flags.FLAGS(argv)
    except AttributeError as error:  # From ml_collections, with the name of a field and a guess.
        name, *guess = str(error.args[0].args[0]).splitlines()
        flag = next((flag for flag in argv if name.strip("'") in flag), '--config')
        refuse(f'{flag}: there is no field {name}. {" ".join(guess)}')
    except (flags.Error, TypeError, ValueError) as error:
        refuse(error)
    if not isinstance(CONFIG.value, ConfigDict):
        refuse(f'--config: cannot load {config_flags.get_config_filename(flags.FLAGS["config"])}')
    return rest


def main(argv: list[str]) -> None:
    """Runs one mode."""
    # What orbax logs as an error is raised as well, and told in one line.
    logging.set_verbosity(logging.FATAL)
    if len(argv) > 1:
        refuse(f'unexpected argument {argv[1]!r}; flags are written --name=value')
    if WORKDIR.value is None and MODE.value not in (COST, COMPILE):
        refuse(f'--workdir: --mode={MODE.value} needs a directory')
    if DEVICES.value is not None and MODE.value != COST:
        refuse(f'--devices: --mode={MODE.value} uses those that there are')
    if TOPOLOGY.value is not None and MODE.value != COMPILE:
        refuse(f'--topology: --mode={MODE.value} uses the devices that there are')
    if (CHECKPOINT.value is None) == (MODE.value in FILE_MODES):
        has = 'needs a' if MODE.value in FILE_MODES else 'takes no'
        refuse(f'--checkpoint: --mode={MODE.value} {has} file')
    if TASK.value is not None:
        if MODE.value != 'sample' or 'task' not in CONFIG.value:
            refuse(f'--task: {TASK.value} is for --mode=sample of a score model')
        CONFIG.value.task.name = TASK.value
    with processes.failing_together():
        try:
            validation.check(CONFIG.value)
            joined = processes.join(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value)
            run_lib.use_cores(CONFIG.value, joined)
            program_cache.keep_programs()
            with processes.talking():
                run()
        except (InputError, RunError) as error:
            refuse(error)


def run() -> None:
    """Runs the mode that the flags name."""
    if MODE.value == COST:
        run_lib.estimate_cost(CONFIG.value, DEVICES.value)
    elif MODE.value == COMPILE:
        compile_ahead.compile_ahead(CONFIG.value, TOPOLOGY.value)
    elif MODE.value in FILE_MODES:
        files = pathlib.Path(WORKDIR.value), pathlib.Path(CHECKPOINT.value)
        FILE_MODES[MODE.value](CONFIG.value, *files)
    else:
        MODES[MODE.value](CONFIG.value, pathlib.Path(WORKDIR.value))


def refuse(reason: object) -> NoReturn:
    """Ends the program with one line on stderr."""
    sys.exit('error: ' + ' '.join(str(reason).split()))


if __name__ == '__main__':
    app.run(main, flags_parser=parse)
