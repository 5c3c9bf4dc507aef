"""Priors around another prior, and the one that every solver sees: in variance-preserving coordinates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..diffusion.coordinates import Normalised
from ..diffusion.schedules import VP
from ..diffusion.transitions import like
from .base import Denoising, Prior
from .info import Label


class WrappedPrior(Prior):
    """A prior around another one, ``inner``: a subclass overrides ``evaluate``, ``encode`` and ``decode`` alone.

    The evaluations are counted where they run, so that ``nfe`` is the counter of ``inner``.

    Args:
        inner: the prior inside.
        **changes: what of its ``info`` is different here.
    """

    def __init__(self, inner: Prior, **changes: Any) -> None:
        super().__init__(replace(inner.info, **changes))
        self.inner, self.nfe = inner, inner.nfe

    def __setstate__(self, state: bytes) -> None:
        super().__setstate__(state)
        self.nfe = self.inner.nfe  # which begins anew where the prior inside was loaded again

    @property
    def _loaded(self) -> bool:
        return self.spec is not None and self.inner.spec is None

    def evaluate(self, x_t: Tensor, t: Tensor | float, given: Mapping[str, Tensor] | None = None) -> Denoising:
        return self.inner.evaluate(x_t, t, given)

    def encode(self, image: Tensor) -> Tensor:
        return self.inner.encode(image)

    def decode(self, latent: Tensor) -> Tensor:
        return self.inner.decode(latent)

    def condition(self, *, label: Label | None = None, prompt: str | None = None) -> Mapping[str, Tensor]:
        return self.inner.condition(label=label, prompt=prompt)

    def parameters(self) -> Iterator[Tensor]:
        return self.inner.parameters()

    @property
    def device(self) -> torch.device:
        return self.inner.device


class NormalisedPrior(WrappedPrior):
    """``inner`` for u_t = x_t / sqrt(alpha_t^2 + sigma_t^2), the coordinates in which the methods work.

    Args:
        inner: the prior; its schedule may have any scale.
    """

    def __init__(self, inner: Prior) -> None:
        self._coordinates = Normalised(inner.schedule)
        super().__init__(inner, schedule=self._coordinates)

    def evaluate(self, x_t: Tensor, t: Tensor | float, given: Mapping[str, Tensor] | None = None) -> Denoising:
        return self.inner.evaluate(like(self._coordinates.length(t), x_t) * x_t, t, given)

    def from_own(self, x_t: Tensor, t: Tensor | float) -> Tensor:
        """u_t of x_t (N, C, H, W) in the coordinates of ``inner``."""
        return x_t / like(self._coordinates.length(t), x_t)


def normalised(prior: Prior) -> Prior:
    """The prior in variance-preserving coordinates; itself where they are its own."""
    return prior if isinstance(prior.schedule, VP | Normalised) else NormalisedPrior(prior)
