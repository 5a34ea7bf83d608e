"""The flag --config: a config file, or what a workdir has recorded; and fields that may be none."""

import re

from absl import flags
from ml_collections import ConfigDict, config_flags

from choices import InputError
from configs import recorded
from storage import files

# What is said of a command line that has neither a config nor a workdir.
WITHOUT_CONFIG = (
    '--config: none given; a config file needed, or the --workdir of a run, which has one'
)


def define_config() -> flags.FlagHolder:
    """The flags --config and --config.FIELD, of which numbers may be `none`."""
    config_flags.register_flag_parser_for_type(int, OrNone(flags.IntegerParser()))
    config_flags.register_flag_parser_for_type(float, OrNone(flags.FloatParser()))
    holder = config_flags.DEFINE_config_file(
        'config',
        None,
        'What to run, a config file or the config.json of a workdir; none: that of --workdir. '
        '--config.a.b=VALUE sets b.',
    )
    flags.FLAGS['config'].parser = ConfigParser(flags.FLAGS['config'].parser)
    return holder


class OrNone(flags.ArgumentParser):
    """A parser of numbers, or of `none`: whether a field may be that is checked with the others."""

    def __init__(self, of_number: flags.ArgumentParser):
        self._of_number = of_number

    def parse(self, argument: str | float | None) -> float | None:
        """The number, or None."""
        is_none = isinstance(argument, str) and argument.lower() == 'none'
        return None if is_none else self._of_number.parse(argument)

    def flag_type(self) -> str:
        """What help says of it."""
        return f'{self._of_number.flag_type()} or none'


class ConfigParser(flags.ArgumentParser):
    """What --config takes: a config file, or the config.json of a workdir."""

    def __init__(self, of_file: flags.ArgumentParser):
        self._of_file = of_file

    def parse(self, path: str) -> ConfigDict:
        """The config; raises flags.Error for a config.json that cannot be read."""
        if not is_recorded(path):
            return self._of_file.parse(path)
        try:
            config = recorded.read(files.user_path(path, '--config'))
        except InputError as error:
            raise flags.Error(f'--config: {error}') from error
        return config.lock()

    def flag_type(self) -> str:
        """What help says of it."""
        return self._of_file.flag_type()


def is_recorded(path: str) -> bool:
    """Whether a config is one that a workdir has recorded, and not a config file."""
    return path.endswith('.json')


def with_config(argv: list[str]) -> list[str]:
    """A command line whose config comes first, as ml_collections needs it before its fields; that
    of its workdir if it names a workdir and no config.

    Raises InputError for a workdir that has none.
    """
    first = flags.FlagValues()
    first.set_gnu_getopt()
    workdir = flags.DEFINE_string('workdir', None, 'As below.', flag_values=first)
    first(argv, known_only=True)
    if names_config(argv) or workdir.value is None:
        return [argv[0], *sorted(argv[1:], key=lambda flag: not flag.startswith('--config='))]
    path = files.user_path(workdir.value, '--workdir') / 'config.json'
    if not path.exists():
        raise InputError(f'--config: none given, and {workdir.value} has no config.json to take')
    return [argv[0], f'--config={path}', *argv[1:]]


def is_of_field(error: Exception) -> bool:
    """Whether a flag is not known because the config is not, of which it is a field."""
    return isinstance(error, flags.UnrecognizedFlagError) and error.flagname.startswith('config')


def names_config(argv: list[str]) -> bool:
    """Whether a command line has --config, and not only fields of it."""
    return any(re.match(r'--?config(=|$)', flag) for flag in argv)
