"""Measurements y = A x + sigma_y n."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

OPERATORS: dict[str, type[Operator]] = {}
"""Every operator by name, in their order, filled by the classes: ``class Blur(LinearOperator, name="blur")``."""


class Operator(ABC):
    """A differentiable map from images x (B, C, H, W) to measurements y (B, ...).

    An operator may hold parameters for each image of a batch (masks, kernels); ``select`` picks those of some rows.
    A class with a name is registered in ``OPERATORS``; one without is not.

    Class attributes:
        name: its key in ``OPERATORS``, or the class's own name.
        title: one line for lists; an operator with a name has one.
    """

    name: ClassVar[str]
    title: ClassVar[str]

    def __init_subclass__(cls, *, name: str | None = None, **rest: Any) -> None:
        super().__init_subclass__(**rest)
        cls.name = name or cls.__name__
        if name is not None:
            OPERATORS[name] = cls
            for key in sorted(OPERATORS):  # whatever the order of the imports
                OPERATORS[key] = OPERATORS.pop(key)

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """A x: (B, C, H, W) -> (B, ...)."""

    @abstractmethod
    def image_shape(self, y: Tensor) -> tuple[int, int, int]:
        """(C, H, W) of the images that y (B, ...) measures.

        Raises:
            UsageError: y does not fit the operator.
        """

    @abstractmethod
    def guess(self, y: Tensor) -> Tensor:
        """A cheap image (B, C, H, W) that roughly explains y (B, ...), for methods that need a start."""

    def project(self, x: Tensor, y: Tensor) -> Tensor:
        """The image nearest to x (B, C, H, W) that agrees with y, where that is cheap; x itself where it is not."""
        return x

    def measured(self, y: Tensor) -> Tensor:
        """y with entries that carry no information (pixels off a mask) set to 0."""
        return y

    def select(self, rows: Tensor) -> Self:
        """The operator of the images ``rows`` (N,) of the batch; itself where all images share it."""
        return self

    def to(self, device: torch.device) -> Self:
        """The same operator on a device."""
        return self


class LinearOperator(Operator):
    """A linear map, with what the singular value decomposition A = U S V^T gives."""

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
    def filter(self, x: Tensor, gain: Callable[[Tensor], Tensor]) -> Tensor:
        """V gain(S) V^T x for x (B, C, H, W): each right singular direction scaled by a function of its singular value.

        ``gain`` maps singular values >= 0, (1|B, ., ., .), to numbers of that shape, or with one number an image
        (B, 1, 1, 1) to what the two broadcast to; directions that A does not see have the value 0. With it, methods
        written in the singular basis stay in image space.
        """

    @abstractmethod
    def norm(self) -> float:
        """The largest singular value (over all images of the batch)."""

    def guess(self, y: Tensor) -> Tensor:
        return self.pinv(y)

    def project(self, x: Tensor, y: Tensor) -> Tensor:
        """The image nearest to x (B, C, H, W) with A x = y: x + A^+ (y - A x)."""
        return x + self.pinv(y - self(x))
