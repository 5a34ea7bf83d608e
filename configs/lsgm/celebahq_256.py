r"""CelebA-HQ at 256 pixels, LSGM at its published size: codes of 8 groups of 20 channels.

The second stage, autoencoder and prior together, begins with the first one, which
configs/lsgm/celebahq_256_autoencoder.py is.

python main.py --mode=train --workdir=runs/lsgm_celebahq_256 --config=configs/lsgm/celebahq_256.py \
    --config.training.init_from=runs/lsgm_celebahq_256_autoencoder

Put the images into data/celebahq, or set --config.data.source=folder:PATH.
Vahdat et al. 2021: FID 7.22, at most 0.70 bits/dim of 5-bit images; here they have 8.
It was not trained here; configs/lsgm/base.py says what differs.
"""

from configs.lsgm import base


def get_config():
    """The second stage."""
    config = base.joint(
        base.celebahq_256(), 27_000, 64, 1000, lr=1e-4, is_partial=False, spectral=(1e-1, 1e-2)
    )
    config.training.prior_weighting = 'reweighted'
    config.training.shared_times = False
    config.sampling.rtol = config.sampling.atol = 1e-2
    return config
