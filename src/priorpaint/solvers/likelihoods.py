"""Approximate likelihoods p(y | x_t) ~ N(y; A D(x_t, t), S_t): what guided denoisers and twisted SMC share.

p(y | x_t) is the mean of N(y; A x_0, sigma_y^2 I) over p(x_0 | x_t), whose mean is D(x_t, t) = E[x_0 | x_t] and whose
covariance is V = Cov(x_0 | x_t) = (sigma_t^2 / alpha_t) J with J = dD/dx_t. A method is its choice of
S_t = sigma_y^2 I + A V A^T: V = 0 (DPS), r_t^2 I (PiGDM), V itself (MMPS), or a diagonal (TMPD). The gradient is that
with S_t held fixed, G = J^T A^T S_t^-1 (y - A D).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..diffusion.transitions import row_sum
from ..errors import PriorError
from ..operators.base import LinearOperator, Operator
from ..priors.base import Prior

_DENSE = 256  # image elements up to which the singular values of A are computed
_PROBES = 32


@dataclass(frozen=True)
class Evaluation:
    """An approximate likelihood at x_t.

    Attributes:
        x_0: D(x_t, t), (N, C, H, W).
        gradient: G = grad log p(y | x_t) with S_t held fixed, (N, C, H, W).
        log_likelihood: log N(y; A D, S_t), (N,) float64 on the CPU, with log det S_t, over the entries of y that carry
            information; None where it was not asked for.
        variance_share: what the prior learned about a step that does not know y; see `Denoising`.
    """

    x_0: Tensor
    gradient: Tensor
    log_likelihood: Tensor | None = None
    variance_share: Tensor | None = None


class Likelihood(ABC):
    """p(y | x_t) ~ N(y; A D(x_t, t), S_t) for N rows.

    Args:
        prior: the prior.
        operator: A of the N rows.
        y: measurements (N, ...), as ``operator.measured`` leaves them.
        sigma_y: standard deviation of the measurement noise, >= 0.
    """

    def __init__(self, prior: Prior, operator: Operator, y: Tensor, sigma_y: float) -> None:
        self.prior, self.operator, self.y, self.sigma_y = prior, operator, y, float(sigma_y)

    @abstractmethod
    def evaluate(self, x_t: Tensor, t: Tensor, *, density: bool = True) -> Evaluation:
        """D, G and log p(y | x_t) at x_t (N, C, H, W) and t, 0-d or (N,) float64 in (0, 1].

        Args:
            x_t: noisy images.
            t: times.
            density: whether the log-likelihood is needed; without it, it may be left out.
        """

    def exact(self, x_0: Tensor) -> Tensor:
        """log N(y; A x_0, sigma_y^2 I) for x_0 (N, C, H, W) in the prior's space; sigma_y > 0. (N,) float64, CPU."""
        square = row_sum((self.y - self.operator(self.prior.decode(x_0))).square())
        variance = self.sigma_y**2
        return gaussian_log_density(square / variance, self.count * math.log(variance), self.count)

    @property
    def count(self) -> Tensor:
        """M_y, the number of entries of y that carry information, (N,) float64 on the CPU."""
        return informative(self.operator, self.y)


def informative(operator: Operator, y: Tensor) -> Tensor:
    """The number of entries of y (N, ...) that carry information, (N,) float64 on the CPU."""
    return (operator.measured(torch.ones_like(y)) != 0).flatten(1).sum(1).cpu().double()


def gaussian_log_density(square: Tensor, log_det: Tensor, count: Tensor) -> Tensor:
    """-(r^T S^-1 r + log det S + M log(2 pi)) / 2, (N,) float64 on the CPU."""
    return -0.5 * (square.cpu().double() + log_det + count * math.log(2 * math.pi))


class Denoised:
    """D(x_t, t) with the graph that made it, for products with its Jacobian J.

    The first product is part of the evaluation that ``Prior.denoise`` counts as one with gradient; each further one
    is counted as one more.

    Raises:
        PriorError: the prior's denoiser cannot be differentiated.
    """

    def __init__(self, prior: Prior, x_t: Tensor, t: Tensor) -> None:
        self.prior = prior
        with torch.enable_grad():
            self.x_t = x_t.detach().requires_grad_()
            out = prior.evaluate(self.x_t, t)
        self.graph = out.mean
        if not self.graph.requires_grad:
            raise PriorError(f"the prior {prior.name} has no gradient; use a method that does not need one")
        self.x_0 = self.graph.detach()
        self.variance_share = None if out.variance_share is None else out.variance_share.detach()
        self._passes = 0
        self._double: tuple[Tensor, Tensor] | None = None

    def vjp(self, v: Tensor) -> Tensor:
        """J^T v for v (N, C, H, W)."""
        self._count()
        (product,) = torch.autograd.grad(self.graph, self.x_t, v.to(self.graph.dtype), retain_graph=True)
        return product

    def jvp(self, v: Tensor) -> Tensor:
        """J v for v (N, C, H, W), as the derivative of u -> J^T u, which is linear."""
        if self._double is None:
            with torch.enable_grad():
                u = torch.zeros_like(self.graph, requires_grad=True)
                (vjp,) = torch.autograd.grad(self.graph, self.x_t, u, create_graph=True)
            self._count()
            self._double = u, vjp
        u, vjp = self._double
        self._count()
        (product,) = torch.autograd.grad(vjp, u, v.to(vjp.dtype), retain_graph=True)
        return product

    def _count(self) -> None:
        if self._passes:
            self.prior.nfe.add(backward=len(self.x_t))
        self._passes += 1


class Decoded:
    """Dec(z) of latents z with its graph, for products with the decoder's Jacobian; the identity of pixels.

    Args:
        prior: the prior; of a pixel prior, the decoder is the identity.
        z: (N, C, H, W), in the prior's space.
    """

    def __init__(self, prior: Prior, z: Tensor) -> None:
        self._latent = prior.latent
        self._double: tuple[Tensor, Tensor] | None = None
        if not self._latent:
            self.image = z
            return
        with torch.enable_grad():
            self._z = z.detach().requires_grad_()
            self._graph = prior.decode(self._z)
        self.image = self._graph.detach()

    def vjp(self, v: Tensor) -> Tensor:
        """The latent (dDec/dz)^T v of an image v."""
        if not self._latent:
            return v
        (product,) = torch.autograd.grad(self._graph, self._z, v.to(self._graph.dtype), retain_graph=True)
        return product

    def jvp(self, v: Tensor) -> Tensor:
        """The image (dDec/dz) v of a latent v, as the derivative of u -> (dDec/dz)^T u, which is linear."""
        if not self._latent:
            return v
        if self._double is None:
            with torch.enable_grad():
                u = torch.zeros_like(self._graph, requires_grad=True)
                (vjp,) = torch.autograd.grad(self._graph, self._z, u, create_graph=True)
            self._double = u, vjp
        u, vjp = self._double
        (product,) = torch.autograd.grad(vjp, u, v.to(vjp.dtype), retain_graph=True)
        return product


def white_variance(prior: Prior, t: Tensor) -> Tensor:
    """r_t^2 = Var(x_0 | x_t) if x_0 were white with the prior's data_std: s^2 sigma_t^2 / (alpha_t^2 s^2 + sigma_t^2).

    Float64 in the shape of t (Song et al. 2023, PiGDM, Section 3.2; VP and s = 1: sigma_t^2).
    """
    alpha, sigma, _ = prior.schedule.level(t)
    noise, data = sigma**2, prior.data_std**2
    return data * noise / (alpha**2 * data + noise)


class Spectrum:
    """Traces of functions of A^T A, for log determinants.

    Exact where an image has at most 256 elements and, by Rademacher probes, for operators that are diagonal in pixels
    (masks); an estimate from 32 fixed probes for other operators on larger images.

    Args:
        operator: a linear A of the N rows.
        like: an image batch (N, C, H, W), for its shape and device.
    """

    def __init__(self, operator: LinearOperator, like: Tensor) -> None:
        shared = operator.select(torch.zeros(1, dtype=torch.long)) is operator
        self.operator, like = operator, like[:1] if shared else like
        self.values = self._values(like) if like[0].numel() <= _DENSE else None
        generator = torch.Generator().manual_seed(0)
        probes = torch.randint(0, 2, (_PROBES, *like.shape[1:]), generator=generator) * 2 - 1
        self._probes = [probe.to(like).expand_as(like) for probe in probes]

    def _values(self, like: Tensor) -> Tensor:
        """Singular values of each row's A, (N, d) float64."""
        basis = torch.eye(like[0].numel()).reshape(-1, *like.shape[1:]).to(like)
        rows = [self.operator.filter(e.expand_as(like), torch.square).flatten(1).cpu().double() for e in basis]
        squares = torch.linalg.eigvalsh(torch.stack(rows, 1))
        floor = 1e-6 * squares.amax(1, keepdim=True)  # float32 noise of directions that A does not see
        return torch.where(squares > floor, squares, 0).sqrt()

    def trace(self, gain: Callable[[Tensor], Tensor]) -> Tensor:
        """The sum of ``gain`` over the d singular values, (N,) float64, or (1,) where all rows share A."""
        if self.values is not None:
            return gain(self.values).sum(1)
        return torch.stack([self._quadratic(probe, gain) for probe in self._probes]).mean(0)

    def _quadratic(self, probe: Tensor, gain: Callable[[Tensor], Tensor]) -> Tensor:
        return (probe * self.operator.filter(probe, gain)).flatten(1).sum(1).cpu().double()
