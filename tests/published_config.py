"""The network of the recorded checkpoints: NCSN++ for VE (Song et al. 2021), narrow, at 16x16.

python main.py --mode=import --config=tests/published_config.py --workdir=runs/published \\
    --checkpoint=tests/data/published_flax_checkpoint_12
python main.py --mode=sample --config=tests/published_config.py --workdir=runs/published
"""

from configs import base


def get_config():
    """The published CIFAR-10 experiment (continuous, VE), but for the sizes and the data."""
    config = base.get_config()
    config.data.source = 'digits'
    config.data.image_size = (16, 16)
    config.data.fit = 'squash'
    config.data.centered = False

    config.sde.name = 've'
    config.sde.sigma_min = 0.01
    config.sde.sigma_max = 50.0

    config.model.parameterization = 'score'
    config.model.nf = 8
    config.model.num_res_blocks = 1
    config.model.attn_resolutions = (8,)
    config.model.fir = True
    config.model.progressive_input = 'residual'
    config.model.embedding_type = 'fourier'
    config.model.scale_by_sigma = True

    config.training.reduce_mean = False
    config.training.batch_size = 8
    config.optim.ema_rate = 0.999
    config.sampling.predictor = 'reverse_diffusion'
    config.sampling.corrector = 'langevin'
    config.sampling.steps = 4
    config.sampling.num_samples = 6
    config.sampling.batch_size = 2
    config.eval.batch_size = 64
    config.eval.bpd = False
    config.eval.exhibits = False
    config.eval.samplers = ()
    return config
