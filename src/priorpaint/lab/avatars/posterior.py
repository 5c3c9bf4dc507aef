"""The exact posterior of avatars from some of their pixels.

Marginals and the moments of the colours are derivatives of the log evidence (A. Darwiche, "A differential approach to
inference in Bayesian networks", J. ACM 2003): with respect to the log prior of an option, its posterior probability;
with respect to a cell's seven numbers (`tables`), the mean colour and its mean square.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...diffusion.rng import Seed, Streams, image_seeds
from ...errors import UsageError
from .drawing import Parts
from .elimination import Elimination, drawn
from .model import ZOOM, Avatars
from .pixels import LEVEL, as_picture, cell_features, mask_for
from .sheet import CELLS
from .standard import standard
from .tables import tables

_EXACT = 1e6  # without noise, what a squared level costs: e^-1e6 is 0 in float64
_LEAST = 1e-5  # below, rounding of the distances would show
_CHUNK = 16


@dataclass(frozen=True)
class Posterior:
    """p(combination | y) for N pictures.

    Attributes:
        avatars: the law.
        log_evidence: (N,) float64. With noise, ln of the density of the visible values (scale [-1, 1]); without, ln of
            the probability of the visible pixels.
        marginals: for each part, the probabilities (N, options) of its options, float64.
        mean, std: (N, 3, 32, 32) float64, of each pixel on the scale [-1, 1].
        plausible: (N,) float64, how many combinations agree with the visible pixels; None with noise.
    """

    avatars: Avatars
    log_evidence: Tensor
    marginals: dict[str, Tensor]
    mean: Tensor
    std: Tensor
    plausible: Tensor | None
    _features: Tensor = field(repr=False)
    _scale: float = field(repr=False)
    _total: Tensor = field(repr=False)
    _y: Tensor = field(repr=False)

    def sample(self, num: int, *, seed: Seed) -> Parts:
        """``num`` independent combinations of each picture, (N, num, P).

        Args:
            seed: an int, or one a picture; sample i of a picture does not depend on ``num`` or on the other pictures.
        """
        seeds = image_seeds(seed, self._y)
        picks = 2 + 2 * len(self.avatars.parts)
        out = []
        for start in range(0, len(seeds), _CHUNK):
            rows = [image for image in seeds[start : start + _CHUNK] for _ in range(num)]
            streams = Streams.for_samples(rows, [*range(num)] * (len(rows) // num))
            chances = streams.uniform(picks).reshape(-1, num, picks)
            cells = self._features[start : start + _CHUNK]
            eliminated = Elimination(tables(self.avatars), cells, self._scale, log_shares(self.avatars))
            out.append(eliminated.combinations(drawn(chances)))
        return torch.cat(out).numpy()

    def log_prob(self, parts: Parts) -> Tensor:
        """ln p(combination | y), (N, M) float64, of combinations (N, M, P); without noise, below -1e5 means -inf."""
        cells = self.avatars.compose(parts.reshape(-1, parts.shape[-1]))[:, ::ZOOM, ::ZOOM]
        colours = torch.from_numpy(cells.reshape(*parts.shape[:2], CELLS * CELLS, 3)).double()
        rows = torch.cat([colours, colours.square(), torch.ones_like(colours[..., :1])], -1)
        distance = (rows * self._features[:, None]).sum((-1, -2))
        return torch.from_numpy(self.avatars.log_prob(parts)) - self._scale * distance - self._total[:, None]


def posterior(y: Tensor, known: Tensor, sigma_y: float = 0.0, *, avatars: Avatars | None = None) -> Posterior:
    """The exact posterior of N pictures, y = x_0 + sigma_y n where known.

    Args:
        y: (N, 3, 32, 32) on the scale [-1, 1]; hidden pixels are not read.
        known: (1 | N, 1, 32, 32) or (32, 32), 1 where the pixel is known.
        sigma_y: standard deviation of the noise; 0 means that known pixels are exact to 8 bits.
        avatars: the law; default `standard`. A conditional law (`Avatars.only`) gives the posterior given labels.

    Raises:
        UsageError: shapes that do not fit, or a picture with which no combination agrees.
    """
    avatars = standard() if avatars is None else avatars
    known = mask_for(known, y)
    if sigma_y and not sigma_y >= _LEAST:
        raise UsageError(f"sigma_y is a standard deviation, 0 or at least {_LEAST}, not {sigma_y}")
    observed = torch.where(known, y.detach().cpu().double(), 0.0)
    scale = 1 / (2 * (sigma_y * LEVEL) ** 2) if sigma_y else _EXACT
    cells = cell_features(observed, known, exact=not sigma_y)
    chunks = torch.split(cells, _CHUNK)
    pieces = [_moments(avatars, chunk, scale) for chunk in chunks]
    total, mean, std, *shares = (torch.cat(column) for column in zip(*pieces, strict=True))
    marginals = dict(zip(avatars.index, shares, strict=True))
    plausible, evidence = None, total
    if not sigma_y:
        if (total < -_EXACT / 2).any():
            row = int((total < -_EXACT / 2).nonzero()[0])
            raise UsageError(f"No avatar agrees with the known pixels of picture {row}; give sigma_y > 0, or check it.")
        plausible = torch.cat([_count(avatars, chunk) for chunk in chunks])
    else:
        values = 3 * known.flatten(1).sum(1).double()
        evidence = total - values / 2 * math.log(2 * math.pi * sigma_y**2)
    return Posterior(avatars, evidence, marginals, mean, std, plausible, cells, scale, total, observed)


def _moments(avatars: Avatars, cells: Tensor, scale: float) -> tuple[Tensor, ...]:
    """Total (N,), mean and std (N, 3, 32, 32), marginals (N, options) of each part."""
    cells = cells.clone().requires_grad_()
    prior = [row.repeat(len(cells), 1).requires_grad_() for row in log_shares(avatars)]
    with torch.enable_grad():
        total = Elimination(tables(avatars), cells, scale, prior).total
        slope, *marginals = torch.autograd.grad(total.sum(), [cells, *prior], materialize_grads=True)
    shown = [m if m.any() else p.detach().exp() for m, p in zip(marginals, prior, strict=True)]
    mean, square = -slope[..., :3] / scale, -slope[..., 3:6] / scale
    std = (square - mean.square()).clamp(min=0).sqrt()
    return total.detach(), as_picture(mean / LEVEL - 1), as_picture(std / LEVEL), *shown


def _count(avatars: Avatars, cells: Tensor) -> Tensor:
    """How many combinations have distance 0."""
    flat = [torch.zeros_like(row) for row in log_shares(avatars)]
    return Elimination(tables(avatars), cells, _EXACT, flat).total.exp()


def log_shares(avatars: Avatars) -> list[Tensor]:
    """ln of the shares of each part's options, (1, options) each."""
    return [torch.tensor(part.shares, dtype=torch.float64).log()[None] for part in avatars.parts]
