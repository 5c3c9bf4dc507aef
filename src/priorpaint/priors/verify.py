"""Does a prior denoise? A look at a picture with noise of three levels: finite values, and the noise found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..diffusion.rng import Streams, derive
from ..diffusion.samplers import DDIM
from ..errors import PriorError, UsageError
from .base import Prior
from .cfg import CFGPrior
from .loading import PRIORS

FIGURES = "verify"  # entry of what `priorpaint train` writes about a training
NSRS = (0.1, 1.0, 10.0)
_SIDE = 64  # pixels, where the prior takes any size
_CORRELATED = 0.5
_STEPS = 5
_BLANK = 0.01


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
        round_trip: PSNR in dB of decode(encode(picture)); None for pixel priors.
        own: whether the noise was on a sample of the prior, because it was not found on a smooth random picture.
    """

    shape: tuple[int, ...]
    levels: tuple[Level, ...]
    round_trip: float | None
    own: bool = False

    @property
    def denoises(self) -> bool:
        """Whether the noise is found at every level: so does a trained network that is told the right levels."""
        return all(level.correlation > _CORRELATED and 0.5 < level.size < 2 for level in self.levels)

    def figures(self) -> dict[str, Any]:
        """The outcome as JSON values, which are stored with the weights."""
        levels = [[level.nsr, round(level.correlation, 3), round(level.size, 3)] for level in self.levels]
        return {"denoises": self.denoises, "levels": levels}


def doubts(prior: Prior) -> tuple[str, ...]:
    """What a user should hear before a prior that `load_prior` read draws anything: one sentence, or none.

    The figures that are stored with the weights say it, or where there are none (other formats, earlier versions)
    `check`, whose evaluations ``prior.nfe`` does not count. The embedded priors have passed.

    Raises:
        PriorError: as for `check`.
    """
    if prior.spec in PRIORS:
        return ()
    stored = (prior.facts or {}).get("training")
    figures = stored.get(FIGURES) if isinstance(stored, Mapping) else None
    denoises = figures.get("denoises") if isinstance(figures, Mapping) else None
    if not isinstance(denoises, bool):
        with prior.nfe.uncounted():
            denoises = check(prior).denoises
    if denoises:
        return ()
    return (
        f"The prior {prior.name} does not find noise as a trained denoiser does: untrained, or trained too briefly, "
        f"or its noise levels are wrong; expect noise in the hole (`priorpaint priors verify {prior.spec}`).",
    )


@torch.no_grad()
def check(prior: Prior, seed: int = 0, pictures: Tensor | None = None) -> Check:
    """Denoise pictures with noise.

    Priors of special pictures, such as faces, see those in any other picture and find no noise there; so where a smooth
    random picture fails, a quick sample of the prior itself is the picture. That of an untrained network is noise.

    Args:
        prior: any prior; one that needs a class is asked for class 0.
        seed: of picture and noise.
        pictures: (N, C, H, W) in [-1, 1], of the kind that the prior knows; None is a smooth random one, see above.

    Raises:
        PriorError: an answer has the wrong shape or is not finite.
    """
    asked = conditioned(prior)
    picture = _picture(prior, seed) if pictures is None else pictures.to(prior.device)
    x_0 = prior.encode(picture)
    round_trip = _round_trip(prior, picture, x_0) if prior.latent else None
    first = Check(tuple(x_0.shape[1:]), _levels(asked, x_0, seed), round_trip)
    if first.denoises or pictures is not None:
        return first
    noise = Streams([derive("sample", seed)], device=prior.device).normal(*x_0.shape[1:])
    x_0 = DDIM(_STEPS)(asked, asked.initial_about_mean(noise), Streams([seed], device=prior.device))
    if not _BLANK < float(x_0.std()) < float("inf"):  # one colour, in which any answer of that colour finds all noise
        return first
    return replace(first, levels=_levels(asked, x_0, seed), own=True)


def _picture(prior: Prior, seed: int) -> Tensor:
    channels, *sides = prior.image_shape
    step = prior.image_multiple
    height, width = (side or step * max(1, -(-_SIDE // step)) for side in sides)
    coarse = Streams([derive("picture", seed)], device=prior.device).normal(channels, 4, 4)
    return F.interpolate(0.3 * coarse, size=(height, width), mode="bicubic", align_corners=False).clamp(-1, 1)


def conditioned(prior: Prior) -> Prior:
    """The prior, or where it knows its pictures by class only, that of class 0."""
    try:
        prior.condition()
    except UsageError:
        return CFGPrior(prior, label=0)
    return prior


def _levels(prior: Prior, x_0: Tensor, seed: int) -> tuple[Level, ...]:
    seeds = [derive("check", seed, *((index,) if index else ())) for index in range(len(x_0))]
    noise = Streams(seeds, device=prior.device).normal(*x_0.shape[1:])
    return tuple(_level(prior, x_0, noise, nsr) for nsr in NSRS)


def _level(prior: Prior, x_0: Tensor, noise: Tensor, nsr: float) -> Level:
    low, high = prior.schedule.nsr_range
    nsr = min(max(nsr, low), high)
    t = prior.schedule.time_at(torch.tensor(nsr, dtype=torch.float64))
    alpha, sigma = float(prior.schedule.alpha(t)), float(prior.schedule.sigma(t))
    x_t = alpha * x_0 + sigma * noise
    answer = prior.denoise(x_t, t)
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
