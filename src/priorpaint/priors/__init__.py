"""Priors: what images look like, as a denoiser."""

from . import analytic
from .base import DenoiserPrior, Prior
from .cfg import CFGPrior
from .info import NFE
from .network import NetworkPrior
from .tiled import TiledPrior

__all__ = [
    "NFE",
    "TiledPrior",
    "DenoiserPrior",
    "CFGPrior",
    "NetworkPrior",
    "Prior",
    "analytic",
]
