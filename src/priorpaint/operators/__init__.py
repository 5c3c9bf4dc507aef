"""Measurement operators: y = A x + sigma_y n. A new one is one class and one line here."""

from __future__ import annotations

from .base import LinearOperator, Operator
from .blur import Blur, MotionBlur
from .colour import Grayscale
from .compressed import RandomPixels, WalshHadamard
from .inpainting import Inpainting
from .jpeg import JPEG
from .matrix import MatrixOperator
from .separable import Downsampling, GaussianBlur

OPERATORS: dict[str, type[Operator]] = {
    "blur": Blur,
    "downsampling": Downsampling,
    "gaussian_blur": GaussianBlur,
    "grayscale": Grayscale,
    "inpainting": Inpainting,
    "jpeg": JPEG,
    "matrix": MatrixOperator,
    "motion_blur": MotionBlur,
    "random_pixels": RandomPixels,
    "walsh_hadamard": WalshHadamard,
}
"""Every operator by name; ``title`` of a class is its line in a list."""

__all__ = [
    "JPEG",
    "OPERATORS",
    "Blur",
    "Downsampling",
    "GaussianBlur",
    "Grayscale",
    "Inpainting",
    "LinearOperator",
    "MatrixOperator",
    "MotionBlur",
    "Operator",
    "RandomPixels",
    "WalshHadamard",
]
