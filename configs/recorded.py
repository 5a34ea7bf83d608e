"""The config of a run, as its workdir has recorded it."""

import pathlib

from ml_collections import ConfigDict

from choices import InputError
from configs import base
from storage import workdirs


def read(path: pathlib.Path) -> ConfigDict:
    """The config in a `config.json`, of this version or of an older one, whose fields take values
    of their declared types, as those of a config file do.

    Raises InputError if the file cannot be read, or holds no config.
    """
    values = workdirs.read_json(path)
    try:
        return base.recorded(values)
    except InputError as error:
        raise InputError(f'{path}: {error}') from error
    except (AttributeError, TypeError) as error:
        raise InputError(f'{path} is damaged, and no config: {error}') from error
