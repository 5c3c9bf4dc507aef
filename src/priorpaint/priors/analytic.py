"""Priors whose denoiser, score and posterior are known in closed form: the measuring stick for every solver."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..diffusion.rng import Streams, derive
from ..diffusion.schedules import VP, Schedule
from ..errors import UsageError
from ..operators.base import LinearOperator
from .base import Prior
from .info import PriorInfo, Provenance

if TYPE_CHECKING:
    from ..diffusion.samplers import Callback, Sampler


class GaussianMixture(Prior):
    """x_0 ~ sum_k w_k N(mu_k, C_k), with full covariances, which may be singular.

    All algebra is float64 in the eigenbasis of each C_k, so every noise level is a diagonal problem.

    Args:
        weights: (K,), >= 0; normalised here.
        means: (K, d) or (K, *shape).
        covs: (K, d, d), or (d, d) shared by all components.
        shape: (C, H, W) with C H W = d; the default is (1, 1, d).
        schedule: noise schedule; the default is VP linear.

    Raises:
        UsageError: shapes that do not fit, negative weights, or a covariance that is not positive semi-definite.
    """

    shape: tuple[int, int, int]
    title = "gaussian mixture"

    def __init__(
        self,
        weights: Tensor | Sequence[float],
        means: Tensor | Sequence[Sequence[float]],
        covs: Tensor | Sequence[Sequence[Sequence[float]]],
        shape: tuple[int, int, int] | None = None,
        schedule: Schedule | None = None,
    ) -> None:
        raw = torch.as_tensor(weights, dtype=torch.float64)
        if raw.ndim != 1 or bool((raw < 0).any()) or not float(raw.sum()) > 0:
            raise UsageError("weights must be (K,) numbers >= 0 with a positive sum")
        self.weights = raw / raw.sum()
        means = torch.as_tensor(means, dtype=torch.float64)
        if len(means) != len(raw) or not means[0].numel():
            raise UsageError(f"there are {len(raw)} weights and {len(means)} means; pass one mean a weight")
        self.means = means.reshape(len(raw), -1)
        d = self.means.shape[1]
        self.dim = d
        full = shape or (1, 1, d)
        if math.prod(full) != d:
            raise UsageError(f"shape {full} has {math.prod(full)} elements but the means have {d}")
        super().__init__(PriorInfo(schedule or VP("linear"), full, provenance=Provenance(self.title)))
        covs = torch.as_tensor(covs, dtype=torch.float64)
        if covs.shape not in ((d, d), (len(raw), d, d), (1, d, d)):
            raise UsageError(f"covs have shape {tuple(covs.shape)}; pass ({d}, {d}) or ({len(raw)}, {d}, {d})")
        covs = covs.expand(len(raw), d, d)
        self.covs = (covs + covs.mT) / 2
        values, self._vectors = torch.linalg.eigh(self.covs)
        floor = -1e-9 * values.abs().amax().clamp(min=1e-300)
        if bool((values < floor).any()):
            raise UsageError("a covariance is not positive semi-definite")
        self._values = values.clamp(min=0)

    @property
    def mean(self) -> Tensor:
        """E[x_0], (*shape,) float64."""
        return (self.weights @ self.means).reshape(self.shape)

    @property
    def cov(self) -> Tensor:
        """Cov[x_0], (d, d) float64."""
        centred = self.means - self.weights @ self.means
        return torch.einsum("k,kij->ij", self.weights, self.covs + centred[:, :, None] * centred[:, None, :])

    def log_prob(self, x: Tensor, t: Tensor | float = 0.0) -> Tensor:
        """log p(x_t) for x (N, *shape); t = 0 is the density of x_0. Returns (N,) float64.

        Raises:
            UsageError: t = 0 and a singular covariance, where there is no density.
        """
        log_parts, _, _ = self._parts(x, self._dense_times(x, t))
        return torch.logsumexp(log_parts, 1)

    def responsibilities(self, x_t: Tensor, t: Tensor | float = 0.0) -> Tensor:
        """p(component | x_t), (N, K) float64, for x_t (N, *shape)."""
        times = torch.as_tensor(t, dtype=torch.float64).expand(len(x_t))
        log_parts, _, _ = self._parts(x_t, times)
        return torch.softmax(log_parts, 1)

    def score(self, x_t: Tensor, t: Tensor | float) -> Tensor:
        """grad log p(x_t) = (alpha_t D - x_t) / sigma_t^2, (N, *shape), without its cancellation at small sigma_t.

        Raises:
            UsageError: t = 0 and a singular covariance.
        """
        times = self._dense_times(x_t, t)
        log_parts, rotated, variance = self._parts(x_t, times)
        pull = torch.einsum("nkj,kij->nki", rotated / variance, self._vectors)
        return -torch.einsum("nk,nki->ni", torch.softmax(log_parts, 1), pull).reshape(x_t.shape).to(x_t)

    def _dense_times(self, x: Tensor, t: Tensor | float) -> Tensor:
        """t as (N,) float64, where p(x_t) has a density."""
        times = torch.as_tensor(t, dtype=torch.float64).expand(len(x))
        if bool((times == 0).any()) and bool((self._values <= 0).any()):
            raise UsageError("a component has a singular covariance and so no density at t = 0; use t > 0")
        return times

    def _parts(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log w_k N(x_t; alpha mu_k, alpha^2 C_k + sigma^2 I) (N, K); residuals in eigenbases, variances (N, K, d)."""
        alpha, sigma = self.schedule.alpha(t)[:, None, None], self.schedule.sigma(t)[:, None, None]
        x = x_t.to(device="cpu", dtype=torch.float64).flatten(1)
        centred = x[:, None, :] - alpha * self.means
        rotated = torch.einsum("nki,kij->nkj", centred, self._vectors)
        variance = (alpha**2 * self._values + sigma**2).clamp(min=1e-300)
        log_density = -0.5 * (rotated.square() / variance + variance.log() + math.log(2 * math.pi)).sum(2)
        return self.weights.log() + log_density, rotated, variance

    def _denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        log_parts, rotated, variance = self._parts(x_t, t)
        alpha = self.schedule.alpha(t)[:, None, None]
        shift = torch.einsum("nkj,kij->nki", alpha * self._values / variance * rotated, self._vectors)
        mean = torch.einsum("nk,nki->ni", torch.softmax(log_parts, 1), self.means + shift)
        return mean.reshape(x_t.shape).to(x_t)

    def sample(
        self,
        num: int,
        *,
        seed: int,
        steps: int | None = None,
        sampler: Sampler | str | None = None,
        size: tuple[int, int] | None = None,
        batch_size: int | None = None,
        first: int = 0,
        callback: Callback | None = None,
    ) -> Tensor:
        """Exact samples (num, *shape), float32; with a ``sampler``, samples through the diffusion instead."""
        if sampler is not None:
            return super().sample(
                num, seed=seed, steps=steps, sampler=sampler, size=size, batch_size=batch_size, first=first,
                callback=callback,
            )  # fmt: skip
        if num < 1 or first < 0:
            raise UsageError(f"num must be at least 1 and first at least 0, not {num} and {first}")
        noise = Streams([derive("exact", seed, i) for i in range(first, first + num)])
        chosen = torch.searchsorted(self.weights.cumsum(0), noise.uniform().double()).clamp(max=len(self.weights) - 1)
        z = noise.normal(self.dim).double() * self._values[chosen].sqrt()
        x = self.means[chosen] + torch.einsum("nj,nij->ni", z, self._vectors[chosen])
        return x.reshape(num, *self.shape).float()

    def posterior(self, operator: LinearOperator, y: Tensor, sigma_y: float = 0.0) -> GaussianMixture:
        """The exact p(x_0 | y) for y = A x_0 + sigma_y n.

        Args:
            operator: A, for one image.
            y: one measurement, (1, ...).
            sigma_y: standard deviation of n; 0 is allowed and gives singular covariances.

        Raises:
            UsageError: more than one measurement, or a y that no component can produce when sigma_y = 0.
        """
        matrix, values = self._linear_system(operator, y)
        parts = [self._condition(k, matrix, values, sigma_y) for k in range(len(self.weights))]
        log_weights = self.weights.log() + self._log_evidences(parts)
        if not bool(torch.isfinite(log_weights).any()):
            raise UsageError("no component of the mixture can produce this y; pass sigma_y > 0 or another y")
        weights = torch.softmax(log_weights, 0)
        means, covs = torch.stack([part[2] for part in parts]), torch.stack([part[3] for part in parts])
        return GaussianMixture(weights, means, covs, self.shape, self.schedule)

    def log_evidence(self, operator: LinearOperator, y: Tensor, sigma_y: float) -> float:
        """log p(y) for one measurement y (1, ...), over the entries of y that carry information."""
        matrix, values = self._linear_system(operator, y)
        parts = [self._condition(k, matrix, values, sigma_y) for k in range(len(self.weights))]
        return float(torch.logsumexp(self.weights.log() + self._log_evidences(parts), 0))

    def _log_evidences(self, parts: list[tuple[Tensor, int, Tensor, Tensor]]) -> Tensor:
        """(K,) log densities of y; where ranks differ (sigma_y = 0), a lower rank is infinitely denser and wins."""
        possible = [weight > 0 and bool(part[0].isfinite()) for weight, part in zip(self.weights, parts, strict=True)]
        lowest = min((part[1] for part, good in zip(parts, possible, strict=True) if good), default=0)
        never = torch.tensor(-math.inf, dtype=torch.float64)
        return torch.stack(
            [part[0] if good and part[1] == lowest else never for part, good in zip(parts, possible, strict=True)]
        )

    def _linear_system(self, operator: LinearOperator, y: Tensor) -> tuple[Tensor, Tensor]:
        """A as a matrix (m, d) and y (m,), without rows of zeros (pixels off a mask), which say nothing."""
        if len(y) != 1:
            raise UsageError(f"the exact posterior takes one measurement (1, ...), not {len(y)}")
        basis = torch.eye(self.dim, dtype=torch.float64).reshape(self.dim, *self.shape)
        matrix = torch.cat([operator(row[None]).flatten(1) for row in basis]).mT.double()
        informative = matrix.abs().amax(1) > 0
        return matrix[informative], y.double().flatten()[informative]

    def _condition(self, k: int, matrix: Tensor, y: Tensor, sigma_y: float) -> tuple[Tensor, int, Tensor, Tensor]:
        """log N(y; A mu, A C A^T + sigma_y^2 I), the rank of its covariance, posterior mean and covariance."""
        mean, cov = self.means[k], self.covs[k]
        cross = cov @ matrix.mT
        innovation = matrix @ cross + sigma_y**2 * torch.eye(len(y), dtype=torch.float64)
        values, vectors = torch.linalg.eigh((innovation + innovation.mT) / 2)
        positive = values > 1e-12 * values.amax().clamp(min=1e-300)
        inverse = torch.where(positive, 1 / values.clamp(min=1e-300), 0)
        residual = vectors.mT @ (y - matrix @ mean)
        # y is usually a float32 image: what it is off by rounding is not a contradiction.
        slack = 1e-6 * max(1.0, float(y.norm()))
        impossible = bool((residual[~positive].abs() > slack).any())
        log_density = -0.5 * (residual.square() * inverse + torch.where(positive, values.log(), 0)).sum()
        log_density = log_density - 0.5 * math.log(2 * math.pi) * positive.sum()
        gain = cross @ vectors * inverse @ vectors.mT
        # What is below the rounding error of the subtraction is 0, not a small negative variance.
        left, axes = torch.linalg.eigh(cov - gain @ cross.mT)
        left = torch.where(left > 1e-13 * cov.diagonal().amax(), left, 0)
        new_cov = axes * left @ axes.mT
        log_evidence = torch.tensor(-math.inf, dtype=torch.float64) if impossible else log_density
        return log_evidence, int(positive.sum()), mean + gain @ (y - matrix @ mean), (new_cov + new_cov.mT) / 2


class Gaussian(GaussianMixture):
    """x_0 ~ N(mean, cov).

    Args:
        mean: (d,) or (*shape,).
        cov: (d, d), positive semi-definite.
        shape: (C, H, W); the default is (1, 1, d).
        schedule: noise schedule; the default is VP linear.
    """

    title = "gaussian"

    def __init__(
        self,
        mean: Tensor | Sequence[float],
        cov: Tensor | Sequence[Sequence[float]],
        shape: tuple[int, int, int] | None = None,
        schedule: Schedule | None = None,
    ) -> None:
        mean = torch.as_tensor(mean, dtype=torch.float64).flatten()
        super().__init__([1.0], mean[None], torch.as_tensor(cov, dtype=torch.float64)[None], shape, schedule)


class LinearManifold(Gaussian):
    """x_0 = mean + A z with z ~ N(0, I_k): a flat k-dimensional manifold in R^d, with no noise around it.

    The covariance A A^T is singular; everything of ``Gaussian`` works on it, but the density of x_0 itself, which does
    not exist. Its eigenvalues off the manifold are exactly 0 here.

    Args:
        basis: A (d, k), of full rank; orthonormal columns give unit variance along the manifold.
        mean: (d,) or (*shape,); the default is 0.
        shape: (C, H, W); the default is (1, 1, d).
        schedule: noise schedule; the default is VP linear.

    Raises:
        UsageError: A is not a matrix, or its columns are linearly dependent.
    """

    title = "linear manifold"

    def __init__(
        self,
        basis: Tensor | Sequence[Sequence[float]],
        mean: Tensor | Sequence[float] | None = None,
        shape: tuple[int, int, int] | None = None,
        schedule: Schedule | None = None,
    ) -> None:
        self.basis = torch.as_tensor(basis, dtype=torch.float64)
        if self.basis.ndim != 2 or not self.basis.numel():
            raise UsageError(f"a basis is a matrix (d, k), not of shape {tuple(self.basis.shape)}")
        d, k = self.basis.shape
        super().__init__(torch.zeros(d) if mean is None else mean, self.basis @ self.basis.mT, shape, schedule)
        axes, scales, _ = torch.linalg.svd(self.basis)
        if k > d or float(scales[-1]) <= 1e-10 * float(scales[0]):
            raise UsageError(f"the {k} columns of the basis are linearly dependent; pass independent directions")
        self._vectors = axes[None]
        self._values = torch.cat([scales.square(), torch.zeros(d - k, dtype=torch.float64)])[None]

    @classmethod
    def random(
        cls,
        d: int,
        k: int,
        *,
        seed: int,
        shape: tuple[int, int, int] | None = None,
        schedule: Schedule | None = None,
    ) -> LinearManifold:
        """A manifold in a uniformly random direction, with orthonormal A (d, k).

        Raises:
            UsageError: not 1 <= k <= d.
        """
        if not 1 <= k <= d:
            raise UsageError(f"a manifold of dimension {k} does not fit into {d} dimensions; take 1 <= k <= d")
        gaussian = Streams([derive("manifold", seed)]).normal(d, k)[0].double()
        return cls(torch.linalg.qr(gaussian).Q, None, shape, schedule)
