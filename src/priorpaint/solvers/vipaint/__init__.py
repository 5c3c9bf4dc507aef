"""VIPaint: hierarchical variational inference (Agarwal et al. 2024)."""

from .solver import VIPaint

__all__ = ["VIPaint"]
