"""Whether a classifier takes the images of an experiment: what `make demo` asks before it trains.

python -m configs.agree configs/vp/mnist_ddpmpp.py configs/ve/mnist_classifier.py
"""

import importlib.util
import pathlib
import sys

from ml_collections import ConfigDict

from choices import InputError
from configs import paths

FIELDS = ('data.image_size', 'data.channels')


def main(experiment: str, classifier: str) -> None:
    """Ends the program in one line if it does not."""
    try:
        check(experiment, classifier)
    except InputError as error:
        sys.exit(f'error: {error}')


def check(experiment: str, classifier: str) -> None:
    """Raises InputError unless the images of two config files have one shape."""
    of_experiment, of_classifier = load(experiment), load(classifier)
    for field in FIELDS:
        section, name = field.split('.')
        ours, theirs = of_experiment[section][name], of_classifier[section][name]
        if ours != theirs:
            raise InputError(
                f'{field}: {ours} in {experiment}, and {theirs} in {classifier}, the classifier '
                'that compares samples with data; make demo CLASSIFIER_CONFIG=FILE names another, '
                'and CLASSIFIER_CONFIG= none'
            )


def load(path: str) -> ConfigDict:
    """The config of a file; InputError if there is none."""
    if not pathlib.Path(path).is_file():
        raise InputError(f'CONFIG: cannot load {path}{paths.hint(path)}')
    spec = importlib.util.spec_from_file_location('given_config', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


if __name__ == '__main__':
    main(*sys.argv[1:])
