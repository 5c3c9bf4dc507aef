"""An exponential moving average of the weights."""

from __future__ import annotations

import copy
from typing import Any

import torch

from priorpaint.priors.unet import UNet


class EMA:
    """A copy of ``network`` whose weights follow it: w <- d w + (1 - d) network, d = min(decay, (k + 1) / (k + 10)).

    The warm-up of d (k counts updates from 0) lets the average forget the random start.
    """

    def __init__(self, network: UNet, decay: float = 0.999) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, network: UNet, step: int) -> None:
        """Take in the weights of ``network`` after update number ``step`` (from 0)."""
        decay = min(self.decay, (step + 1) / (step + 10))
        torch._foreach_lerp_(list(self.network.parameters()), list(network.parameters()), 1 - decay)

    def state_dict(self) -> dict[str, Any]:
        """The averaged weights."""
        return self.network.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.network.load_state_dict(state)
