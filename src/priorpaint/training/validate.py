"""What a network under training can do: denoising PSNR on held-out pictures, and a sheet of pictures to look at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from PIL import Image
from torch import Tensor

from priorpaint.diffusion.rng import Streams
from priorpaint.diffusion.samplers import Heun
from priorpaint.diffusion.schedules import EDM
from priorpaint.imaging.grids import picture_rows, to_pixels
from priorpaint.priors.base import DenoiserPrior

# D(x_0 + sigma n, sigma) for pictures (N, C, H, W) and sigma (N,).
Denoise = Callable[[Tensor, Tensor], Tensor]

LEVELS = (15, 25, 50, 75, 100, 200, 400, 1000)
LATENT_LEVELS = (0.25, 0.5, 1.0, 2.0, 4.0)
SHEET_SIGMAS = (0.25, 1.0, 3.0)  # where the standard deviation of clean pictures is 0.5
COLUMNS = 6
_CHUNK = 8
_GAP = 2
_ROWS = 32
_SEED = 1


@torch.no_grad()
def in_chunks(call: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """``call`` on rows (N, ...), some at a time, without gradients."""
    return torch.cat([call(part) for part in torch.split(x, _ROWS)])


@torch.no_grad()
def denoise_chunks(denoise: Denoise, x: Tensor, sigma: float) -> Tensor:
    """Denoise pictures of shape (N, C, H, W) at one noise level, a few at a time."""
    return torch.cat([denoise(part, part.new_full((len(part),), sigma)) for part in torch.split(x, _CHUNK)])


def psnr(picture: Tensor, clean: Tensor, peak: float = 2.0) -> float:
    """Mean over pictures (N, C, H, W) of 10 log10 of peak^2 over their mean squared error, in dB."""
    error = (picture - clean).square().mean((1, 2, 3))
    return float((10 * torch.log10(peak**2 / error)).mean())


def denoising_psnr(denoise: Denoise, clean: Tensor, sigma_max: float, seed: int = _SEED) -> dict[str, float]:
    """Mean PSNR in dB of the denoised pictures for each noise level of `LEVELS` (standard deviation in 1/255).

    Args:
        clean: held-out pictures in [-1, 1], shape (N, C, H, W).
        sigma_max: largest sigma of the training; levels above half of it are left out.
        seed: seed of the noise, the same in every call so that curves are smooth.
    """
    levels = [level for level in LEVELS if level / 127.5 <= sigma_max / 2]
    denoised = _denoised(denoise, clean, [level / 127.5 for level in levels], seed)
    return {str(level): psnr(each.clamp(-1, 1), clean) for level, each in zip(levels, denoised, strict=True)}


def latent_psnr(denoise: Denoise, clean: Tensor, seed: int = _SEED) -> dict[str, float]:
    """Of denoised latents, for each noise level of `LATENT_LEVELS`: the ratio, in dB, of their variance, which is about
    1, to the mean squared error. Answering 0 whatever the noise has 0 dB.

    Args:
        clean: latents of held-out pictures, shape (N, C, H, W).
        seed: as for `denoising_psnr`.
    """
    denoised = _denoised(denoise, clean, LATENT_LEVELS, seed)
    return {str(level): psnr(each, clean, peak=1.0) for level, each in zip(LATENT_LEVELS, denoised, strict=True)}


def _denoised(denoise: Denoise, clean: Tensor, sigmas: Sequence[float], seed: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    for sigma in sigmas:
        noise = torch.randn(clean.shape, generator=generator).to(clean.device)
        yield denoise_chunks(denoise, clean + sigma * noise, sigma)


@torch.no_grad()
def unconditional(denoise: Denoise, noise: Tensor, levels: tuple[float, float], data_std: float) -> Tensor:
    """Samples by 20 Heun steps between the levels (sigma_min, sigma_max), from standard normal noise (N, C, H, W)."""
    schedule = EDM(*levels)

    def call(x_t: Tensor, t: Tensor) -> Tensor:
        return denoise_chunks(denoise, x_t, float(schedule.sigma(t[0])))

    channels, height, width = noise.shape[1:]
    prior = DenoiserPrior(call, schedule, (channels, height, width), data_std=data_std)
    return Heun(20)(prior, prior.initial_about_mean(noise), Streams(range(len(noise))))


def sample_sheet(
    denoise: Denoise,
    clean: Tensor | None,
    shape: tuple[int, ...],
    levels: tuple[float, float],
    *,
    labelled: Denoise | None = None,
    show: Callable[[Tensor], Tensor] = lambda rows: rows,
    data_std: float = 0.5,
) -> Image.Image:
    """Rows of clean pictures, noisy and denoised at each of `SHEET_SIGMAS`, then samples.

    Args:
        clean: at most `COLUMNS` held-out pictures in [-1, 1], or latents, shape (N, C, H, W); None for samples only.
        shape: (C, H, W) of the samples.
        levels: (sigma_min, sigma_max) of the samples.
        labelled: a denoiser whose i-th row is told class i, for a further row of samples.
        show: makes pictures of latents.
        data_std: standard deviation of clean pictures or latents, which noise is added in proportion to.
    """
    device = "cpu" if clean is None else clean.device
    generator = torch.Generator().manual_seed(_SEED)
    rows: list[Tensor] = []
    if clean is not None:
        rows.append(clean)
        for sigma in (2 * data_std * each for each in SHEET_SIGMAS):
            noisy = clean + sigma * torch.randn(clean.shape, generator=generator).to(device)
            rows += [noisy, denoise_chunks(denoise, noisy, sigma)]
    noise = torch.randn((COLUMNS, *shape), generator=generator).to(device)
    rows += [unconditional(each, noise, levels, data_std) for each in (denoise, labelled) if each is not None]
    return picture_sheet([show(row) for row in rows])


def picture_sheet(rows: list[Tensor]) -> Image.Image:
    """Rows of pictures (N, C, H, W) in [-1, 1]."""
    return picture_rows([to_pixels(row) for row in rows], gap=_GAP)
