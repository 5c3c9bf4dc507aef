"""Blur by any kernel, and by motion along a line: circular convolutions, diagonal in the Fourier basis."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import UsageError
from .spectral import Basis, Constants, Shape, SpectralOperator, check_rtol, without_small


class Blur(SpectralOperator, name="blur"):
    """Circular convolution with a kernel, the same in every channel: the image goes on at its opposite border.

    Frequencies that the kernel damps below ``rtol`` are deleted for good, as in `GaussianBlur`: A itself is without
    them, and differs from the exact convolution by at most rtol times the length of the image.

    Args:
        kernel: (h, w) numbers >= 0, of which (h // 2, w // 2) is the centre; divided by their sum here. A kernel larger
            than the image wraps around.
        rtol: singular values below it (the largest is 1) count as 0; A^+ amplifies noise by at most 1 / rtol.

    Raises:
        UsageError: a kernel with another number of axes, with negative or no positive weights, or a bad ``rtol``.
    """

    title: ClassVar[str] = "blur by any kernel, circular"

    def __init__(self, kernel: Tensor, rtol: float = 0.01) -> None:
        weights = torch.as_tensor(kernel).detach().to(device="cpu", dtype=torch.float64)
        if weights.ndim != 2:
            raise UsageError(f"a blur kernel has 2 axes (h, w), not {weights.ndim}")
        if not bool((weights >= 0).all()) or not 0 < float(weights.sum()) < math.inf:
            raise UsageError("a blur kernel has finite weights >= 0, not all of them 0")
        self.kernel = weights / weights.sum()
        self.rtol = check_rtol(rtol)
        self._constants = Constants(self._spectrum)

    def norm(self) -> float:
        """1: a constant image is kept, and weights >= 0 that sum to 1 amplify nothing."""
        return 1.0

    def _spectrum(self, height: int, width: int) -> tuple[Tensor, ...]:
        """Phase (H, W // 2 + 1) and size (1, 1, H, W // 2 + 1) of the kernel's Fourier transform."""
        h, w = self.kernel.shape
        rows = (torch.arange(h) - h // 2) % height
        columns = (torch.arange(w) - w // 2) % width
        wrapped = torch.zeros(height, width, dtype=torch.float64)
        wrapped.index_put_((rows[:, None], columns[None, :]), self.kernel, accumulate=True)
        spectrum = torch.fft.rfft2(wrapped)
        phase = torch.polar(torch.ones_like(spectrum.real), spectrum.angle())
        return phase, without_small(spectrum.abs(), self.rtol)[None, None]

    def _basis(self, shape: Shape, like: Tensor) -> Basis:
        """U = F^* phase and V = F^*, with the unitary Fourier transform F; both are real between real images."""
        size = shape[1:]
        phase, values = self._constants.get(size, like)

        def forward(image: Tensor) -> Tensor:
            spectrum: Tensor = torch.fft.rfft2(image, norm="ortho")
            return spectrum

        def backward(z: Tensor) -> Tensor:
            image: Tensor = torch.fft.irfft2(z, s=size, norm="ortho")
            return image

        return Basis(
            values,
            left=lambda z: backward(phase * z),
            left_t=lambda y: phase.conj() * forward(y),
            right=backward,
            right_t=forward,
        )


class MotionBlur(Blur, name="motion_blur"):
    """The camera moved along a line during the exposure; circular at the border, see `Blur`.

    The weight of a pixel is the length of the line inside it, so 5 pixels at angle 0 weigh 1/5 each.

    Args:
        length: length of the line in pixels, > 0.
        angle: direction in degrees, counter-clockwise from the horizontal as one looks at the picture.
        rtol: see `Blur`.

    Raises:
        UsageError: an argument out of range.
    """

    title: ClassVar[str] = "motion blur along a line, circular"

    def __init__(self, length: float = 9.0, angle: float = 0.0, rtol: float = 0.01) -> None:
        if not 0 < length < math.inf:
            raise UsageError(f"length is how far the camera moved, in pixels; pass a number > 0, not {length}")
        if not math.isfinite(angle):
            raise UsageError(f"angle is a direction in degrees, not {angle}")
        self.length, self.angle = float(length), float(angle)
        super().__init__(line_kernel(self.length, self.angle), rtol)


def line_kernel(length: float, angle: float) -> Tensor:
    """Share of a centred line of ``length`` pixels at ``angle`` degrees in each pixel, (h, w) float64, odd sides."""
    across = length * math.cos(math.radians(angle))
    down = -length * math.sin(math.radians(angle))  # rows count downwards
    radius = max(math.ceil((length - 1) / 2), 0)
    edges = torch.arange(-radius, radius, dtype=torch.float64) + 0.5
    # The line is (across, down) * u for u in [-1/2, 1/2]; cut it where it crosses the edges of pixels.
    cuts = [edges / step for step in (across, down) if abs(step) > 1e-9]
    ends = torch.tensor([-0.5, 0.5], dtype=torch.float64)
    u = torch.cat([*cuts, ends]).clamp(-0.5, 0.5).sort().values
    middle = (u[1:] + u[:-1]) / 2
    kernel = torch.zeros(2 * radius + 1, 2 * radius + 1, dtype=torch.float64)
    index = ((middle * down).round().long() + radius, (middle * across).round().long() + radius)
    return kernel.index_put_(index, u.diff(), accumulate=True)
