"""The digits of tiny_config.py with a network that is given their labels."""

from tests import tiny_config


def get_config():
    """Some labels are dropped, for guidance without a classifier."""
    config = tiny_config.get_config()
    config.model.num_classes = 10
    config.training.label_dropout = 0.2
    return config
