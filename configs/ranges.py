"""Which numbers the fields of configs/base.py may have, by themselves.

Upper ends are where nothing sensible is beyond, and memory or patience would end first. What fields
have to do with each other is said where they are used.
"""

import math
from typing import NamedTuple


class Range(NamedTuple):
    """Numbers from `low` to `high`, of which `low` and `high` may be excluded."""

    low: float
    high: float = math.inf
    without_low: bool = False
    without_high: bool = False

    def __contains__(self, number: float) -> bool:
        above = number > self.low if self.without_low else number >= self.low
        below = number < self.high if self.without_high else number <= self.high
        return above and below and math.isfinite(number)

    def __str__(self) -> str:
        low = f'{"above" if self.without_low else "of at least"} {self.low:g}'
        if self.high == math.inf:
            return 'that is finite' if self.low == -math.inf else low
        return f'{low} and {"below" if self.without_high else "at most"} {self.high:,}'


class OneOf(tuple):
    """A few numbers."""

    def __str__(self) -> str:
        return f'that is one of {", ".join(map(str, self))}'


ANY = Range(-math.inf)  # but infinity
NOT_NEGATIVE = Range(0)
POSITIVE = Range(0, without_low=True)
SHARE = Range(0, 1)
RATE = Range(0, 1, without_high=True)
INSIDE = Range(0, 1, without_low=True, without_high=True)
STEPS = Range(0, 10**9)
COUNT = Range(1, 10**6)
COUNT_OR_NONE = Range(0, 10**6)
FEW = Range(1, 1000)

# The numbers of a tuple are in its range one by one. Numbers without a range are finite.
RANGES = {
    'seed': Range(0, 2**31 - 1),
    **dict.fromkeys(['data.image_size', 'data.crop_size'], Range(1, 2**14)),
    'data.channels': OneOf((1, 3)),
    'data.test_fraction': INSIDE,
    **dict.fromkeys(['sde.beta_min', 'sde.beta_max'], POSITIVE),
    **dict.fromkeys(['sde.sigma_min', 'sde.sigma_max'], Range(1e-6, 1e6)),
    **dict.fromkeys(['sde.log_snr_min', 'sde.log_snr_max'], Range(-40, 40)),
    'sde.num_scales': Range(2, 10**6),
    'model.nf': Range(1, 2**14),
    'model.ch_mult': Range(1, 64),
    'model.num_res_blocks': Range(1, 64),
    'model.attn_resolutions': Range(1, 2**14),
    'model.dropout': RATE,
    **dict.fromkeys(['model.fourier_scale', 'model.channel_std'], POSITIVE),
    'model.init_scale': NOT_NEGATIVE,
    'model.num_classes': COUNT_OR_NONE,
    'model.input_fourier': Range(0, 32),
    **dict.fromkeys(['model.blocks_per_group', 'model.channel_multiplier'], Range(1, 64)),
    'model.embedding_size': Range(1, 2**14),
    'training.batch_size': COUNT,
    'training.num_steps': Range(1, 10**9),
    'training.t_min': NOT_NEGATIVE,
    'training.steps_per_dispatch': FEW,
    'training.label_dropout': SHARE,
    'training.log_every': Range(1, 10**9),
    **dict.fromkeys(['training.eval_every', 'training.checkpoint_every'], STEPS),
    **dict.fromkeys(['training.sample_every', 'training.keep_every'], STEPS),
    **dict.fromkeys(['training.keep_checkpoints', 'training.max_skipped'], COUNT),
    'training.num_samples': COUNT,
    'training.keep_best': COUNT_OR_NONE,
    **dict.fromkeys(['optim.lr', 'optim.eps'], POSITIVE),
    'optim.warmup': STEPS,
    **dict.fromkeys(['optim.beta1', 'optim.beta2', 'optim.ema_rate'], RATE),
    'optim.weight_decay': NOT_NEGATIVE,
    'optim.grad_clip': ANY,
    **dict.fromkeys(['sampling.num_samples', 'sampling.batch_size'], COUNT),
    **dict.fromkeys(['sampling.t_min', 'sampling.temperature'], NOT_NEGATIVE),
    **dict.fromkeys(['sampling.steps', 'sampling.window'], Range(1, 10**6)),
    'sampling.eta': NOT_NEGATIVE,
    'sampling.corrector_steps': FEW,
    'sampling.snr': POSITIVE,
    **dict.fromkeys(['sampling.churn', 'sampling.churn_min'], NOT_NEGATIVE),
    **dict.fromkeys(['sampling.churn_max', 'sampling.noise_scale'], NOT_NEGATIVE),
    'sampling.picard_tolerance': POSITIVE,
    **dict.fromkeys(['sampling.sde_rtol', 'sampling.sde_atol'], POSITIVE),
    **dict.fromkeys(['sampling.rtol', 'sampling.atol'], POSITIVE),
    **dict.fromkeys(['task.guidance', 'task.noise_std', 'task.label'], NOT_NEGATIVE),
    **dict.fromkeys(['task.num_images', 'task.samples_each'], COUNT),
    **dict.fromkeys(['task.data_std', 'task.blur_std'], POSITIVE),
    'task.factor': Range(2, 2**14),
    **dict.fromkeys(['eval.checkpoint', 'eval.checkpoints', 'eval.wait'], STEPS),
    'eval.batch_size': COUNT,
    **dict.fromkeys(['eval.num_bpd_images', 'eval.num_samples'], Range(0, 10**9)),
    'eval.t_min': NOT_NEGATIVE,
    **dict.fromkeys(['eval.num_probes', 'eval.num_dequantizations'], FEW),
    'eval.variational_draws': Range(0, 1000),
    **dict.fromkeys(['eval.rtol', 'eval.atol'], POSITIVE),
    'eval.max_features': Range(2, 10**9),
    'eval.noise_levels': Range(0, 1, without_low=True),
}

# Of tuples that have nothing in them by default.
ELEMENTS = {
    'model.input_fourier': int,
    **dict.fromkeys(['model.channel_mean', 'model.channel_std'], float),
    'eval.checkpoints': int,
    'eval.quality': str,
}

# How many numbers a tuple may have, if not any number.
LENGTHS = {
    **dict.fromkeys(['data.image_size', 'training.log_sigma'], Range(2, 2)),
    'model.ch_mult': Range(1, 14),
    **dict.fromkeys(['model.fir_kernel', 'model.input_fourier'], Range(0, 64)),
    'eval.noise_levels': Range(0, 1000),
}
