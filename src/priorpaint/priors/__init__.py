"""Priors: what images look like, as a denoiser."""

from . import analytic
from .base import NFE, DenoiserPrior, Prior
from .cfg import CFGPrior
from .network import NetworkPrior
from .tiled import TiledPrior

__all__ = ["NFE", "CFGPrior", "DenoiserPrior", "NetworkPrior", "Prior", "TiledPrior", "analytic"]
