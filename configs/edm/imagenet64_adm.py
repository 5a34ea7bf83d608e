r"""ImageNet at 64 pixels, class-conditional, ADM with the preconditioning of EDM.

Karras et al. 2022: FID 1.36 with 511 evaluations and churn: --config.sampling.steps=255
--config.sampling.churn=40 --config.sampling.churn_min=0.05 --config.sampling.churn_max=50
--config.sampling.noise_scale=1.003.

python main.py --mode=train --workdir=runs/edm_imagenet64_adm --config=configs/edm/imagenet64_adm.py
"""

from ml_collections import ConfigDict

from configs import base as defaults
from configs.edm import base


def get_config() -> ConfigDict:
    """The whole experiment."""
    config = defaults.get_config()
    config.model = defaults.adm()
    return base.imagenet64(config)
