"""CIFAR-10, noise-conditional classifier (WRN-28-10), VE SDE: for class-conditional sampling.

Network, noise levels and normalisation are those of Song et al. 2021 (appendix I.1), so that the
published classifier can be imported; the run, of 200 epochs, is none that was published.

python main.py --mode=train --workdir=runs/ve_cifar10_classifier \\
    --config=configs/ve/cifar10_classifier.py
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """The whole experiment."""
    config = base.classifier()
    config.data.centered = False
    config.sde.name = 've'
    config.sde.sigma_min = 0.01
    config.sde.sigma_max = 50.0
    config.model.channel_mean = (0.49139968, 0.48215841, 0.44653091)
    config.model.channel_std = (0.24703223, 0.24348513, 0.26158784)
    config.training.num_steps = 80_000
    config.training.time_sampler = 'stratified'
    config.optim.lr = 1e-3
    config.optim.warmup = 1000
    config.optim.cosine_decay = True
    config.optim.weight_decay = 5e-4
    config.optim.ema_rate = 0.999
    return config
