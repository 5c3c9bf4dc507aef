"""Operators whose singular value decomposition is known: everything else follows from it once, here."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import UsageError
from .base import LinearOperator

Map = Callable[[Tensor], Tensor]
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Basis:
    """A = U S V^T for images of one size, as fast maps between images x, measurements y and coefficients z.

    Attributes:
        values: S >= 0, (1|B, ., ., .), to be broadcast against z (B, ., ., .).
        left: U z, with U square and orthogonal.
        left_t: U^T y.
        right: V z; V has as many columns as U, orthonormal where s > 0, and any other or 0 where s = 0.
        right_t: V^T x.
    """

    values: Tensor
    left: Map
    left_t: Map
    right: Map
    right_t: Map


class Constants:
    """float64 tensors that depend on a key (a size), built once a key and cast once a dtype and device.

    Args:
        build: key -> tensors, real float64 or complex128, on the CPU.
    """

    def __init__(self, build: Callable[..., tuple[Tensor, ...]]) -> None:
        self._build = build
        self._cast: dict[Hashable, tuple[Tensor, ...]] = {}

    def get(self, key: tuple[int, ...], like: Tensor) -> tuple[Tensor, ...]:
        """The tensors of ``build(*key)`` in the precision and on the device of ``like``."""
        entry = (key, like.dtype, like.device)
        if entry not in self._cast:
            # Tensors made in inference mode could not take part in a gradient later.
            with torch.inference_mode(False), torch.no_grad():
                exact = like.new_empty(0, dtype=torch.float64, device="cpu")
                source = self._build(*key) if like.dtype == torch.float64 else self.get(key, exact)
                self._cast[entry] = tuple(_cast(tensor, like) for tensor in source)
        return self._cast[entry]


def _cast(tensor: Tensor, like: Tensor) -> Tensor:
    dtype = like.dtype.to_complex() if tensor.is_complex() else like.dtype
    return tensor.to(dtype).to(like.device)  # in this order: not every device has float64


class SpectralOperator(LinearOperator):
    """A linear operator that knows U, S and V for every size of image; inputs are float32 or float64."""

    @abstractmethod
    def _basis(self, shape: Shape, like: Tensor) -> Basis:
        """The decomposition for images (C, H, W), in the dtype and on the device of ``like`` (B, ...).

        Raises:
            UsageError: the operator cannot measure images of this shape.
        """

    def image_shape(self, y: Tensor) -> Shape:
        return image_shape(y)

    def __call__(self, x: Tensor) -> Tensor:
        basis = self._of_image(x)
        return basis.left(basis.values * basis.right_t(x))

    def adjoint(self, y: Tensor) -> Tensor:
        basis = self._of_measurement(y)
        return basis.right(basis.values * basis.left_t(y))

    def pinv(self, y: Tensor) -> Tensor:
        basis = self._of_measurement(y)
        return basis.right(_inverse(basis.values) * basis.left_t(y))

    def solve(self, r: Tensor, c: float | Tensor) -> Tensor:
        basis = self._of_measurement(r)
        added = torch.as_tensor(c, dtype=r.dtype, device=r.device).reshape(-1, 1, 1, 1)
        return basis.left(_inverse(basis.values.square() + added) * basis.left_t(r))

    def filter(self, x: Tensor, gain: Callable[[Tensor], Tensor]) -> Tensor:
        basis = self._of_image(x)
        unseen = gain(torch.zeros(1, 1, 1, 1, dtype=x.dtype, device=x.device))
        return unseen * x + basis.right((gain(basis.values) - unseen) * basis.right_t(x))

    def _of_image(self, x: Tensor) -> Basis:
        return self._basis(image_shape(x), check_floats(x))

    def _of_measurement(self, y: Tensor) -> Basis:
        return self._basis(self.image_shape(y), check_floats(y))


def check_floats(values: Tensor) -> Tensor:
    """The tensor itself.

    Raises:
        UsageError: it is neither float32 nor float64.
    """
    if values.dtype not in (torch.float32, torch.float64):
        raise UsageError(f"an operator works in float32 or float64, not {values.dtype}; convert the image first")
    return values


def _inverse(values: Tensor) -> Tensor:
    """1 / values where they are positive, else 0."""
    return torch.where(values > 0, 1 / values.clamp(min=torch.finfo(values.dtype).tiny), 0)


def without_small(values: Tensor, rtol: float) -> Tensor:
    """Singular values (..., any axes), with those below ``rtol`` times the largest set to 0."""
    return torch.where(values >= rtol * values.amax(), values, 0)


def check_rtol(rtol: float) -> float:
    """``rtol`` if it lies in (0, 1).

    Raises:
        UsageError: it does not.
    """
    if not 0 < rtol < 1:
        raise UsageError(f"rtol is the relative size below which singular values are 0; pass one in (0, 1), not {rtol}")
    return rtol


def image_shape(images: Tensor) -> Shape:
    """(C, H, W) of images (B, C, H, W).

    Raises:
        UsageError: another number of axes.
    """
    if images.ndim != 4:
        raise UsageError(f"images have 4 axes (B, C, H, W), and this tensor has the shape {tuple(images.shape)}")
    return int(images.shape[1]), int(images.shape[2]), int(images.shape[3])
