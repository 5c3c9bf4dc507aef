"""Does a prior denoise? A look at a small random input, at three noise levels: finite values, and the noise found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..diffusion.rng import Streams, derive
from ..errors import PriorError, UsageError
from .base import Prior

NSRS = (0.1, 1.0, 10.0)
_SIDE = 64  # pixels, where the prior takes any size
_CORRELATED = 0.5


@dataclass(frozen=True)
class Level:
    """One noise level.

    Attributes:
        nsr: sigma / alpha.
        correlation: of the noise that the denoiser's answer implies with the noise that was added.
        size: standard deviation of the implied noise; that of the added noise is 1.
    """

    nsr: float
    correlation: float
    size: float


@dataclass(frozen=True)
class Check:
    """What `check` measured.

    Attributes:
        shape: of the denoiser's input.
        levels: from low noise to high.
        round_trip: PSNR in dB of decode(encode(picture)) on a smooth picture; None for pixel priors.
    """

    shape: tuple[int, ...]
    levels: tuple[Level, ...]
    round_trip: float | None

    @property
    def denoises(self) -> bool:
        """Whether the noise is found at every level: so does a trained network that is told the right levels."""
        return all(level.correlation > _CORRELATED and 0.5 < level.size < 2 for level in self.levels)


@torch.no_grad()
def check(prior: Prior, seed: int = 0) -> Check:
    """Denoise a smooth random picture with noise.

    Args:
        prior: any prior; one that needs a class is asked for class 0.
        seed: of picture and noise.

    Raises:
        PriorError: an answer has the wrong shape or is not finite.
    """
    picture = _picture(prior, seed)
    x_0 = prior.encode(picture)
    noise = Streams([derive("check", seed)], device=prior.device).normal(*x_0.shape[1:])
    condition = _condition(prior)
    levels = tuple(_level(prior, x_0, noise, nsr, condition) for nsr in NSRS)
    return Check(tuple(x_0.shape[1:]), levels, _round_trip(prior, picture, x_0) if prior.latent else None)


def _picture(prior: Prior, seed: int) -> Tensor:
    channels, *sides = prior.image_shape
    step = prior.image_multiple
    height, width = (side or step * max(1, -(-_SIDE // step)) for side in sides)
    coarse = Streams([derive("picture", seed)], device=prior.device).normal(channels, 4, 4)
    return F.interpolate(0.3 * coarse, size=(height, width), mode="bicubic", align_corners=False).clamp(-1, 1)


def _condition(prior: Prior) -> Mapping[str, Tensor]:
    try:
        return prior.condition()
    except UsageError:  # it knows its pictures by class only
        return prior.condition(label=0)


def _level(prior: Prior, x_0: Tensor, noise: Tensor, nsr: float, condition: Mapping[str, Tensor]) -> Level:
    low, high = prior.schedule.nsr_range
    nsr = min(max(nsr, low), high)
    t = prior.schedule.time_at(torch.tensor(nsr, dtype=torch.float64))
    alpha, sigma = float(prior.schedule.alpha(t)), float(prior.schedule.sigma(t))
    x_t = alpha * x_0 + sigma * noise
    answer = prior.denoise(x_t, t, condition)
    if answer.shape != x_t.shape:
        raise PriorError(f"the prior {prior.name} answers in the shape {tuple(answer.shape)}, not {tuple(x_t.shape)}.")
    if not bool(torch.isfinite(answer).all()):
        raise PriorError(f"the prior {prior.name} gives values that are not finite at sigma/alpha = {nsr:g}.")
    implied = (x_t - alpha * answer) / sigma
    correlation = torch.corrcoef(torch.stack([implied.flatten(), noise.flatten()]).double())[0, 1]
    return Level(nsr, float(correlation.nan_to_num()), float(implied.std()))


def _round_trip(prior: Prior, picture: Tensor, latent: Tensor) -> float:
    back = prior.decode(latent)
    if back.shape != picture.shape or not bool(torch.isfinite(back).all()):
        raise PriorError(f"the autoencoder of {prior.name} makes {tuple(back.shape)} of {tuple(picture.shape)}.")
    error = (back - picture).square().mean().clamp(min=1e-12)
    return float(10 * torch.log10(4 / error))
