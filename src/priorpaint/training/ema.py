"""An exponential moving average of the weights."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import nn

from priorpaint.errors import UsageError

Network = TypeVar("Network", bound=nn.Module)

# Widest power-function profile: exponent 0, the plain mean of all weights so far.
MAX_WIDTH = 12**-0.5


class EMA(Generic[Network]):
    """A copy of ``network`` whose weights follow it: w <- d w + (1 - d) network.

    With ``decay``, d = min(decay, (k + 1) / (k + 10)), where k counts updates from 0; the warm-up lets the average
    forget the random start. With ``power`` > 0, d = (1 - 1 / (k + 1))^(gamma + 1): a power-function profile (Karras et
    al. 2024, "Analyzing and improving the training dynamics of diffusion models", Eq. 127), whose width is the share
    ``power`` of the training so far, however long that is.

    Args:
        network: what to follow.
        decay: largest decay of the exponential profile.
        power: relative standard deviation of the power-function profile, in (0, 0.28]; 0 for the exponential one.
    """

    def __init__(self, network: Network, decay: float = 0.999, power: float = 0.0) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay = decay
        self.exponent = power_exponent(power) if power else None

    @torch.no_grad()
    def update(self, network: Network, step: int) -> None:
        """Take in the weights of ``network`` after update number ``step`` (from 0)."""
        decay = min(self.decay, (step + 1) / (step + 10))
        if self.exponent is not None:
            decay = float((1 - 1 / (step + 1)) ** (self.exponent + 1))
        torch._foreach_lerp_(list(self.network.parameters()), list(network.parameters()), 1 - decay)


def power_exponent(width: float) -> float:
    """gamma of the profile p(s) ~ s^gamma on [0, 1] with standard deviation ``width``.

    sqrt((gamma + 1) / (gamma + 3)) / (gamma + 2) = width (Karras et al. 2024, Eq. 126), which falls in gamma.

    Raises:
        UsageError: a width outside (0, 0.2887].
    """
    if not 0 < width <= MAX_WIDTH:
        raise UsageError(f"The relative width of the moving average lies in (0, 0.28], for example 0.1; got {width}.")
    squared = width**-2
    return float(np.roots([1, 7, 16 - squared, 12 - squared]).real.max())
