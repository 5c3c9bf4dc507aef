"""How close two pictures are: PSNR, SSIM and LPIPS, each one number a picture."""

from .lpips import LPIPS
from .psnr import psnr
from .ssim import ssim

__all__ = ["LPIPS", "psnr", "ssim"]
