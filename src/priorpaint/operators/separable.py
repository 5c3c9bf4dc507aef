"""Operators that treat rows and columns alike, with a small matrix for each side: down-sampling and Gaussian blur."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from ..errors import UsageError
from .spectral import Basis, Constants, Shape, SpectralOperator, check_rtol, image_shape, without_small

Kind = Literal["box", "bicubic"]


class SeparableOperator(SpectralOperator):
    """y = A_H x A_W^T in each channel; the SVD of A is the Kronecker product of two small ones.

    Args:
        rtol: singular values below this times the largest are 0.
    """

    def __init__(self, rtol: float) -> None:
        self._rtol = rtol
        self._constants = Constants(self._decompose)

    @abstractmethod
    def _matrix(self, side: int) -> Tensor:
        """A for one side of ``side`` pixels, (m, side) float64 with m <= side."""

    def norm(self) -> float:
        """The largest singular value, the same for all sizes."""
        return 1.0

    def _decompose(self, height: int, width: int) -> tuple[Tensor, ...]:
        u_h, s_h, v_h = torch.linalg.svd(self._matrix(height), full_matrices=False)
        u_w, s_w, v_w = torch.linalg.svd(self._matrix(width), full_matrices=False)
        values = without_small(s_h[:, None] * s_w, self._rtol)
        return u_h, u_w, v_h.mT.contiguous(), v_w.mT.contiguous(), values[None, None]

    def _basis(self, shape: Shape, like: Tensor) -> Basis:
        u_h, u_w, v_h, v_w, values = self._constants.get(shape[1:], like)
        return Basis(
            values,
            left=lambda z: u_h @ z @ u_w.mT,
            left_t=lambda y: u_h.mT @ y @ u_w,
            right=lambda z: v_h @ z @ v_w.mT,
            right_t=lambda x: v_h.mT @ x @ v_w,
        )


class Downsampling(SeparableOperator, name="downsampling"):
    """Every side shortened by an integer factor, without aliasing.

    ``box`` is the mean over blocks of factor x factor pixels. ``bicubic`` is Keys' cubic (a = -1/2), stretched by the
    factor and normalised, as MATLAB's ``imresize`` and Pillow do it. Beyond the border the image is mirrored (the
    border pixel is repeated), as in MATLAB; Pillow cuts the kernel off there, so the outermost values of y differ.
    No singular value is near 0, so A^+ is stable.

    Args:
        factor: height and width must be multiples of it; >= 1.
        kind: "box" or "bicubic".

    Raises:
        UsageError: an argument out of range; on use, an image whose sides are no multiples of ``factor``.
    """

    title: ClassVar[str] = "down-sampling by an integer factor (super-resolution)"

    def __init__(self, factor: int = 4, kind: Kind = "bicubic") -> None:
        if int(factor) != factor or factor < 1:
            raise UsageError(f"factor says how many pixels become one; pass a whole number >= 1, not {factor}")
        if kind not in get_args(Kind):
            raise UsageError(f"there is no down-sampling {kind!r}; pass 'box' or 'bicubic'")
        super().__init__(rtol=1e-6)
        self.factor, self.kind = int(factor), kind

    def image_shape(self, y: Tensor) -> Shape:
        channels, height, width = image_shape(y)
        return channels, height * self.factor, width * self.factor

    def norm(self) -> float:
        """1 / factor: constant images keep their value on fewer pixels, and no other image loses less."""
        return 1 / self.factor

    def _basis(self, shape: Shape, like: Tensor) -> Basis:
        f, (height, width) = self.factor, shape[1:]
        if height % f or width % f or not height or not width:
            raise UsageError(
                f"an image of {height} x {width} pixels has no whole blocks of {f}; "
                f"crop or resize it to {max(height // f, 1) * f} x {max(width // f, 1) * f}"
            )
        return super()._basis(shape, like)

    def _matrix(self, side: int) -> Tensor:
        f = self.factor
        pixels = torch.arange(-2 * f, side + 2 * f, dtype=torch.float64)
        centres = f * torch.arange(side // f, dtype=torch.float64) + (f - 1) / 2
        distance = (pixels - centres[:, None]) / f
        weights = _keys(distance) if self.kind == "bicubic" else (distance.abs() < 0.5).double()
        return _mirrored(weights / weights.sum(1, keepdim=True), side, 2 * f)


class GaussianBlur(SeparableOperator, name="gaussian_blur"):
    """Blur with a Gaussian of standard deviation ``sigma`` pixels, cut at 4 sigma; its weights sum to 1.

    Beyond the border the image is mirrored (the border pixel is repeated), so a constant image stays as it is.

    A blur nearly deletes fine detail, and what is left of it cannot be inverted. Directions with singular values
    below ``rtol`` (the largest is 1) are therefore deleted for good: A itself is without them, so that A, A^+ and the
    singular values agree with each other. It differs from the exact blur by at most rtol times the length of the image.

    Args:
        sigma: standard deviation in pixels, > 0.
        rtol: singular values below it count as 0; A^+ amplifies noise by at most 1 / rtol.

    Raises:
        UsageError: an argument out of range.
    """

    title: ClassVar[str] = "Gaussian blur, mirrored at the border"

    def __init__(self, sigma: float = 2.0, rtol: float = 0.01) -> None:
        if not 0 < sigma < math.inf:
            raise UsageError(f"sigma is the width of the blur in pixels; pass a number > 0, not {sigma}")
        super().__init__(rtol=check_rtol(rtol))
        self.sigma, self.rtol = float(sigma), float(rtol)

    def _matrix(self, side: int) -> Tensor:
        radius = max(math.ceil(4 * self.sigma), 1)
        pixels = torch.arange(-radius, side + radius, dtype=torch.float64)
        distance = pixels - torch.arange(side, dtype=torch.float64)[:, None]
        weights = torch.where(distance.abs() <= radius, torch.exp(-((distance / self.sigma) ** 2) / 2), 0)
        return _mirrored(weights / weights.sum(1, keepdim=True), side, radius)


def _keys(distance: Tensor) -> Tensor:
    """Keys' cubic interpolation kernel with a = -1/2 (Keys 1981, Eq. 15)."""
    d = distance.abs()
    near = 1.5 * d**3 - 2.5 * d**2 + 1
    far = -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
    return torch.where(d <= 1, near, torch.where(d < 2, far, 0))


def _mirrored(weights: Tensor, side: int, margin: int) -> Tensor:
    """Weights (m, margin + side + margin) on a line of pixels, as (m, side) on the pixels that they mirror."""
    index = torch.arange(-margin, side + margin) % (2 * side)
    index = torch.where(index < side, index, 2 * side - 1 - index)
    return weights.new_zeros(len(weights), side).index_add_(1, index, weights)
