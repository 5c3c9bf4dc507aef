"""Priors: what images look like, as a denoiser."""

from . import analytic
from .base import NFE, DenoiserPrior, Prior
from .cfg import Guided
from .network import NetworkPrior
from .tiled import AnySize

__all__ = ["NFE", "AnySize", "DenoiserPrior", "Guided", "NetworkPrior", "Prior", "analytic"]
