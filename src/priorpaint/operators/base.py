"""Linear measurements y = A x + sigma_y n."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class LinearOperator(ABC):
    """A linear map from images x (B, C, H, W) to measurements y (B, ...).

    An operator may hold parameters for each image of a batch (masks, kernels); ``select`` picks those of some rows.
    """

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """A x: (B, C, H, W) -> (B, ...)."""

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """A^T y: (B, ...) -> (B, C, H, W)."""

    @abstractmethod
    def pinv(self, y: Tensor) -> Tensor:
        """The Moore-Penrose pseudo-inverse A^+ y: (B, ...) -> (B, C, H, W)."""

    @abstractmethod
    def solve(self, r: Tensor, c: float | Tensor) -> Tensor:
        """(A A^T + c I)^-1 r for r (B, ...) and c >= 0, a number or (B,); at c = 0 the pseudo-inverse of A A^T."""

    @abstractmethod
    def image_shape(self, y: Tensor) -> tuple[int, int, int]:
        """(C, H, W) of the images that y (B, ...) measures."""

    def project(self, x: Tensor, y: Tensor) -> Tensor:
        """The image nearest to x (B, C, H, W) with A x = y: x + A^+ (y - A x)."""
        return x + self.pinv(y - self(x))

    def measured(self, y: Tensor) -> Tensor:
        """y with entries that carry no information (pixels off a mask) set to 0."""
        return y

    def select(self, rows: Tensor) -> LinearOperator:
        """The operator of the images ``rows`` (N,) of the batch; itself where all images share it."""
        return self

    def to(self, device: torch.device) -> LinearOperator:
        """The same operator on a device."""
        return self
