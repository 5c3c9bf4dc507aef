"""Priors: what images look like, as a denoiser."""

from . import analytic
from .base import NFE, DenoiserPrior, Prior
from .network import NetworkPrior

__all__ = ["NFE", "DenoiserPrior", "NetworkPrior", "Prior", "analytic"]
