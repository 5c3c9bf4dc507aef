"""Twisted sequential Monte Carlo."""

from .solver import SMC

__all__ = ["SMC"]
