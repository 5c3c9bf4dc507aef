"""What a network under training can do: denoising PSNR on held-out pictures, and a sheet of pictures to look at."""

from __future__ import annotations

from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor

from priorpaint.diffusion.rng import Streams
from priorpaint.diffusion.samplers import Heun
from priorpaint.diffusion.schedules import EDM
from priorpaint.imaging.grids import picture_rows, to_pixels
from priorpaint.metrics.psnr import psnr
from priorpaint.priors.base import DenoiserPrior

# D(x_0 + sigma n, sigma) for pictures (N, C, H, W) and sigma (N,).
Denoise = Callable[[Tensor, Tensor], Tensor]

LEVELS = (15, 25, 50, 75, 100, 200, 400, 1000)
LATENT_LEVELS = (0.25, 0.5, 1.0, 2.0, 4.0)
COLUMNS = 6
_CHUNK = 8
_GAP = 2
SEED = 1


@torch.no_grad()
def in_chunks(call: Callable[[Tensor], Tensor], x: Tensor, size: int = 32) -> Tensor:
    """``call`` on rows (N, ...), ``size`` at a time, without gradients."""
    return torch.cat([call(part) for part in torch.split(x, size)])


def denoise_chunks(denoise: Denoise, x: Tensor, sigma: float) -> Tensor:
    """Denoise pictures of shape (N, C, H, W) at one noise level, a few at a time."""
    return in_chunks(lambda part: denoise(part, part.new_full((len(part),), sigma)), x, _CHUNK)


def denoising_psnr(denoise: Denoise, clean: Tensor, sigma_max: float) -> dict[str, float]:
    """Mean PSNR in dB of the denoised pictures for each noise level of `LEVELS` (standard deviation in 1/255).

    Args:
        clean: held-out pictures in [-1, 1], shape (N, C, H, W).
        sigma_max: largest sigma of the training; levels above half of it are left out.
    """
    levels = {str(level): level / 127.5 for level in LEVELS if level / 127.5 <= sigma_max / 2}
    return _by_level(lambda x, sigma: denoise(x, sigma).clamp(-1, 1), clean, levels, peak=2.0)


def latent_psnr(denoise: Denoise, clean: Tensor) -> dict[str, float]:
    """Of denoised latents, for each noise level of `LATENT_LEVELS`: the ratio, in dB, of their variance, which is about
    1, to the mean squared error. Answering 0 whatever the noise has 0 dB.

    Args:
        clean: latents of held-out pictures, shape (N, C, H, W).
    """
    return _by_level(denoise, clean, {str(level): level for level in LATENT_LEVELS}, peak=1.0)


def _by_level(denoise: Denoise, clean: Tensor, levels: dict[str, float], peak: float) -> dict[str, float]:
    generator = torch.Generator().manual_seed(SEED)  # the same noise in every call, so that curves are smooth
    out = {}
    for name, sigma in levels.items():
        noise = torch.randn(clean.shape, generator=generator).to(clean.device)
        denoised = denoise_chunks(denoise, clean + sigma * noise, sigma)
        out[name] = float(psnr(denoised, clean, peak=peak).mean())
    return out


@torch.no_grad()
def unconditional(denoise: Denoise, noise: Tensor, levels: tuple[float, float], data_std: float) -> Tensor:
    """Samples by 20 Heun steps between the levels (sigma_min, sigma_max), from standard normal noise (N, C, H, W)."""
    schedule = EDM(*levels)

    def call(x_t: Tensor, t: Tensor) -> Tensor:
        return denoise_chunks(denoise, x_t, float(schedule.sigma(t[0])))

    channels, height, width = noise.shape[1:]
    prior = DenoiserPrior(call, schedule, (channels, height, width), data_std=data_std)
    return Heun(20)(prior, prior.initial_about_mean(noise), Streams(range(len(noise))))


def picture_sheet(rows: list[Tensor]) -> Image.Image:
    """Rows of pictures (N, C, H, W) in [-1, 1]."""
    return picture_rows([to_pixels(row) for row in rows], gap=_GAP)
