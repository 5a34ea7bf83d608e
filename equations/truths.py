"""True solutions where there is no formula: of ordinary equations by an adaptive solver of order 8,
of equations on a circle by Fourier series. All in float64, on the host.
"""

from collections.abc import Callable, Sequence

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import scipy.fft
from jaxtyping import Float

TOLERANCE = 1e-12
MAX_STEPS = 100_000
# Steps between two times that are asked for, at first and at most.
FEWEST_STEPS, MOST_STEPS = 4, 4096

Coefficients = np.ndarray  # of a real Fourier series, complex


def by_dopri8(
    velocity: Callable, start: Sequence[float], times: Float[np.ndarray, 'n']
) -> Float[np.ndarray, 'n dim']:
    """y at `times` >= 0, in any order, of dy/dt = velocity(t, y), y(0) = start.

    Tolerances of a step are 1e-12, relative and absolute; between steps it is interpolated. What is
    found is good to about 1e-10. `velocity` is of jax arrays.
    """
    instants, which = np.unique(times, return_inverse=True)
    with jax.enable_x64(True):
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: velocity(t, y)),
            diffrax.Dopri8(),
            0.0,
            float(instants[-1]),
            None,
            jnp.array(start, jnp.float64),
            saveat=diffrax.SaveAt(ts=jnp.array(instants, jnp.float64)),
            stepsize_controller=diffrax.PIDController(rtol=TOLERANCE, atol=TOLERANCE),
            max_steps=MAX_STEPS,
        )
        return np.asarray(solution.ys)[which]


class Spectral:
    """u(x, t) of u_t = nu u_xx + nonlinear(u, u_x), u of period `high - low`, from u(x, 0).

    Between two of the times that are asked for, n steps by the Runge-Kutta method of order 4 with
    the diffusion integrated exactly; n doubles until no value changes by more than `tolerance`.
    """

    def __init__(
        self,
        nu: float,
        nonlinear: Callable,
        start: Callable,
        low: float,
        high: float,
        modes: int,
        tolerance: float,
    ):
        self.nonlinear, self.low, self.tolerance = nonlinear, low, tolerance
        self.x = low + (high - low) * np.arange(modes) / modes
        self.k = 2 * np.pi * np.arange(modes // 2 + 1) / (high - low)
        self.decay = -nu * self.k**2
        self.start = scipy.fft.rfft(start(self.x))

    def __call__(self, points: Float[np.ndarray, 'n 2']) -> Float[np.ndarray, 'n 1']:
        """u at points (x, t), t >= 0. Raises ArithmeticError if doubling the steps does not end."""
        times, which = np.unique(points[:, 1], return_inverse=True)
        steps, before = FEWEST_STEPS, None
        while steps <= MOST_STEPS:
            found = self._evaluated(self._series(times, steps), points[:, 0], which)
            if before is not None and np.abs(found - before).max() < self.tolerance:
                return found[:, None]
            steps, before = 2 * steps, found
        raise ArithmeticError(f'{MOST_STEPS} steps between two times are too few')

    def _series(self, times: np.ndarray, steps: int) -> list[Coefficients]:
        """The series at increasing times."""
        found, t, u = [], 0.0, self.start
        for until in times:
            dt = (until - t) / steps
            half = np.exp(0.5 * dt * self.decay)
            for _ in range(steps if dt else 0):
                u = self._step(u, dt, half)
            found.append(u)
            t = until
        return found

    def _step(self, u: Coefficients, dt: float, half: np.ndarray) -> Coefficients:
        """One step of the Runge-Kutta method of order 4, in the variable exp(-t nu d2/dx2) u."""
        k1 = self._rate(u)
        k2 = self._rate(half * (u + 0.5 * dt * k1))
        k3 = self._rate(half * u + 0.5 * dt * k2)
        k4 = self._rate(half * (half * u + dt * k3))
        return half**2 * (u + dt / 6 * k1) + half * dt / 3 * (k2 + k3) + dt / 6 * k4

    def _rate(self, u: Coefficients) -> Coefficients:
        num = len(self.x)
        with np.errstate(over='ignore', invalid='ignore'):  # Of steps that are too long.
            slope = scipy.fft.irfft(1j * self.k * u, num)
            return scipy.fft.rfft(self.nonlinear(scipy.fft.irfft(u, num), slope))

    def _evaluated(self, series: list[Coefficients], x: np.ndarray, which: np.ndarray):
        """The sums of the series number `which` at x."""
        places, place = np.unique(x, return_inverse=True)
        waves = np.exp(1j * np.outer(self.k, places - self.low))
        # Of a real series all waves but the constant and the shortest stand for two.
        waves[1:-1] *= 2
        values = (np.array(series) @ waves).real / len(self.x)
        return values[which, place]
