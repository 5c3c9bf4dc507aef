"""Priors: what images look like, as a denoiser."""

from . import analytic
from .anysize import AnySize
from .base import NFE, DenoiserPrior, Prior
from .guided import Guided
from .network import NetworkPrior

__all__ = ["NFE", "AnySize", "DenoiserPrior", "Guided", "NetworkPrior", "Prior", "analytic"]
