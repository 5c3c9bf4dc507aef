"""What a sampler needs to know of a prior."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor

from ..errors import UsageError
from .schedules import Schedule

Variance = Literal["small", "large", "learned"]
"""Of an ancestral step: DDPM's beta-tilde_t, its beta_t, or what the network says between them."""


def not_learned(name: str) -> UsageError:
    """The refusal of variance 'learned' with a prior that has none."""
    return UsageError(
        f"variance 'learned' needs a network that learned one, and the prior {name} has not; choose 'small' or 'large'"
    )


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

    def share(self, variance: Variance | None) -> Tensor | float:
        """Where the log variance of an ancestral step lies: 0 is the smallest, 1 the largest, (N, C, H, W) the learned.

        Args:
            variance: which; None is what the network learned, else the smallest.

        Raises:
            UsageError: 'learned', and nothing was.
        """
        if variance in ("small", "large"):
            return float(variance == "large")
        if self.variance_share is not None:
            return self.variance_share
        if variance == "learned":
            raise not_learned("given")
        return 0.0


class Denoiser(Protocol):
    """D(x_t, t) = E[x_0 | x_t] on a schedule; every prior is one."""

    @property
    def schedule(self) -> Schedule:
        """How x_t is made from x_0."""

    def evaluate(self, x_t: Tensor, t: Tensor | float) -> Denoising:
        """All that is known about x_0 at x_t (N, C, H, W) and times t, (N,) or one."""

    def denoise(self, x_t: Tensor, t: Tensor | float) -> Tensor:
        """The mean of `evaluate`, (N, C, H, W)."""
