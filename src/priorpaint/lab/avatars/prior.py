"""The exact denoiser of avatars: a prior of real pictures without a network and without its errors."""

from __future__ import annotations

import torch
from torch import Tensor

from ...diffusion.schedules import EDM, Schedule
from ...priors.base import Prior
from ...priors.info import PriorInfo, Provenance
from .elimination import Elimination
from .model import SIZE, Avatars
from .pixels import LEVEL, as_picture, cell_features
from .posterior import log_shares
from .standard import standard
from .tables import tables

_CHUNK = 16


class ExactAvatars(Prior):
    """E[x_0 | x_t] of the law of avatars, by summing over all combinations.

    With z = x_t / alpha_t = x_0 + r eps, r = sigma_t / alpha_t, the weight of a combination c is
    p(c) exp(-|z - picture(c)|^2 / (2 r^2)). The derivative of the logarithm of their sum with respect to the linear
    coefficients of a cell is its mean colour. Differentiable, in float64 inside.

    Args:
        avatars: the law; default `standard`.
        schedule: any; default EDM from 0.005 to 50, where of a picture only its brightness can be guessed.
    """

    def __init__(self, avatars: Avatars | None = None, schedule: Schedule | None = None) -> None:
        schedule = EDM(sigma_min=0.005, sigma_max=50.0) if schedule is None else schedule
        super().__init__(PriorInfo(schedule, (3, SIZE, SIZE), data_std=0.6, provenance=Provenance("avatars, exact")))
        self.avatars = standard() if avatars is None else avatars
        self._shares = log_shares(self.avatars)

    def _denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        nsr = (sigma / alpha).clamp(min=1e-4).to(x_t.device)
        z = x_t.double() / alpha.to(x_t.device)[:, None, None, None]
        chunks = zip(torch.split(z, _CHUNK), torch.split(nsr, _CHUNK), strict=True)
        return torch.cat([self._mean(*chunk) for chunk in chunks]).to(x_t.dtype)

    def _mean(self, z: Tensor, nsr: Tensor) -> Tensor:
        """(N, 3, 32, 32) from z of the same shape and r (N,)."""
        wanted = torch.is_grad_enabled() and z.requires_grad
        scale = 1 / (2 * (nsr * LEVEL) ** 2)
        known = torch.ones_like(z[:, :1], dtype=torch.bool)
        with torch.enable_grad():
            cells = cell_features(z, known) * scale[:, None, None]
            cells = cells if wanted else cells.detach().requires_grad_()
            total = Elimination(tables(self.avatars), cells, 1.0, self._shares).total
            slope = torch.autograd.grad(total.sum(), cells, create_graph=wanted)[0]
        return as_picture(-slope[..., :3] / LEVEL - 1)


def avatar_prior(name: str) -> Prior:
    """A prior of avatars by name: ``exact`` is `ExactAvatars`, all else what ``load_prior`` knows.

    Raises:
        UsageError: no such prior.
        PriorError: it cannot be read.
    """
    if name == "exact":
        return ExactAvatars()
    from ...priors.loading import load_prior  # the exact one needs no readers

    return load_prior(name)
