"""Any matrix, for problems that are small enough to write it down."""

from __future__ import annotations

import copy
import math
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from ..errors import UsageError
from .spectral import Basis, Constants, Shape, SpectralOperator, check_rtol


class MatrixOperator(SpectralOperator, name="matrix"):
    """y = A x for a dense A on flattened images: (B, C, H, W) -> (B, m).

    Meant for certification on vectors dressed as images; the decomposition is computed once, in float64.

    Args:
        matrix: (m, d), or (B, m, d) with one matrix an image.
        shape: (C, H, W) of the images, with C H W = d; None is (1, 1, d).
        rtol: singular values below this times the largest of the matrix are set to 0, in A too, so that A and A^+ fit.

    Raises:
        UsageError: a matrix with another number of axes or with values that are not finite, or a shape that does not
            fit; on use, another number of images than of matrices.
    """

    title: ClassVar[str] = "any matrix on flattened images"

    def __init__(self, matrix: Tensor, shape: Shape | None = None, rtol: float = 1e-6) -> None:
        dense = torch.as_tensor(matrix).detach().to(device="cpu", dtype=torch.float64)
        if dense.ndim not in (2, 3) or not dense.numel():
            raise UsageError(f"a matrix has the axes (m, d) or (B, m, d), and this one has {tuple(dense.shape)}")
        if not bool(dense.isfinite().all()):
            raise UsageError("the matrix holds values that are not finite (NaN or infinity)")
        m, d = dense.shape[-2:]
        self.shape: Shape = shape or (1, 1, d)
        if math.prod(self.shape) != d:
            raise UsageError(f"the matrix has {d} columns, but images {self.shape} have another number of values")
        # U is square either way; more rows than columns leave columns of U without a partner in V, which then are 0.
        u, s, v_t = torch.linalg.svd(dense.reshape(-1, m, d), full_matrices=m > d)
        s = torch.where(s >= check_rtol(rtol) * s.amax(1, keepdim=True), s, 0)
        missing = max(m - d, 0)
        self._svd: tuple[Tensor, ...] = (
            u,
            torch.nn.functional.pad(s, (0, missing))[:, None, None],
            torch.nn.functional.pad(v_t.mT, (0, missing)),
        )
        self._constants = Constants(self._parts)

    def image_shape(self, y: Tensor) -> Shape:
        m = self._svd[0].shape[-1]
        if y.ndim != 2 or y.shape[1] != m:
            raise UsageError(f"y has shape {tuple(y.shape)}, but the matrix has {m} rows and so gives (B, {m})")
        self._check_count(y)
        return self.shape

    def norm(self) -> float:
        """The largest singular value of all matrices."""
        return float(self._svd[1].amax())

    def select(self, rows: Tensor) -> Self:
        if len(self._svd[0]) == 1:
            return self
        chosen = copy.copy(self)
        index = rows.cpu()
        chosen._svd = tuple(part[index] for part in self._svd)
        chosen._constants = Constants(chosen._parts)
        return chosen

    def _parts(self) -> tuple[Tensor, ...]:
        return self._svd

    def _check_count(self, images: Tensor) -> None:
        count = len(self._svd[0])
        if count not in (1, len(images)):
            raise UsageError(f"there are {count} matrices for {len(images)} images; pass 1 or one an image")

    def _basis(self, shape: Shape, like: Tensor) -> Basis:
        if shape != self.shape:
            raise UsageError(f"the matrix was made for images {self.shape}, not {shape}")
        self._check_count(like)
        u, values, v = self._constants.get((), like)
        # Rows on the left: (B, 1, 1, k) times (1|B, 1, k, n).
        u, v = u[:, None], v[:, None]
        return Basis(
            values,
            left=lambda z: (z @ u.mT).flatten(1),
            left_t=lambda y: y[:, None, None] @ u,
            right=lambda z: (z @ v.mT).reshape(-1, *shape),
            right_t=lambda x: x.reshape(len(x), 1, 1, -1) @ v,
        )
