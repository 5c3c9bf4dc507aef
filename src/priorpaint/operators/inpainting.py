"""Inpainting: A = diag(m), with m = 1 where a pixel is known."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from ..errors import UsageError
from .base import LinearOperator


class Inpainting(LinearOperator, name="inpainting"):
    """y = m x; y keeps the full size and is 0 where unknown.

    Args:
        known: (1|B, 1|C, H, W) or (H, W), bool or numbers in {0, 1}; 1 = known.

    Raises:
        UsageError: values other than 0 and 1, or another number of axes.
    """

    title: ClassVar[str] = "a mask: some pixels known, the others hidden"

    def __init__(self, known: Tensor) -> None:
        known = torch.as_tensor(known)
        known = known[None, None] if known.ndim == 2 else known
        if known.ndim != 4:
            raise UsageError(f"a mask has 2 axes (H, W) or 4 axes (B, C, H, W), not {known.ndim}")
        if not bool(((known == 0) | (known == 1)).all()):
            raise UsageError("a mask holds only 0 (unknown) and 1 (known); threshold it first")
        self.known = known.to(torch.float32, copy=True)  # a later change of the caller's mask changes nothing here
        self._known = self.known > 0

    def __call__(self, x: Tensor) -> Tensor:
        # where, not a product: a NaN or inf in a hidden pixel must not leak.
        return torch.where(self._known.to(x.device), x, 0)

    def adjoint(self, y: Tensor) -> Tensor:
        return self(y)

    def pinv(self, y: Tensor) -> Tensor:
        return self(y)

    def solve(self, r: Tensor, c: float | Tensor) -> Tensor:
        diagonal = self.mask(r) + torch.as_tensor(c, dtype=r.dtype, device=r.device).reshape(-1, 1, 1, 1)
        return r * torch.where(diagonal > 0, 1 / diagonal.clamp(min=torch.finfo(r.dtype).tiny), 0)

    def filter(self, x: Tensor, gain: Callable[[Tensor], Tensor]) -> Tensor:
        return gain(self.mask(x)) * x

    def norm(self) -> float:
        return float(self.known.max())

    def mask(self, x: Tensor) -> Tensor:
        """m in the dtype and on the device of x, broadcastable to x (B, C, H, W)."""
        return self.known.to(device=x.device, dtype=x.dtype)

    def image_shape(self, y: Tensor) -> tuple[int, int, int]:
        if y.ndim != 4 or y.shape[2:] != self.known.shape[2:] or self.known.shape[1] not in (1, y.shape[1]):
            raise UsageError(f"y has shape {tuple(y.shape)}, which does not fit the mask {tuple(self.known.shape)}")
        if self.known.shape[0] not in (1, y.shape[0]):
            raise UsageError(f"there are {self.known.shape[0]} masks for {y.shape[0]} images; pass 1 or one an image")
        return int(y.shape[1]), int(y.shape[2]), int(y.shape[3])

    def project(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.where(self._known.to(x.device), y, x)  # exact, without rounding

    def measured(self, y: Tensor) -> Tensor:
        return self(y) if y.ndim == 4 else y

    def select(self, rows: Tensor) -> Self:
        return self if self.known.shape[0] == 1 else self._with(self.known[rows.to(self.known.device)])

    def to(self, device: torch.device) -> Self:
        return self._with(self.known.to(device))

    def _with(self, known: Tensor) -> Self:
        other = copy.copy(self)
        other.known, other._known = known, known > 0
        return other
