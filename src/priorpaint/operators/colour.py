"""Grey values of colour images; inverted, colorisation."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import UsageError
from .spectral import Basis, Constants, Shape, SpectralOperator, image_shape

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in ITU-R BT.601; they sum to 1."""


class Grayscale(SpectralOperator, name="grayscale"):
    """y = 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601) in each pixel: (B, 3, H, W) -> (B, 1, H, W)."""

    title: ClassVar[str] = "grey values of a colour image (colorisation)"

    def __init__(self) -> None:
        self._constants = Constants(_direction)

    def image_shape(self, y: Tensor) -> Shape:
        channels, height, width = image_shape(y)
        if channels != 1:
            raise UsageError(f"a grey image has 1 channel, not {channels}")
        return 3, height, width

    def norm(self) -> float:
        """The length of the vector of weights, 0.6686."""
        return math.hypot(*LUMA)

    def _basis(self, shape: Shape, like: Tensor) -> Basis:
        if shape[0] != 3:
            raise UsageError(f"only images with 3 channels have grey values of their colours; this one has {shape[0]}")
        (unit,) = self._constants.get((), like)
        return Basis(
            torch.full((1, 1, 1, 1), self.norm(), dtype=like.dtype, device=like.device),
            left=lambda z: z,
            left_t=lambda y: y,
            right=lambda z: unit * z,
            right_t=lambda x: (unit * x).sum(1, keepdim=True),
        )


def _direction() -> tuple[Tensor, ...]:
    weights = torch.tensor(LUMA, dtype=torch.float64)
    return ((weights / weights.norm()).reshape(1, 3, 1, 1),)
