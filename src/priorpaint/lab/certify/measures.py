"""What is measured of n samples against the exact posterior of a problem.

Where a problem has B copies, each measure is that of single copies, averaged over them (as squares, for distances).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ...diffusion.rng import derive
from ...priors.analytic import GaussianMixture
from .base import Problem
from .distances import Sliced, energy_distance, mean_error, std_ratio, total_variation

EXACT_SAMPLES = 8192
REPLICATES = 8
_ENERGY_SAMPLES = 1024
_ROWS = 1024  # rows at a time where components x dimensions would take much memory
_BLUR = 0.01


@dataclass(frozen=True)
class Measures:
    """The measures of one set of samples; ``exact`` samples of the same number have a floor of each.

    Attributes:
        sliced: sliced Wasserstein-2 distance to the posterior, over 256 fixed directions, in image values.
        energy: energy distance, without bias, in image values.
        modes: total variation between the weights of the mixture's components among the samples and in the posterior;
            None for a single component.
        mean: distance of the means, in units of sqrt(trace of the posterior covariance).
        std: ratio of the root traces of the covariances; 1 is right, below 1 over-confident.
        residual: root mean square of y - A x over what was measured, in image values.
        cover50, cover90: share of the samples in the smallest region that holds 50 % (90 %) of the posterior, that is,
            where its density is above a threshold; above .5 (.9): over-confident, below: too wide or elsewhere.
    """

    sliced: float
    energy: float
    modes: float | None
    mean: float
    std: float
    residual: float
    cover50: float
    cover90: float

    @staticmethod
    def average(parts: list[Measures]) -> Measures:
        """The mean of each measure; distances are averaged as squares."""
        means: dict[str, float | None] = {}
        for field in fields(Measures):
            values = [getattr(part, field.name) for part in parts]
            if field.name in ("sliced", "residual"):
                means[field.name] = math.sqrt(sum(value**2 for value in values) / len(values))
            else:
                means[field.name] = None if None in values else sum(values) / len(values)
        return Measures(**means)  # type: ignore[arg-type]


class Ruler:
    """Measures samples of one problem; what depends on the exact posterior alone is computed once."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        posterior = problem.posterior
        self._shape = posterior.shape
        self._mean, self._cov = posterior.mean.flatten(), posterior.cov
        exact = posterior.sample(EXACT_SAMPLES, seed=derive("ruler", problem.seed)).double().flatten(1)
        self._sliced = Sliced(exact)
        self._few = exact[:_ENERGY_SAMPLES].clone()
        # A posterior on a subspace has no density; its regions are those of the posterior blurred a little.
        self._singular = _is_singular(posterior)
        log_density = self._log_density(exact)
        self._thresholds = [float(torch.quantile(log_density, 1 - share)) for share in (0.5, 0.9)]
        self._num_measured = _measured_entries(problem)
        self._floors: dict[int, list[Measures]] = {}
        self._ignorant: dict[int, Measures] = {}

    def measure(self, x: Tensor) -> Measures:
        """Measures of samples (n, C, H, W), as the solver returns them."""
        return Measures.average([self._one(part) for part in self.problem.split(x)])

    def floor(self, num: int) -> Measures:
        """What ``num`` exact samples of one copy score, averaged over replicates."""
        return Measures.average(self._replicates(num))

    def spread(self, num: int) -> float:
        """Standard deviation of the sliced distance of ``num`` exact samples, in units of the floor."""
        values = torch.tensor([part.sliced for part in self._replicates(num)], dtype=torch.float64)
        return float(values.std()) / self.floor(num).sliced

    def _replicates(self, num: int) -> list[Measures]:
        if num not in self._floors:
            seeds = (derive("floor", self.problem.seed, replicate) for replicate in range(REPLICATES))
            draws = (self.problem.posterior.sample(num, seed=seed) for seed in seeds)
            self._floors[num] = [self._one(draw.double().flatten(1)) for draw in draws]
        return self._floors[num]

    def ignorant(self, num: int) -> Measures:
        """What ``num`` samples of the prior score, which know nothing of y."""
        if num not in self._ignorant:
            draw = self.problem.law.sample(num, seed=derive("ignorant", self.problem.seed))
            self._ignorant[num] = self._one(draw.double().flatten(1))
        return self._ignorant[num]

    def _one(self, x: Tensor) -> Measures:
        """Measures of one copy, (n, d)."""
        log_density = self._log_density(x)
        inside = [float((log_density >= threshold).double().mean()) for threshold in self._thresholds]
        return Measures(
            sliced=self._sliced(x),
            energy=energy_distance(x[:_ENERGY_SAMPLES], self._few),
            modes=self._mode_error(x),
            mean=mean_error(x, self._mean, self._cov),
            std=std_ratio(x, self._cov),
            residual=self._residual(x),
            cover50=inside[0],
            cover90=inside[1],
        )

    def _mode_error(self, x: Tensor) -> float | None:
        """Given x_0, the measurement says nothing more about its component: p(k | x_0, y) = p(k | x_0)."""
        law = self.problem.law
        if len(law.weights) == 1:
            return None
        t = self._blur(law) if _is_singular(law) else 0.0
        shares = torch.cat([law.responsibilities(images, t) for images in self._images(x)])
        return total_variation(shares.mean(0), self.problem.posterior.weights)

    def _log_density(self, x: Tensor) -> Tensor:
        posterior = self.problem.posterior
        t = self._blur(posterior) if self._singular else 0.0
        return torch.cat([posterior.log_prob(images, t) for images in self._images(x)])

    def _images(self, x: Tensor) -> list[Tensor]:
        """x (n, d) as images, some rows at a time."""
        return [x[first : first + _ROWS].reshape(-1, *self._shape) for first in range(0, len(x), _ROWS)]

    def _blur(self, law: GaussianMixture) -> Tensor:
        """The time at which x_t is x_0 blurred by 1 % of the posterior's standard deviation."""
        width = _BLUR * math.sqrt(float(self._cov.trace()) / self.problem.law.dim)
        return law.schedule.time_at(torch.tensor(width, dtype=torch.float64))

    def _residual(self, x: Tensor) -> float:
        gap = self.problem.y - self.problem.observed(x.reshape(-1, *self._shape).float())
        return math.sqrt(float(gap.double().square().flatten(1).sum(1).mean()) / self._num_measured)


def _is_singular(law: GaussianMixture) -> bool:
    """Whether a covariance has a direction without variance, up to rounding."""
    values = torch.linalg.eigvalsh(law.covs)
    return bool(values.amin() <= 1e-10 * values.amax())


def _measured_entries(problem: Problem) -> int:
    """How many entries of y carry information (the pixels of a mask, the rows of a matrix)."""
    probe = problem.observed(problem.law.sample(1, seed=derive("probe")) + 10 * problem.law.data_std)
    return int((probe != 0).sum())
