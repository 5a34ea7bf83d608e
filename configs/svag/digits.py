r"""Digits of 8x8 pixels, a scale-invariant classifier by SVAG: half a minute on two cores.

python main.py --mode=train --workdir=runs/svag --config=configs/svag/digits.py
python main.py --mode=eval  --workdir=runs/svag

SGD of the same noise has 16 times fewer updates, each of half as many examples:

python main.py --mode=train --workdir=runs/sgd --config=configs/svag/digits.py \
    --config.optim.name=sgd --config.training.batch_size=16 --config.training.num_steps=800
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """800 steps of SGD, of batches of 16, in 16 updates each."""
    config = base.classifier()
    config.data.source = 'digits'
    config.data.image_size = (8, 8)
    config.data.channels = 1
    config.data.test_fraction = 0.43
    config.data.random_flip = False

    config.model = base.normalised_mlp()
    config.training.noise = False

    config.training.replacement = True
    config.training.batch_size = 32
    config.training.num_steps = 12_800
    config.training.steps_per_dispatch = 50
    config.training.log_every = 50
    config.training.eval_every = 200
    config.training.checkpoint_every = 400

    config.optim.name = 'svag'
    config.optim.substeps = 16
    config.optim.lr = 0.8
    config.optim.warmup = 0
    config.optim.weight_decay = 5e-3
    config.optim.grad_clip = 0.0
    # What is tested are the parameters themselves.
    config.optim.ema_rate = 0.0

    config.eval.gradient_noise = 800
    return config
