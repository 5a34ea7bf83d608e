"""How much an objective scatters over the times that it is taken at: uniform, and by importance.

    python -m benchmarks.time_sampling [--t_min 1e-5] > table.md

For data N(0, std^2) and their exact score the squared residual has the mean sigmoid(log_snr +
log std^2), so that only times are drawn here, and no noise. A number is the standard deviation of
weight(t) E|residual|^2 / p(t) over its mean. Seconds on any machine.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np

import losses
import sde_lib
from sde_lib import SDE

SDES = 'vp', 'subvp', 've', 'geometric'
STDS = 1.0, 0.5, 2.0
NUM = 2**17


def scatter(sde: SDE, weighting: str, std: float, t_min: float) -> tuple[float, float]:
    """Standard deviation over mean, with uniform times and with those of the proposal.

    Moments of both are means over times of the proposal, which alone are where the loss is large.
    """
    times = losses.CODE_TIMES[weighting](jax.random.key(0), sde, t_min, NUM)
    square = jax.nn.sigmoid(sde.log_snr(times.t) + 2 * jnp.log(std))
    loss = np.asarray(losses.WEIGHTINGS[weighting](sde, times.t) * square, np.float64)
    weight = np.asarray(times.inverse_density, np.float64)
    mean = np.mean(loss * weight)
    seconds = np.mean(loss**2 * weight), np.mean((loss * weight) ** 2)
    uniform, proposed = (np.sqrt(max(second / mean**2 - 1, 0)) for second in seconds)
    return uniform, proposed


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--t_min', type=float, default=1e-5)
    t_min = parser.parse_args().t_min
    print('| weighting | SDE | ' + ' | '.join(f'std {std:g}' for std in STDS) + ' |')
    print('| --- ' * (2 + len(STDS)) + '|')
    for weighting in losses.CODE_TIMES:
        for name in SDES:
            found = [scatter(sde_lib.create(name), weighting, std, t_min) for std in STDS]
            cells = ' | '.join(f'{uniform:.2f}, {proposed:.2f}' for uniform, proposed in found)
            print(f'| `{weighting}` | `{name}` | {cells} |', flush=True)


if __name__ == '__main__':
    main()
