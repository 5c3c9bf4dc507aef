"""Priors: what images look like, as a denoiser."""

from . import analytic
from .base import DenoiserPrior, Prior
from .cfg import CFGPrior
from .classifier_guidance import ClassifierGuidedPrior
from .info import NFE
from .network import NetworkPrior
from .tiled import TiledPrior

__all__ = [
    "NFE",
    "TiledPrior",
    "DenoiserPrior",
    "CFGPrior",
    "ClassifierGuidedPrior",
    "NetworkPrior",
    "Prior",
    "analytic",
]
