"""A prior that takes less memory for more time: calls are computed again in the backward pass, rows one after another.

Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .base import Prior, WrappedPrior

Call = Callable[[Tensor], Tensor]


class LowMemory(WrappedPrior):
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

    def _in_parts(self, call: Call, x: Tensor) -> Tensor:
        again = self.checkpoint and torch.is_grad_enabled() and x.requires_grad
        parts = torch.split(x, self.rows or max(len(x), 1))
        return torch.cat([_recomputed(call, part) if again else call(part) for part in parts])

    def _denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        return self._counted(lambda x: self.inner.denoise(x, t), x_t)

    def _denoise_given(self, x_t: Tensor, t: Tensor, given: Mapping[str, Tensor]) -> Tensor:
        return self._counted(lambda x: self.inner.denoise_given(x, t, given), x_t)

    def _counted(self, call: Call, x_t: Tensor) -> Tensor:
        if not (self.checkpoint and torch.is_grad_enabled() and x_t.requires_grad):
            return call(x_t)
        runs = 0

        def count(x: Tensor) -> Tensor:
            nonlocal runs
            runs += 1
            if runs == 1:
                return call(x)
            backward = self.nfe.backward
            try:  # PyTorch leaves the second run by an exception once it has what it needs
                return call(x)
            finally:
                self.nfe.forward += self.nfe.backward - backward
                self.nfe.backward = backward

        return _recomputed(count, x_t)


def _recomputed(call: Call, x: Tensor) -> Tensor:
    # The networks draw no random numbers, so the global generator's state need not be kept.
    return cast(Tensor, checkpoint(call, x, use_reentrant=False, preserve_rng_state=False))
