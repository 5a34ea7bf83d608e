"""Differential equations that a network solves, and what it is trained by: docs/deqgan.md."""

from equations import ordinary, partial
from equations.problem import Problem

PROBLEMS: dict[str, Problem] = {
    'exp': ordinary.exponential,
    'exp_linear': ordinary.exponential_linear,
    'sho': ordinary.harmonic,
    'nlo': ordinary.nonlinear,
    'coo': ordinary.coupled,
    'sir': ordinary.epidemic,
    'ham': ordinary.ray,
    'ein': ordinary.einstein,
    'pos': partial.poisson,
    'hea': partial.heat,
    'wav': partial.wave,
    'bur': partial.burgers,
    'aca': partial.allen_cahn,
}
