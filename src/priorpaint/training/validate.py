"""What a network under training can do: denoising PSNR on held-out pictures, and a sheet of pictures to look at."""

from __future__ import annotations

from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor

# D(x_0 + sigma n, sigma) for pictures (N, C, H, W) and sigma (N,).
Denoise = Callable[[Tensor, Tensor], Tensor]

LEVELS = (15, 25, 50, 75, 100)
SHEET_SIGMAS = (0.25, 1.0, 3.0)
COLUMNS = 6
_CHUNK = 8
_SEED = 1


@torch.no_grad()
def denoise_chunks(denoise: Denoise, x: Tensor, sigma: float) -> Tensor:
    """Denoise pictures of shape (N, C, H, W) at one noise level, a few at a time."""
    return torch.cat([denoise(part, part.new_full((len(part),), sigma)) for part in torch.split(x, _CHUNK)])


def denoising_psnr(denoise: Denoise, clean: Tensor, seed: int = _SEED) -> dict[str, float]:
    """Mean PSNR in dB of the denoised pictures for each noise level of `LEVELS` (standard deviation in 1/255).

    Args:
        clean: held-out pictures in [-1, 1], shape (N, C, H, W).
        seed: seed of the noise, the same in every call so that curves are smooth.
    """
    generator = torch.Generator().manual_seed(seed)
    result = {}
    for level in LEVELS:
        sigma = level / 127.5
        noise = torch.randn(clean.shape, generator=generator).to(clean.device)
        denoised = denoise_chunks(denoise, clean + sigma * noise, sigma).clamp(-1, 1)
        error = (denoised - clean).square().mean((1, 2, 3))
        result[str(level)] = float((10 * torch.log10(4 / error)).mean())
    return result


@torch.no_grad()
def heun_samples(denoise: Denoise, noise: Tensor, sigma_max: float, sigma_min: float, steps: int = 20) -> Tensor:
    """Unconditional samples by Heun's method on the probability-flow ODE (Karras et al. 2022, algorithm 1, rho = 7).

    Args:
        noise: standard normal, shape (N, C, H, W).
    """
    ramp = torch.linspace(0, 1, steps, device=noise.device)
    low, high = sigma_min ** (1 / 7), sigma_max ** (1 / 7)
    sigmas = [float(s) for s in (high + ramp * (low - high)) ** 7] + [0.0]
    x = sigmas[0] * noise
    for now, after in zip(sigmas[:-1], sigmas[1:], strict=True):
        slope = (x - denoise_chunks(denoise, x, now)) / now
        moved = x + (after - now) * slope
        if after > 0:
            slope = (slope + (moved - denoise_chunks(denoise, moved, after)) / after) / 2
            moved = x + (after - now) * slope
        x = moved
    return x


def sample_sheet(
    denoise: Denoise,
    clean: Tensor | None,
    shape: tuple[int, int, int],
    sigma_max: float,
    sigma_min: float,
    labelled: Denoise | None = None,
    columns: int = COLUMNS,
) -> Image.Image:
    """Rows of clean pictures, noisy and denoised at each of `SHEET_SIGMAS`, then samples.

    Args:
        clean: held-out pictures in [-1, 1], shape (N, C, H, W), or None for samples only.
        shape: (C, H, W) of the samples.
        labelled: a denoiser whose i-th row is told class i, for a further row of samples.
    """
    device = "cpu" if clean is None else clean.device
    generator = torch.Generator().manual_seed(_SEED)
    rows: list[Tensor] = []
    if clean is not None:
        chosen = clean[:: max(1, len(clean) // columns)][:columns]
        rows.append(chosen)
        for sigma in SHEET_SIGMAS:
            noisy = chosen + sigma * torch.randn(chosen.shape, generator=generator).to(device)
            rows += [noisy, denoise_chunks(denoise, noisy, sigma)]
    noise = torch.randn((columns, *shape), generator=generator).to(device)
    rows += [heun_samples(each, noise, sigma_max, sigma_min) for each in (denoise, labelled) if each is not None]
    return _sheet(rows)


def _sheet(rows: list[Tensor], gap: int = 2) -> Image.Image:
    strips = [_strip(row, gap) for row in rows]
    sheet = Image.new("RGB", (max(s.width for s in strips), sum(s.height + gap for s in strips) - gap), "white")
    top = 0
    for strip in strips:
        sheet.paste(strip, (0, top))
        top += strip.height + gap
    return sheet


def _strip(row: Tensor, gap: int) -> Image.Image:
    pixels = ((row.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu().permute(0, 2, 3, 1)
    height, width = pixels.shape[1:3]
    strip = Image.new("RGB", (len(row) * (width + gap) - gap, height), "white")
    for index, picture in enumerate(pixels):
        strip.paste(Image.fromarray(picture.expand(-1, -1, 3).numpy()), (index * (width + gap), 0))
    return strip
