"""MNIST digits, classifier of images without noise, to be attacked and defended.

python main.py --mode=train --workdir=runs/clean --config=configs/ve/mnist_classifier_clean.py
"""

from ml_collections import ConfigDict

from configs.ve import mnist_classifier


def get_config() -> ConfigDict:
    """The noise-conditional classifier, with noise of less than a tenth of a bin of 8-bit values;
    a minute or two on two cores."""
    config = mnist_classifier.get_config()
    config.sde.sigma_min = 1e-4
    config.sde.sigma_max = 5e-4
    config.training.num_steps = 2400
    return config
