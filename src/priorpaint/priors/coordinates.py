"""A prior in variance-preserving coordinates, in which the methods work; see `diffusion.coordinates`."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..diffusion.coordinates import Normalised
from ..diffusion.schedules import VP
from ..diffusion.transitions import like
from .base import Denoising, Prior, WrappedPrior


class NormalisedPrior(WrappedPrior):
    """``inner`` for u_t = x_t / sqrt(alpha_t^2 + sigma_t^2): the same E[x_0 | x_t], of a rescaled x_t.

    Args:
        inner: the prior; its schedule may have any scale.
    """

    def __init__(self, inner: Prior) -> None:
        self._coordinates = Normalised(inner.schedule)
        super().__init__(inner, schedule=self._coordinates)

    def evaluate(self, x_t: Tensor, t: Tensor | float, given: Mapping[str, Tensor] | None = None) -> Denoising:
        return self.inner.evaluate(like(self._length(t), x_t) * x_t, t, given)

    def from_own(self, x_t: Tensor, t: Tensor | float) -> Tensor:
        """u_t of x_t (N, C, H, W) in the coordinates of ``inner``."""
        return x_t / like(self._length(t), x_t)

    def _length(self, t: Tensor | float) -> Tensor:
        return self._coordinates.length(torch.as_tensor(t, dtype=torch.float64))


def normalised(prior: Prior) -> Prior:
    """The prior in variance-preserving coordinates; itself where they are its own."""
    return prior if isinstance(prior.schedule, VP | Normalised) else NormalisedPrior(prior)
