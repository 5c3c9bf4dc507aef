"""Compressed sensing: a random part of the pixels, or of the Walsh-Hadamard coefficients."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from ..diffusion.rng import Streams, derive
from ..errors import UsageError
from .inpainting import Inpainting
from .spectral import Basis, Constants, Shape, SpectralOperator


class RandomPixels(Inpainting, name="random_pixels"):
    """A mask of pixels known at random, the same for all channels and images: round(keep H W) of them.

    Args:
        size: (H, W).
        keep: share of the pixels that are known, in (0, 1].
        seed: of the choice; the same seed gives the same mask.

    Raises:
        UsageError: an argument out of range.
    """

    title: ClassVar[str] = "pixels known at random"

    def __init__(self, size: tuple[int, int], keep: float = 0.1, seed: int = 0) -> None:
        height, width = _sides(size)
        count = _count(keep, height * width)
        draw = Streams([derive("random pixels", seed)]).normal(height * width)[0]
        known = torch.zeros(height * width)
        known[draw.argsort(stable=True)[:count]] = 1
        super().__init__(known.reshape(height, width))


class WalshHadamard(SpectralOperator, name="walsh_hadamard"):
    """y = R W D x in each channel: random signs D, the orthonormal Walsh-Hadamard transform W, kept rows R.

    All channels and images share D and R. The rows of A are orthonormal, so A^+ = A^T. The transform is the fast one,
    in natural (Hadamard) order, with n log n additions for n = H W.

    Args:
        size: (H, W), each a power of two; y alone does not tell it.
        keep: share of the coefficients that are measured, in (0, 1]; m = round(keep H W), at least 1.
        seed: of D and R; the same seed gives the same operator.

    Raises:
        UsageError: an argument out of range; on use, images of another size.
    """

    title: ClassVar[str] = "compressed sensing by randomised Walsh-Hadamard coefficients"

    def __init__(self, size: tuple[int, int], keep: float = 0.25, seed: int = 0) -> None:
        height, width = _sides(size)
        if height & (height - 1) or width & (width - 1):
            raise UsageError(
                f"a Walsh-Hadamard transform needs sides that are powers of two, not {height} x {width}; "
                f"crop or resize to {1 << height.bit_length() - 1} x {1 << width.bit_length() - 1}"
            )
        self.size, self.keep, self.seed = (height, width), float(keep), int(seed)
        draw = Streams([derive("walsh-hadamard", seed)])
        self._signs = torch.where(draw.normal(height * width)[0] < 0, -1.0, 1.0).reshape(height, width)
        chosen = draw.normal(height * width)[0].argsort(stable=True)[: _count(keep, height * width)]
        self.rows = chosen.sort().values
        self._constants = Constants(self._parts)

    def image_shape(self, y: Tensor) -> Shape:
        if y.ndim != 3 or y.shape[2] != len(self.rows):
            raise UsageError(f"y has shape {tuple(y.shape)}, but this operator gives (B, C, {len(self.rows)})")
        return int(y.shape[1]), *self.size

    def _parts(self) -> tuple[Tensor, ...]:
        return (self._signs.double(),)

    def norm(self) -> float:
        """1: the rows are orthonormal."""
        return 1.0

    def _basis(self, shape: Shape, like: Tensor) -> Basis:
        if shape[1:] != self.size:
            raise UsageError(
                f"the operator was made for images of {self.size[0]} x {self.size[1]} pixels, "
                f"not {shape[1]} x {shape[2]}; pass size={shape[1:]}"
            )
        (signs,) = self._constants.get((), like)
        rows = self.rows.to(like.device)

        def rebuild(z: Tensor) -> Tensor:
            spread = z.new_zeros(*z.shape[:2], math.prod(self.size)).index_copy(2, rows, z.squeeze(2))
            return signs * walsh_hadamard(spread).reshape(*z.shape[:2], *self.size)

        return Basis(
            torch.ones(1, 1, 1, 1, dtype=like.dtype, device=like.device),
            left=lambda z: z.squeeze(2),
            left_t=lambda y: y.unsqueeze(2),
            right=rebuild,
            right_t=lambda x: walsh_hadamard((signs * x).flatten(2))[:, :, rows].unsqueeze(2),
        )


def walsh_hadamard(x: Tensor) -> Tensor:
    """The orthonormal Walsh-Hadamard transform of the last axis (..., n), n a power of two; its own inverse."""
    n = x.shape[-1]
    half = 1
    while half < n:
        pairs = x.reshape(*x.shape[:-1], n // (2 * half), 2, half)
        first, second = pairs.unbind(-2)
        x = torch.stack([first + second, first - second], -2).reshape(x.shape)
        half *= 2
    return x / math.sqrt(n)


def _sides(size: tuple[int, int]) -> tuple[int, int]:
    if len(size) != 2 or any(int(side) != side or side < 1 for side in size):
        raise UsageError(f"size is (height, width) in pixels, not {size}")
    return int(size[0]), int(size[1])


def _count(keep: float, total: int) -> int:
    if not 0 < keep <= 1:
        raise UsageError(f"keep is the share that is measured; pass a number in (0, 1], not {keep}")
    return max(round(keep * total), 1)
