"""What a sampler needs to know of a prior."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from .schedules import Schedule


@dataclass(frozen=True)
class Denoising:
    """What a prior says about x_0.

    Attributes:
        mean: E[x_0 | x_t], (N, C, H, W) in the dtype of x_t.
        variance_share: what the network learned about the variance of an ancestral step: the share v (N, C, H, W),
            about 0 ... 1, with which its log variance lies between the smallest and the largest (Nichol and Dhariwal
            2021, Eq. 15); None where it learned nothing.
    """

    mean: Tensor
    variance_share: Tensor | None = None


class Denoiser(Protocol):
    """D(x_t, t) = E[x_0 | x_t] on a schedule; every prior is one."""

    @property
    def schedule(self) -> Schedule:
        """How x_t is made from x_0."""

    def evaluate(self, x_t: Tensor, t: Tensor | float) -> Denoising:
        """All that is known about x_0 at x_t (N, C, H, W) and times t, (N,) or one."""

    def denoise(self, x_t: Tensor, t: Tensor | float) -> Tensor:
        """The mean of `evaluate`, (N, C, H, W)."""
