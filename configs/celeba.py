"""CelebA at 64 pixels: the base of the celeba experiments.

The middle 140 pixels of the aligned images of 178x218, brought to 64, as published. The archive of
the images needs no preparation: --config.data.source=zip:img_align_celeba.zip; docs/data.md.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """All but the network and the SDE."""
    config = base.get_config()
    config.data.source = 'celeb_a'
    config.data.crop_size = 140
    config.data.image_size = (64, 64)
    config.sampling.snr = 0.17
    return config
