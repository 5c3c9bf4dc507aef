"""Denoising: the prior against FFDNet, on the same noisy pictures."""

from __future__ import annotations

from collections.abc import Callable

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from benchmarks.baselines import FFDNet
from benchmarks.photos.pictures import Photo
from benchmarks.photos.table import Table
from priorpaint.diffusion.rng import derive
from priorpaint.metrics import psnr
from priorpaint.priors.base import Prior

BYTE_SIGMAS = (15, 25, 50, 75, 100)
UNIT_SIGMAS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)
KEY = ("picture", "sigma", "method")


@torch.no_grad()
def prior_denoise(prior: Prior, x: Tensor, sigma: float, noise: Tensor) -> Tensor:
    """E[x_0 | x + sigma noise] of the prior, for any schedule."""
    t = prior.schedule.time_at(torch.tensor([sigma], dtype=torch.float64))
    scale = prior.schedule.alpha(t).to(x).view(-1, 1, 1, 1)
    return prior.denoise((scale * (x + sigma * noise)).to(prior.device), t).cpu()


@torch.no_grad()
def ffdnet_denoise(net: FFDNet, x: Tensor, sigma: float, noise: Tensor) -> Tensor:
    """The same for FFDNet, which works on [0, 1]."""
    clean: Tensor = net((x + sigma * noise + 1) / 2, sigma / 2)
    return 2 * clean - 1


def clamped_psnr(estimate: Tensor, x: Tensor) -> float:
    """PSNR in dB of a result, clamped to [-1, 1] and not rounded."""
    return float(psnr(estimate.clamp(-1, 1), x))


def measure(photos: list[Photo], prior: Prior | None, ffdnet: FFDNet, seed: int, table: Table) -> None:
    """PSNR of each picture at each noise level, in dB; ``sigma`` is in units of [-1, 1]. Saved after each picture."""
    trained = [level / 127.5 for level in BYTE_SIGMAS]
    for photo in track(photos, "denoising", console=Console(stderr=True)):
        for sigma in (*trained, *(UNIT_SIGMAS if prior is not None else ())):
            generator = torch.Generator().manual_seed(derive("denoise", seed, photo.name, round(1e6 * sigma)))
            noise = torch.randn(photo.x.shape, generator=generator)
            asked = _asked(photo.x, sigma, noise, prior, ffdnet if sigma in trained else None)
            for method, measured in asked.items():
                place = {"picture": photo.name, "sigma": sigma, "method": method}
                if place not in table:
                    table.add(place | {"psnr": measured()})
        table.save()


def _asked(
    x: Tensor, sigma: float, noise: Tensor, prior: Prior | None, ffdnet: FFDNet | None
) -> dict[str, Callable[[], float]]:
    """What gives the PSNR of each method."""
    asked: dict[str, Callable[[], float]] = {"noisy": lambda: float(psnr(x + sigma * noise, x))}
    if ffdnet is not None:
        asked["ffdnet"] = lambda: clamped_psnr(ffdnet_denoise(ffdnet, x, sigma, noise), x)
    if prior is not None:
        asked["prior"] = lambda: clamped_psnr(prior_denoise(prior, x, sigma, noise), x)
    return asked
