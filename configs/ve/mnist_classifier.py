"""MNIST digits, noise-conditional classifier, VE SDE: for class-conditional sampling.

python main.py --mode=train --workdir=runs/classifier --config=configs/ve/mnist_classifier.py
python main.py --mode=eval  --workdir=runs/classifier --config=configs/ve/mnist_classifier.py
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """A narrow network and a short run: a minute or two on two cores."""
    config = base.classifier()
    config.data.source = 'mnist5k'
    config.data.image_size = (28, 28)
    config.data.channels = 1
    config.data.random_flip = False
    config.sde.name = 've'
    config.sde.sigma_min = 0.01
    config.sde.sigma_max = 50.0

    config.model.blocks_per_group = 1
    config.model.channel_multiplier = 1
    # Few and noisy digits do not show what differs between neighbouring noise levels.
    config.model.fourier_scale = 0.1

    config.training.batch_size = 32
    config.training.num_steps = 1200
    config.training.time_sampler = 'stratified'
    config.training.steps_per_dispatch = 10
    config.training.log_every = 50
    config.training.eval_every = 100
    config.training.checkpoint_every = 300

    config.optim.lr = 3e-3
    config.optim.warmup = 50
    config.optim.cosine_decay = True
    config.optim.ema_rate = 0.99
    config.optim.ema_warmup = True
    config.eval.batch_size = 100
    return config
