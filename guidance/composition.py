"""Compositions of energies: products, powers and negations of densities, as one process.

Of densities p_i with weights w_i the product in proportion to prod_i p_i^{w_i} has the log density
sum_i w_i log p_i but for a constant, and the score sum_i w_i score_i: states that are likely to all
with a positive weight, and unlikely to those with a negative one.

So it is at every time; but a product of diffused densities is not the diffused product (Du et al.
2023, "Reduce, Reuse, Recycle", arXiv:2302.11552). A sampler of the reverse SDE or of its ODE takes
it for that, and ends elsewhere. At t_min the product is that of the data's densities, and Langevin
steps at each time that keep p_t lead there: the corrector 'mala', which keeps it exactly, and needs
the log density that a composition of scores does not have.
"""

from collections.abc import Sequence

from choices import ArgumentError
from parameterization import Process, energy_process
from sde_lib import Number


def compose(processes: Sequence[Process], weights: Sequence[Number]) -> Process:
    """The process whose log density is the sum of those of several, each times its weight.

    A product is [1, 1]; [1, -0.5] keeps away from the second. There is such a density if its
    integral is finite: of Gaussians, if the weighted sum of inverse covariances is positive. Raises
    ArgumentError for processes without a density, of different SDEs, or too few weights.
    """
    if len(processes) != len(weights) or not processes:
        reason = f'{len(weights)} for {len(processes)} processes; one for each needed'
        raise ArgumentError('weights', reason)
    sde = processes[0].sde
    if any(process.sde != sde for process in processes):
        raise ArgumentError('processes', 'of different SDEs; one for all needed')
    if any(process.log_density is None for process in processes):
        raise ArgumentError('processes', 'not all have a log density; energies needed')

    def log_density(x, t):
        each = zip(processes, weights, strict=True)
        return sum(weight * process.log_density(x, t) for process, weight in each)

    return energy_process(sde, log_density)
