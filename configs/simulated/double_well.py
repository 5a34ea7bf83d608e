"""Vectors in double wells, whose transitions are no Gaussians: half a minute on one core.

python main.py --mode=train --workdir=runs/wells --config=configs/simulated/double_well.py

docs/energies.md has what it comes to.
"""

from configs import base


def get_config():
    """Three clusters in the plane, which drift and noise bring into the wells."""
    config = base.simulated()
    config.model.width = 64
    config.training.batch_size = 256
    config.training.num_steps = 1000
    config.training.steps_per_dispatch = 100
    config.training.log_every = 200
    config.training.eval_every = 500
    config.training.checkpoint_every = 1000
    config.optim.lr = 2e-3
    config.optim.warmup = 100
    config.optim.cosine_decay = True
    config.optim.ema_rate = 0.999
    config.optim.ema_warmup = True
    config.sampling.num_samples = 2000
    config.sampling.steps = 1000
    config.eval.batch_size = 1000
    return config
