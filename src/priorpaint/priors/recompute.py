"""A prior that takes less memory for more time: calls are computed again in the backward pass, rows one after another.

Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar, cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .base import Denoising, Prior
from .info import RunNFE
from .wrapped import WrappedPrior

Out = TypeVar("Out")


class RecomputePrior(WrappedPrior):
    """The same prior; results and gradients do not change, but for float rounding.

    Args:
        inner: the prior.
        checkpoint: of a call of network, encoder or decoder that needs a gradient, keep the input alone and run it
            again in the backward pass: one call's activations live at a time. ``nfe`` counts the second run of the
            network as a forward evaluation.
        rows: rows that are encoded or decoded at a time; None is all.
    """

    def __init__(self, inner: Prior, *, checkpoint: bool = True, rows: int | None = None) -> None:
        super().__init__(inner)
        self.checkpoint, self.rows = checkpoint, rows

    def encode(self, image: Tensor) -> Tensor:
        return self._in_parts(self.inner.encode, image) if self.latent else image

    def decode(self, latent: Tensor) -> Tensor:
        return self._in_parts(self.inner.decode, latent) if self.latent else latent

    def _in_parts(self, call: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        again = self.checkpoint and torch.is_grad_enabled() and x.requires_grad
        parts = torch.split(x, self.rows or max(len(x), 1))
        return torch.cat([_recomputed(call, part) if again else call(part) for part in parts])

    def evaluate(self, x_t: Tensor, t: Tensor | float, given: Mapping[str, Tensor] | None = None) -> Denoising:
        if not (self.checkpoint and torch.is_grad_enabled() and x_t.requires_grad):
            return self.inner.evaluate(x_t, t, given)
        runs = 0

        def count(x: Tensor) -> tuple[Tensor, Tensor | None]:
            nonlocal runs
            runs += 1
            spent = RunNFE(self.nfe)
            try:  # PyTorch leaves the second run by an exception once it has what it needs
                with spent.listening():
                    out = self.inner.evaluate(x, t, given)
                return out.mean, out.variance_share
            finally:
                if runs > 1:
                    self.nfe.add(spent.backward, -spent.backward)

        return Denoising(*_recomputed(count, x_t))


def _recomputed(call: Callable[[Tensor], Out], x: Tensor) -> Out:
    # The networks draw no random numbers, so the global generator's state need not be kept.
    return cast(Out, checkpoint(call, x, use_reentrant=False, preserve_rng_state=False))
