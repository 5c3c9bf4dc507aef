"""Measurement operators: y = A x + sigma_y n. A new one is one file and its import here; its class registers itself."""

from __future__ import annotations

from .base import OPERATORS, LinearOperator, Operator
from .blur import Blur, MotionBlur
from .colour import Grayscale
from .compressed import RandomPixels, WalshHadamard
from .inpainting import Inpainting
from .jpeg import JPEG
from .matrix import MatrixOperator
from .registry import operator, settings_of
from .separable import Downsampling, GaussianBlur

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
    "operator",
    "settings_of",
]
