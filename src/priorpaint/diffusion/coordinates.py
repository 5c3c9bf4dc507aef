"""Variance-preserving coordinates: any schedule's noise levels, for u_t = x_t / sqrt(alpha_t^2 + sigma_t^2).

What a picture looks like at a noise level does not depend on the scale of x_t, and so neither should a method. In these
coordinates alpha^2 + sigma^2 = 1 for VE, EDM and flow, too, which is what the papers' step lengths are written for.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .schedules import Schedule


class Normalised(Schedule):
    """``inner`` in variance-preserving coordinates: the same times, grids and sigma / alpha.

    Args:
        inner: a schedule.
    """

    def __init__(self, inner: Schedule) -> None:
        self.inner, self.default_spacing = inner, inner.default_spacing

    @property
    def nsr_range(self) -> tuple[float, float]:
        return self.inner.nsr_range

    def log_nsr(self, t: Tensor) -> Tensor:
        return self.inner.log_nsr(t)

    def time_at(self, nsr: Tensor) -> Tensor:
        return self.inner.time_at(nsr)

    def alpha(self, t: Tensor) -> Tensor:
        return torch.sigmoid(-2 * self.log_nsr(t)).sqrt().to(t.dtype)

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sigmoid(2 * self.log_nsr(t)).sqrt().to(t.dtype)

    def length(self, t: Tensor | float) -> Tensor:
        """sqrt(alpha_t^2 + sigma_t^2) of ``inner``, by which x_t was divided; float64 in the shape of t."""
        alpha, sigma, _ = self.inner.level(torch.as_tensor(t, dtype=torch.float64))
        return torch.hypot(alpha, sigma)

    def _grid(self, steps: int, spacing: str, rho: float, start: float, low: float | None) -> Tensor:
        return self.inner.grid(steps, spacing, rho=rho, start=start, low=low)
