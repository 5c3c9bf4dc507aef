"""Twists of sequential Monte Carlo: guesses of p(y | x_t) and the two Gaussian kernels that go with them.

Groups of particles are (G, K, d) here, d = C H W, in float64: weights are small differences of large numbers. MPS has
no float64, so there this algebra runs on the CPU; the denoiser always gets float32 on its own device.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ...diffusion.rng import Streams
from ...diffusion.transitions import tweedie_scale
from ...errors import PriorError
from ...priors.base import Prior
from ..base import Task
from ..guidance import LikelihoodSolver
from ..likelihoods import Denoised, Likelihood
from .resampling import connected
from .rows import DecodedRows, PixelRows, Rows


class Level(NamedTuple):
    """What is known about the particles at one noise level.

    Attributes:
        x_0: D, (G, K, d).
        guided: D' = D + (sigma_t^2 / alpha_t) G, (G, K, d).
        log_twist: (G, K, S) log tw_t(x_t), split over S sites: 1, or d where blocks are resampled by themselves.
        cov: V = Cov(x_0 | x_t), (G, K, d, d), or its mean eigenvalue (G, K, 1), or None for a first-order kernel.
        guided_cov: V' = Cov(x_0 | x_t, y), in the shape of ``cov``.
        variance_share: what the prior learned about the variance of a step, (G, K, d), for a first-order kernel.
    """

    x_0: Tensor
    guided: Tensor
    log_twist: Tensor
    cov: Tensor | None = None
    guided_cov: Tensor | None = None
    variance_share: Tensor | None = None

    def pick(self, ancestors: Tensor) -> Level:
        """The level of resampled particles; ``ancestors`` (G, K, S)."""
        return Level._make(part if part is None else pick(part, ancestors) for part in self)


def algebra_device(prior: Prior) -> torch.device:
    """Where float64 is available for particles of this prior."""
    return torch.device("cpu") if prior.device.type == "mps" else prior.device


def pick(values: Tensor, ancestors: Tensor) -> Tensor:
    """values (G, K, n) or (G, K, d, d) of the ancestors (G, K', S), each site of a particle from its own ancestor."""
    index = ancestors[..., None] if values.ndim == 4 else ancestors
    return values.gather(1, index.expand(*index.shape[:2], *values.shape[2:]))


class Twist(ABC):
    """A guess of p(y | x_t) for G groups of K particles.

    Attributes:
        sites: S, parts of a particle that may be resampled separately.
        joined: (G, S, S) bool, which sites belong to one block and share their ancestors; set by ``evaluate``.

    Args:
        task: a row a group.
        particles: K.
        limit: particles to denoise at a time; None is all.
    """

    def __init__(self, task: Task, particles: int, limit: int | None) -> None:
        self.task, self.prior, self.particles = task, task.prior, particles
        self.device = algebra_device(task.prior)
        self.dim = math.prod(task.shape)
        self.sites = 1
        self.limit = limit or len(task.y) * particles
        self.joined = torch.ones(len(task.y), 1, 1, dtype=torch.bool, device=self.device)

    @abstractmethod
    def evaluate(self, x_t: Tensor, t: Tensor, noise: Streams) -> Level:
        """The level of particles x_t (G, K, d) at a 0-d time t > 0."""

    def resize(self, particles: int) -> None:
        """Go on with another number of particles in each group."""
        self.particles = particles

    def _chunks(self) -> Iterator[Tensor]:
        """Indices of the G K particles, ``limit`` at a time."""
        yield from torch.split(torch.arange(len(self.task.y) * self.particles), self.limit)

    def _images(self, x: Tensor) -> Tensor:
        """(G, K, d) or (N, d) to (N, C, H, W), float32 on the prior's device."""
        return x.reshape(-1, *self.task.shape).to(device=self.prior.device, dtype=torch.float32)

    def _shares(self, parts: list[Tensor | None]) -> Tensor | None:
        """The learned variance of chunks (n, C, H, W) as (G, K, d); None where nothing was learned."""
        learned = [part.flatten(1) for part in parts if part is not None]
        return self._groups(learned, self.dim) if learned else None

    def _groups(self, parts: list[Tensor], *shape: int) -> Tensor:
        """Rows of chunks to (G, K, *shape), float64."""
        rows = torch.cat([part.detach().to(self.device).double() for part in parts])
        return rows.reshape(len(self.task.y), self.particles, *shape)


class DenseTwist(Twist):
    """N(y; A D, S) with S = sigma_y^2 I + A V A^T from the whole Jacobian, log det included (moment matching).

    Of a latent prior the mean is A Dec(D), and A dDec/dz at D stands for A in S and in what follows.

    V' = V - V A^T S^-1 A V and D' = D + V A^T S^-1 (y - A D) are Cov and E of x_0 given x_t and y where x_0 | x_t is
    Gaussian. J is symmetrised and V made positive semi-definite, as a network's Jacobian is neither.

    Args:
        sigma_y: noise of y, > 0.
        kernel: whether levels carry V (``dense``), its mean eigenvalue (``scalar``) or nothing (``first``).
        local: coordinates whose |correlation| given x_t has stayed below this are blocks of their own; 0 joins all.
    """

    def __init__(
        self, task: Task, particles: int, limit: int | None, sigma_y: float, kernel: str, local: float = 0.0
    ) -> None:
        super().__init__(task, particles, limit)
        self.kernel, self.local = kernel, local
        self._rows: Callable[[Tensor], Rows]
        if task.prior.latent:
            self._rows = DecodedRows(task, sigma_y, self.limit)
            return
        self._rows = pixel_rows = PixelRows(task, sigma_y, self.device)
        if local > 0:
            self.sites = self.dim
            self._links = (pixel_rows.matrix.mT @ pixel_rows.matrix != 0).double()
            self._home = torch.nn.functional.one_hot(pixel_rows.matrix.abs().argmax(2), self.dim).double()  # (G, m, d)

    def evaluate(self, x_t: Tensor, t: Tensor, noise: Streams) -> Level:
        x_0, cov, share = self._moments(x_t, t)
        if self.local > 0:
            cov = self._localise(cov)
        cov = positive(cov)
        rows = self._rows(x_0)
        matrix = rows.matrix
        cross_cov = matrix @ cov  # A V
        root = torch.linalg.cholesky(cross_cov @ matrix.mT + torch.diag_embed(rows.variance))
        gain = torch.cholesky_solve(cross_cov, root).mT
        guided = x_0 + (gain @ rows.residual[..., None])[..., 0]
        log_twist = self._log_twist(root, rows)
        if self.kernel == "first":
            return Level(x_0, guided, log_twist, variance_share=share)
        rest = torch.eye(self.dim, dtype=cov.dtype, device=cov.device) - gain @ matrix
        guided_cov = rest @ cov @ rest.mT + gain * rows.variance[:, :, None] @ gain.mT  # Joseph's form stays positive
        if self.kernel == "dense":
            return Level(x_0, guided, log_twist, cov, guided_cov)
        return Level(x_0, guided, log_twist, *(_mean_eigenvalue(part) for part in (cov, guided_cov)))

    def _moments(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """D (G, K, d), the symmetrised V (G, K, d, d) and the learned variance."""
        images = self._images(x_t)
        means, rows, shares = [], [], []
        for chunk in self._chunks():
            denoised = Denoised(self.prior, images[chunk.to(images.device)], t)
            products = [_vjp(denoised, e) for e in torch.eye(self.dim).reshape(-1, *self.task.shape)]
            means.append(denoised.x_0.flatten(1))
            rows.append(torch.stack(products, 1))
            shares.append(denoised.variance_share)
        jacobian = self._groups(rows, self.dim, self.dim)
        scale = float(tweedie_scale(self.prior.schedule, t))
        return self._groups(means, self.dim), scale / 2 * (jacobian + jacobian.mT), self._shares(shares)

    def _localise(self, cov: Tensor) -> Tensor:
        """V without what joins different blocks. Blocks only grow: what was dependent above is so below."""
        std = cov.diagonal(dim1=2, dim2=3).clamp(min=1e-300).sqrt()
        correlation = (cov / std[..., None] / std[..., None, :]).abs().mean(1)
        self._links = torch.maximum(self._links, correlation)
        self.joined = connected(self._links >= self.local)
        return cov * self.joined[:, None]

    def _log_twist(self, root: Tensor, rows: Rows) -> Tensor:
        white = torch.linalg.solve_triangular(root, rows.residual[..., None], upper=False)[..., 0]
        logs = -0.5 * white.square() - root.diagonal(dim1=2, dim2=3).log() + rows.constant
        sites: Tensor = logs @ self._home if self.local > 0 else logs.sum(2, keepdim=True)
        return sites


class LikelihoodTwist(Twist):
    """The likelihood of a guided method (DPS, PiGDM, MMPS, TMPD) as a twist.

    Args:
        method: whose likelihood it is.
        sigma_y: noise of y, > 0.
        kernel: ``scalar`` adds tr(V) / d, estimated with one random probe, to the variance of a step; or ``first``.
    """

    def __init__(
        self, task: Task, particles: int, limit: int | None, sigma_y: float, kernel: str, method: LikelihoodSolver
    ) -> None:
        super().__init__(task, particles, limit)
        self.kernel, self.method, self.sigma_y = kernel, method, sigma_y
        self.resize(particles)

    def resize(self, particles: int) -> None:
        super().resize(particles)
        self._parts: list[Likelihood] = []
        for chunk in self._chunks():
            rows = chunk // particles
            y, operator = self.task.y[rows.to(self.task.y.device)], self.task.operator.select(rows)
            self._parts.append(self.method.likelihood(self.prior, operator, y, self.sigma_y))

    def evaluate(self, x_t: Tensor, t: Tensor, noise: Streams) -> Level:
        images = self._images(x_t)
        means, gradients, logs, shares = [], [], [], []
        for chunk, likelihood in zip(self._chunks(), self._parts, strict=True):
            evaluation = likelihood.evaluate(images[chunk.to(images.device)], t)
            assert evaluation.log_likelihood is not None
            means.append(evaluation.x_0.flatten(1))
            gradients.append(evaluation.gradient.flatten(1))
            logs.append(evaluation.log_likelihood)
            shares.append(evaluation.variance_share)
        x_0, scale = self._groups(means, self.dim), float(tweedie_scale(self.prior.schedule, t))
        guided = x_0 + scale * self._groups(gradients, self.dim)
        if self.kernel == "first":
            return Level(x_0, guided, self._groups(logs, 1), variance_share=self._shares(shares))
        variance = scale * self._mean_jacobian(images, t, noise).clamp(min=0)
        return Level(x_0, guided, self._groups(logs, 1), variance, variance)

    def _mean_jacobian(self, images: Tensor, t: Tensor, noise: Streams) -> Tensor:
        """tr(J) / d by Hutchinson's estimate with one Rademacher probe, (G, K, 1)."""
        probes = self._images(noise.normal(self.particles, self.dim).sign())
        traces = []
        for chunk in self._chunks():
            rows = chunk.to(images.device)
            product = Denoised(self.prior, images[rows], t).vjp(probes[rows])
            traces.append((product * probes[rows]).flatten(1).mean(1))
        return self._groups(traces, 1)


def move(level: Level, x_t: Tensor, a: Tensor, b: Tensor, v: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """(x_s, log p(x_s | x_t) - log q(x_s | x_t)) with x_s drawn from q.

    p = N(a x_t + b D, v I + b^2 V) is the prior's kernel and q = N(a x_t + b D', v I + b^2 V') the guided one; without
    V both have the variance v.

    Args:
        x_t: (G, K, d).
        a, b: 0-d; ``transitions.backward_weights``.
        v: the square of ``transitions.ancestral_std``, 0-d, or (G, K, d) without V.
        z: standard normal, (G, K, d).

    Returns:
        x_s (G, K, d) and log-ratios in the shape of ``level.log_twist``. In the step to t = 0 (v = 0) they are 0: with
        V, p tw_0 / (q tw_t) is 1, as Gaussians are conjugate; without, tw_t of the lowest level is the last twist.
    """
    centre = a * x_t + b * level.guided
    if level.cov is not None and level.guided_cov is not None and level.cov.ndim == 4:
        return _move_dense(level, centre, b, v, z)
    if not bool((v > 0).any()):
        return centre, torch.zeros_like(level.log_twist)
    p = v if level.cov is None else v + b**2 * level.cov
    q = v if level.guided_cov is None else v + b**2 * level.guided_cov
    x_s = centre + q.sqrt() * z
    from_prior = x_s - a * x_t - b * level.x_0
    log_ratio = 0.5 * (z.square() + (q / p).log() - from_prior.square() / p)
    return x_s, log_ratio.sum(2, keepdim=True).expand_as(level.log_twist)


def _move_dense(level: Level, centre: Tensor, b: Tensor, v: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    assert level.cov is not None and level.guided_cov is not None
    white = v * torch.eye(z.shape[2], dtype=z.dtype, device=z.device)
    guided_root = root(white + b**2 * level.guided_cov)
    jump = (guided_root @ z[..., None])[..., 0]
    if float(v) == 0:
        return centre + jump, torch.zeros_like(level.log_twist)
    prior_root = root(white + b**2 * level.cov)
    from_prior = (jump + b * (level.guided - level.x_0))[..., None]
    white_prior = torch.linalg.solve_triangular(prior_root, from_prior, upper=False)[..., 0]
    log_ratio = 0.5 * (z.square() - white_prior.square())
    log_ratio = log_ratio + guided_root.diagonal(dim1=2, dim2=3).log() - prior_root.diagonal(dim1=2, dim2=3).log()
    one_site = level.log_twist.shape[2] == 1
    return centre + jump, log_ratio.sum(2, keepdim=True) if one_site else log_ratio


def _vjp(denoised: Denoised, direction: Tensor) -> Tensor:
    """J^T e of all rows, (N, d), not counted: d of them are one evaluation with the whole Jacobian."""
    cotangent = direction.to(denoised.graph).expand_as(denoised.graph)
    (product,) = torch.autograd.grad(denoised.graph, denoised.x_t, cotangent, retain_graph=True)
    return product.flatten(1)


def positive(matrices: Tensor) -> Tensor:
    """The nearest positive semi-definite matrices to symmetric ones (..., d, d)."""
    if not bool(matrices.isfinite().all()):
        raise PriorError("the prior's Jacobian is not finite; use twist='pigdm' and kernel='first', or another method")
    flat = matrices.reshape(-1, *matrices.shape[-2:])
    bad = torch.linalg.cholesky_ex(_jittered(flat))[1] > 0
    if not bool(bad.any()):
        return matrices
    values, vectors = torch.linalg.eigh(flat[bad])
    flat = flat.clone()
    flat[bad] = vectors * values.clamp(min=0)[:, None, :] @ vectors.mT
    return flat.reshape(matrices.shape)


def root(matrices: Tensor) -> Tensor:
    """Lower Cholesky factors of positive semi-definite matrices (..., d, d), up to rounding."""
    factors: Tensor
    factors, info = torch.linalg.cholesky_ex(matrices)
    if not bool((info > 0).any()):
        return factors
    repaired = torch.linalg.cholesky(_jittered(positive(matrices)))
    both: Tensor = torch.where((info > 0)[..., None, None], repaired, factors)
    return both


def _jittered(matrices: Tensor) -> Tensor:
    """With 1e-9 of the mean eigenvalue added, so that a singular matrix has a factor."""
    size = matrices.shape[-1]
    jitter = 1e-9 * _mean_eigenvalue(matrices).abs() + 1e-30
    larger: Tensor = matrices + jitter[..., None] * torch.eye(size, dtype=matrices.dtype, device=matrices.device)
    return larger


def _mean_eigenvalue(matrices: Tensor) -> Tensor:
    """tr(V) / d, (..., 1)."""
    return matrices.diagonal(dim1=-2, dim2=-1).mean(-1, keepdim=True)
