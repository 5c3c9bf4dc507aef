"""How close are pictures (PSNR, SSIM, LPIPS), samples and their truth (CRPS, calibration), sets (Frechet, KID)?"""

from .calibration import Calibration, calibration
from .crps import fair_crps, fair_energy_score
from .frechet import FeatureGaussian, frechet_distance
from .kid import kid
from .lpips import LPIPS
from .psnr import psnr
from .ssim import ssim

__all__ = [
    "LPIPS",
    "Calibration",
    "FeatureGaussian",
    "calibration",
    "fair_crps",
    "fair_energy_score",
    "frechet_distance",
    "kid",
    "psnr",
    "ssim",
]
