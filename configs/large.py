"""LSUN, CelebA-HQ and FFHQ at 128 to 1024 pixels: the base of the experiments on them.

docs/data.md says how to get the images; give an archive or a folder of them:
--config.data.source=zip:PATH. LSUN is in TFDS too. The published files name TFRecords on their
author's disks.
"""

from ml_collections import ConfigDict

from configs import base

CELEBAHQ = 'folder:data/celebahq'
FFHQ = 'folder:data/ffhq'


def get_config(source: str) -> ConfigDict:
    """256 pixels; all but the network and the SDE."""
    config = base.get_config()
    config.data.source = source
    config.data.image_size = (256, 256)
    config.training.batch_size = 64
    config.training.num_steps = 2_400_000
    config.training.checkpoint_every = 5000
    config.sampling.snr = 0.075
    return config


def ncsnpp_256(source: str) -> ConfigDict:
    """NCSN++: the image enters at every level, and is the sum of all levels' outputs."""
    config = get_config(source)
    config.model.ch_mult = (1, 1, 2, 2, 2, 2, 2)
    config.model.num_res_blocks = 2
    config.model.dropout = 0.0
    config.model.fir = True
    config.model.progressive = 'output_skip'
    config.model.progressive_input = 'input_skip'
    config.sampling.steps = 2000
    return config


def ncsnpp_1024(source: str) -> ConfigDict:
    """NCSN++ in slim for 1024 pixels: one block a level, in batches of eight."""
    config = ncsnpp_256(source)
    config.data.image_size = (1024, 1024)
    config.model.nf = 16
    config.model.ch_mult = (1, 2, 4, 8, 16, 32, 32, 32)
    config.model.num_res_blocks = 1
    config.sampling.snr = 0.15
    for section in (config.training, config.sampling, config.eval):
        section.batch_size = 8
    config.training.num_samples = 8
    config.sampling.num_samples = 8
    return config


def ddpm_256(source: str) -> ConfigDict:
    """DDPM with six levels."""
    config = get_config(source)
    config.model = ConfigDict(base.ddpm())
    config.model.ch_mult = (1, 1, 2, 2, 4, 4)
    config.model.dropout = 0.0
    config.optim.lr = 2e-5
    return config
