r"""CelebA-HQ at 256 pixels, LSGM at its published size: codes of 8 groups of 20 channels.

The first stage: the autoencoder, with codes N(0, I).

python main.py --mode=train --workdir=runs/lsgm_celebahq_256_autoencoder \
    --config=configs/lsgm/celebahq_256_autoencoder.py

The second is configs/lsgm/celebahq_256.py.
It was not trained here; configs/lsgm/base.py says what differs.
"""

from configs.lsgm import base


def get_config():
    """The first stage."""
    return base.autoencoder(base.celebahq_256(), 27_000, 64, 200, spectral=3e-2)
