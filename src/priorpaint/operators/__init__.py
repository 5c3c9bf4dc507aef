"""Measurement operators: y = A x + sigma_y n."""

from .base import LinearOperator, Operator
from .inpainting import Inpainting

__all__ = ["Inpainting", "LinearOperator", "Operator"]
