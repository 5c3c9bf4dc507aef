"""The EDM training loss (Karras et al. 2022, "Elucidating the design space of diffusion-based generative models").

D(x; sigma) = c_skip x + c_out F(c_in x; ln(sigma) / 4) and the loss is lambda(sigma) |D(x_0 + sigma n; sigma) - x_0|^2
with lambda = 1 / c_out^2, so that every noise level starts with a loss of about one (table 1 and equation 8 there).
A network that predicts D itself takes the same loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# F(c_in x, ln(sigma) / 4), and D(x, sigma), for pictures (N, C, H, W) and sigma (N,).
Network = Callable[[Tensor, Tensor], Tensor]
Denoise = Callable[[Tensor, Tensor], Tensor]


def edm_denoise(network: Network, x: Tensor, sigma: Tensor, sigma_data: float = 0.5) -> Tensor:
    """The denoised pictures D(x; sigma).

    Args:
        network: F(c_in x, c_noise).
        x: noisy pictures x_0 + sigma n, shape (N, C, H, W).
        sigma: noise levels > 0, shape (N,).
        sigma_data: standard deviation of clean pictures.
    """
    s = sigma[:, None, None, None]
    total = s**2 + sigma_data**2
    raw = network(x * total.rsqrt(), sigma.log() / 4)
    return x * (sigma_data**2 / total) + raw.to(x.dtype) * (s * sigma_data * total.rsqrt())


@dataclass(frozen=True)
class NoiseLevels:
    """ln sigma ~ N(mean, std^2), clamped to [ln sigma_min, ln sigma_max]."""

    mean: float = -1.2
    std: float = 1.3
    sigma_min: float = 0.01
    sigma_max: float = 8.0

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Noise levels, shape (count,), on the generator's device."""
        normal = torch.randn(count, generator=generator, device=generator.device)
        return (self.mean + self.std * normal).clamp(math.log(self.sigma_min), math.log(self.sigma_max)).exp()


def edm_loss(denoise: Denoise, x_0: Tensor, sigma: Tensor, noise: Tensor, sigma_data: float = 0.5) -> Tensor:
    """The weighted loss of each picture, shape (N,).

    Args:
        denoise: D(x; sigma).
        x_0: clean pictures in [-1, 1], shape (N, C, H, W).
        sigma: noise levels, shape (N,).
        noise: standard normal, shape (N, C, H, W).
    """
    x = x_0 + sigma[:, None, None, None] * noise
    error = (denoise(x, sigma).to(x_0.dtype) - x_0).square().mean((1, 2, 3))
    return error * (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2


class Balance:
    """The running mean of the loss at each noise level, so that every level can have the same say.

    Args:
        levels: range of the noise levels.
        bins: number of bins, even in ln sigma.
        rate: share of a new loss in the running mean of its bin.
    """

    def __init__(self, levels: NoiseLevels, bins: int = 40, rate: float = 0.02) -> None:
        self.low, self.high = math.log(levels.sigma_min), math.log(levels.sigma_max)
        self.rate = rate
        self.means = torch.ones(bins)

    def weigh(self, losses: Tensor, sigma: Tensor) -> Tensor:
        """Losses divided by the running mean of their bin, shape (N,); the means then take the new losses in."""
        self.means = self.means.to(losses.device)
        position = (sigma.log() - self.low) / (self.high - self.low) * (len(self.means) - 1)
        index = position.round().long().clamp(0, len(self.means) - 1)
        weighed = losses / self.means[index]
        count = torch.zeros_like(self.means).index_add_(0, index, torch.ones_like(losses))
        total = torch.zeros_like(self.means).index_add_(0, index, losses.detach())
        share = 1 - (1 - self.rate) ** count
        self.means = self.means + share * (total / count.clamp(min=1) - self.means)
        return weighed
