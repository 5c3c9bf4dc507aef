"""Rows that do not feel their batch, to the last bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..priors.base import Denoising, Prior, times_of
from ..priors.wrapped import WrappedPrior


class RowwisePrior(WrappedPrior):
    """The same prior, asked about one row at a time.

    Networks on a CPU choose their kernels by the number of rows and round differently with each, by some 1e-6. Methods
    that divide by small numbers (`mmps`, `tmpd`, `copaint`, `pigdm`) make of that up to some levels of 255, so that
    sample 0 would not be the same with ``num_samples=1`` and 4. One row at a time it is, and on windows of 128 pixels
    and more it takes about as long.

    Args:
        inner: the prior.
    """

    def evaluate(self, x_t: Tensor, t: Tensor | float, given: Mapping[str, Tensor] | None = None) -> Denoising:
        if len(x_t) <= 1:
            return self.inner.evaluate(x_t, t, given)
        times, parts = times_of(t, x_t), []
        for i in range(len(x_t)):
            row = slice(i, i + 1)
            own = given and {name: value if len(value) == 1 else value[row] for name, value in given.items()}
            parts.append(self.inner.evaluate(x_t[row], times[row], own))
        shares = [part.variance_share for part in parts if part.variance_share is not None]
        return Denoising(torch.cat([part.mean for part in parts]), torch.cat(shares) if shares else None)

    def encode(self, image: Tensor) -> Tensor:
        return _apart(self.inner.encode, image) if self.latent else image

    def decode(self, latent: Tensor) -> Tensor:
        return _apart(self.inner.decode, latent) if self.latent else latent


def rowwise(prior: Prior) -> Prior:
    """A network on a CPU, one row at a time; other priors, and networks on a GPU, as they are: small calls idle it."""
    weights = next(prior.parameters(), None) is not None
    return RowwisePrior(prior) if weights and prior.device.type == "cpu" else prior


def _apart(call: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return call(x) if len(x) <= 1 else torch.cat([call(row) for row in torch.split(x, 1)])
