"""How close two pictures are (PSNR, SSIM and LPIPS, each one number a picture), and two sets (Frechet distance)."""

from .frechet import FeatureGaussian, frechet_distance
from .lpips import LPIPS
from .psnr import psnr
from .ssim import ssim

__all__ = ["LPIPS", "FeatureGaussian", "frechet_distance", "psnr", "ssim"]
