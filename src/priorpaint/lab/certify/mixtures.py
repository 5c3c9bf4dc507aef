"""Exact priors that the standard problems need and that a general mixture would make slow or impossible."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...diffusion.rng import derive
from ...errors import UsageError
from ...priors.analytic import GaussianMixture
from ...priors.base import Prior
from ...priors.info import PriorInfo, Provenance


class SharedCovariance(GaussianMixture):
    """A mixture whose components all have one covariance: its denoiser costs N d (d + K) instead of N d^2 K.

    With C = V diag(l) V^T and u = V^T x_t, every component has the variances s = alpha^2 l + sigma^2 along V, so
        log N_k = -(sum u^2 / s - 2 alpha (u / s) V^T mu_k + alpha^2 sum (V^T mu_k)^2 / s) / 2 + a constant, and
        D = sum_k r_k mu_k + V (alpha l / s) (u - alpha V^T sum_k r_k mu_k).

    Args: as for `GaussianMixture`; covs is one (d, d).

    Raises:
        UsageError: also for one covariance a component.
    """

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        if not bool((self.covs == self.covs[0]).all()):
            raise UsageError("the components have different covariances; use GaussianMixture")
        self._turned_means = self.means @ self._vectors[0]

    def _denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        axes, values = self._vectors[0], self._values[0]
        alpha, sigma = self.schedule.alpha(t)[:, None], self.schedule.sigma(t)[:, None]
        u = x_t.to(device="cpu", dtype=torch.float64).flatten(1) @ axes
        variance = (alpha**2 * values + sigma**2).clamp(min=1e-300)
        # The terms of log N_k that differ between components.
        cross = (alpha * u / variance) @ self._turned_means.mT
        own = (alpha**2 / variance) @ self._turned_means.square().mT
        weights = torch.softmax(self.weights.log() + cross - 0.5 * own, 1)
        centre = weights @ self._turned_means
        mean = (centre + alpha * values / variance * (u - alpha * centre)) @ axes.mT
        denoised: Tensor = mean.reshape(x_t.shape).to(x_t)
        return denoised


class Copies(Prior):
    """``count`` independent draws of one mixture, as the rows of an image (1, count, d).

    The joint law has K^count components, so it is never written down; the denoiser works on each row by itself.

    Args:
        one: the law of a row, of the shape (1, 1, d).
        count: how many rows.
    """

    shape: tuple[int, int, int]

    def __init__(self, one: GaussianMixture, count: int) -> None:
        shape = (1, count, one.dim)
        super().__init__(PriorInfo(one.schedule, shape, data_std=one.data_std, provenance=Provenance("copies")))
        self.one, self.count = one, count

    def _denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        rows = x_t.reshape(-1, *self.one.shape)
        return self.one._denoise(rows, t.repeat_interleave(self.count)).reshape(x_t.shape)

    def exact(self, num: int, *, seed: int) -> Tensor:
        """Exact samples (num, 1, count, d), float32."""
        rows = [self.one.sample(num, seed=derive("copy", seed, copy)) for copy in range(self.count)]
        return torch.stack(rows, 2).reshape(num, *self.shape)


def widest(mixture: GaussianMixture) -> float:
    """The root mean square of x_0 along the direction where it is largest."""
    mean = mixture.mean.flatten()
    return float(torch.linalg.eigvalsh(mixture.cov + mean[:, None] * mean)[-1].clamp(min=0).sqrt())


def element_std(mixture: GaussianMixture) -> float:
    """The root of the mean square of x_0 per element, which is what ``Prior.data_std`` means."""
    return math.sqrt(float((mixture.cov.trace() + mixture.mean.square().sum()) / mixture.dim))
