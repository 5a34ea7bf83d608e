"""Trains, evaluates and samples; imports and exports published checkpoints; estimates costs, and
compiles ahead of time.

python main.py --config=configs/vp/mnist_ddpmpp.py --workdir=runs/vp --mode=train

A workdir knows its config: without --config it is read from there.
"""

import signal
import sys
from collections.abc import Callable
from typing import NamedTuple, NoReturn

if __name__ == '__main__':
    # The imports take seconds, in which Ctrl-C is to end the program without a traceback. In the
    # background of a script its shell has SIGINT ignored, since Ctrl-C is for the script.
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

import command_line
import run_lib
from analysis import compile_ahead
from choices import InputError, RunError
from configs import paths
from devices import preemption, processes, program_cache
from experiments import validation
from storage import files


class Mode(NamedTuple):
    """What a mode runs: `run(config, *flags)`, with the paths that it needs and the flags that it
    takes, in this order; what is there if a signal ends it."""

    run: Callable[..., None]
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    kept: str = 'ended before its time'


GOES_ON = 'and the same command goes on from it'
MODES = {
    'train': Mode(run_lib.train, needs=('workdir',), kept=f'what is saved is kept, {GOES_ON}'),
    'eval': Mode(run_lib.evaluate, needs=('workdir',), kept=f'what is measured is kept, {GOES_ON}'),
    'sample': Mode(
        run_lib.sample,
        needs=('workdir',),
        takes=('seeds',),
        kept=f'what is drawn is kept, {GOES_ON}',
    ),
    'import': Mode(run_lib.import_checkpoint, needs=('workdir', 'checkpoint')),
    'export': Mode(run_lib.export_checkpoint, needs=('workdir', 'checkpoint')),
    'cost': Mode(run_lib.estimate_cost, takes=('devices',)),
    'compile': Mode(compile_ahead.compile_ahead, takes=('topology',)),
}
# What is said of a mode that lacks a flag, and of one that has no use for it.
WITHOUT = {'workdir': 'needs a directory', 'checkpoint': 'needs a file'}
NEEDLESS = {
    'checkpoint': 'takes no file',
    'seeds': 'draws no images by seed',
    'devices': 'uses those that there are',
    'topology': 'uses the devices that there are',
}


CONFIG = command_line.define_config()
MODE = flags.DEFINE_enum('mode', 'train', MODES, 'What to do.')
TASK = flags.DEFINE_string(
    'task', None, 'What --mode=sample conditions on: class, inpaint, ...; sets config.task.name.'
)
OF_MODES = {
    'workdir': flags.DEFINE_string('workdir', None, 'Where the run keeps its files.'),
    'checkpoint': flags.DEFINE_string(
        'checkpoint',
        None,
        'The published file that --mode=import reads, or that --mode=export writes.',
    ),
    'seeds': flags.DEFINE_string(
        'seeds',
        None,
        'Which images --mode=sample draws to files of their own, as 0-49999; else, one sheet.',
    ),
    'devices': flags.DEFINE_integer(
        'devices', None, 'How many --mode=cost reckons with; default: as many as there are.', 1
    ),
    'topology': flags.DEFINE_string(
        'topology', None, 'The TPU pod that --mode=compile compiles for, such as v5e:16x16.'
    ),
}
COORDINATOR = flags.DEFINE_string(
    'coordinator', None, 'HOST:PORT of the first of several processes, where all of them meet.'
)
NUM_PROCESSES = flags.DEFINE_integer('num_processes', None, 'How many processes there are.')
PROCESS_ID = flags.DEFINE_integer('process_id', None, 'Which of them this is, from 0 on.')


def parse(argv: list[str]) -> list[str]:
    """Reads the flags; what cannot be read ends the program in one line."""
    try:
        argv = command_line.with_config(argv)
        sys.argv[:] = argv  # Where ml_collections looks for the order of flags.
        rest = flags.FLAGS(argv)
    except (AttributeError, KeyError) as error:
        # From ml_collections, with the name of a field and a guess; within a section the one error
        # holds the other, and of a section that does not exist there is the other alone.
        lookup = error.args[0] if isinstance(error, AttributeError) else error
        name, *guess = str(lookup.args[0]).splitlines()
        flag = next((flag for flag in argv if name.strip("'") in flag), '--config')
        refuse(f'{flag}: there is no field {name}. {" ".join(guess)}')
    except InputError as error:
        refuse(error)
    except (flags.Error, IndexError, TypeError, ValueError) as error:
        is_of_config = command_line.names_config(argv) or not command_line.is_of_field(error)
        refuse(error if is_of_config else command_line.WITHOUT_CONFIG)
    if CONFIG.value is None:
        refuse(command_line.WITHOUT_CONFIG)
    if not isinstance(CONFIG.value, ConfigDict):
        path = config_path()
        refuse(f'--config: cannot load {path}{paths.hint(path)}')
    return rest


def main(argv: list[str]) -> None:
    """Runs one mode."""
    # What orbax logs as an error is raised as well, and told in one line.
    logging.set_verbosity(logging.FATAL)
    if len(argv) > 1:
        refuse(f'unexpected argument {argv[1]!r}; flags are written --name=value')
    config, mode = CONFIG.value, MODES[MODE.value]
    given = arguments(mode)
    if TASK.value is not None:
        if MODE.value != 'sample' or 'task' not in config:
            refuse(f'--task: {TASK.value} is for --mode=sample of a score model')
        config.task.name = TASK.value
    with processes.failing_together(), preemption.ending_at_once(mode.kept):
        try:
            validation.read_none(config, overridden())
            validation.check(config, overridden(), command_line.is_recorded(config_path()))
            joined = processes.join(
                *(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value),
                stop_together=mode.run is run_lib.train,
            )
            run_lib.use_cores(config, joined)
            program_cache.keep_programs()
            with processes.talking():
                mode.run(config, *given)
        except (InputError, RunError) as error:
            refuse(error)
        except OSError as error:
            if error.errno not in files.DISK_FAULTS:
                raise
            refuse(f'{error.filename or "a file"}: {files.reason(error)}')


def arguments(mode: Mode) -> list[object]:
    """The flags of a mode; ends the program if one is missing, or of no use."""
    for name, flag in OF_MODES.items():
        if flag.value is None and name in mode.needs:
            refuse(f'--{name}: --mode={MODE.value} {WITHOUT[name]}')
        if flag.value is not None and name in NEEDLESS and name not in mode.needs + mode.takes:
            refuse(f'--{name}: --mode={MODE.value} {NEEDLESS[name]}')
    try:
        paths = [files.user_path(OF_MODES[name].value, f'--{name}') for name in mode.needs]
    except InputError as error:
        refuse(error)
    return [*paths, *(OF_MODES[name].value for name in mode.takes)]


def config_path() -> str:
    """What --config is."""
    return config_flags.get_config_filename(flags.FLAGS['config'])


def overridden() -> set[str]:
    """The dotted names of the fields that flags set."""
    fields = config_flags.get_override_values(flags.FLAGS['config'])
    return {*fields, 'task.name'} if TASK.value else set(fields)


def refuse(reason: object) -> NoReturn:
    """Ends the program with one line on stderr."""
    sys.exit('error: ' + ' '.join(str(reason).split()))


if __name__ == '__main__':
    app.run(main, flags_parser=parse)
