"""Standard problems in a latent space: a linear decoder keeps the posterior of the latent exact."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...diffusion.rng import derive
from ...operators import Inpainting
from ...priors.analytic import Gaussian, GaussianMixture
from ...priors.latent import LinearAutoencoder
from .base import Problem, dressed, generator_of, measure, random_cov, undecided
from .mixtures import SharedCovariance


def _patches(channels: int, size: int, generator: torch.Generator) -> LinearAutoencoder:
    """A decoder of size x size cells into patches of 4 x 4 pixels, with columns of different lengths per channel."""
    columns = torch.linalg.qr(torch.randn(16, channels, generator=generator, dtype=torch.float64)).Q
    lengths = torch.linspace(2.5, 1.5, channels, dtype=torch.float64)
    return LinearAutoencoder.patches((columns * lengths).reshape(1, 4, 4, channels), size, size)


def _posed(name: str, law: GaussianMixture, known: Tensor, sigma_y: float, seed: int, about: str) -> Problem:
    autoencoder = _patches(law.shape[0], law.shape[1], generator_of(f"{name} codec", seed))
    operator = Inpainting(known)
    truth = autoencoder.decode(law.sample(1, seed=derive("certify truth", name, seed)))
    y = measure(operator, truth, sigma_y, derive("certify noise", name, seed))
    return Problem(name, law, operator, y, sigma_y, seed=seed, autoencoder=autoencoder, about=about)


def zg16(seed: int = 0) -> Problem:
    """A linear-Gaussian latent problem: 2 x 2 cells of 4 channels, decoded to 8 x 8 pixels, of which 10 are seen.

    Eigenvalues of the latents' covariance are log-uniform in [.02, 1]; the decoder W makes patches of 4 x 4 pixels,
    with orthogonal columns of lengths 1.5 to 2.5; sigma_y = .1. With M = A W the posterior of the latent is
    N(C' M^T y / sigma_y^2, C'), C' = (C^-1 + M^T M / sigma_y^2)^-1. Source: the check of latent solvers on a linear
    autoencoder, which PSLD's theory is about (Rout et al. 2023, Sec. 3).
    """
    generator = generator_of("Z-G16", seed)
    law = dressed(Gaussian(torch.zeros(16), random_cov(16, generator), (4, 2, 2)))
    known = torch.zeros(64)
    known[torch.randperm(64, generator=generator)[:10]] = 1
    about = "Gaussian latent 4 x 2 x 2, linear decoder to 8 x 8, 10 pixels seen, sigma_y .1"
    return _posed("Z-G16", law, known.reshape(8, 8), 0.1, seed, about)


def zm32(seed: int = 0) -> Problem:
    """A mixture of 4 in a latent space that is 4 times smaller along each side: 2 x 4 x 4, decoded to 16 x 16 pixels.

    Means .8 N(0, I), centred, with one smooth covariance; weights Dir(3); the right half of the picture is hidden,
    sigma_y = .05. Components come in pairs that differ in the hidden half only; draws whose heaviest posterior mode is
    below .8 count.
    """
    return undecided(_zm32, seed)


def _zm32(seed: int) -> Problem:
    generator = generator_of("Z-M32", seed)
    weights = -torch.rand(4, 3, generator=generator, dtype=torch.float64).log().sum(1)
    means = 0.8 * torch.randn(4, 2, 4, 4, generator=generator, dtype=torch.float64)
    means[1::2, :, :, :2] = means[::2, :, :, :2]  # pairs that differ in the hidden half only
    means = means.flatten(1) - weights @ means.flatten(1) / weights.sum()
    axis = torch.arange(4, dtype=torch.float64)
    cells = torch.cartesian_prod(axis, axis)
    smooth = torch.exp(-torch.cdist(cells, cells).square() / (2 * 1.0**2)) + 0.05 * torch.eye(16, dtype=torch.float64)
    cov = 0.15 * torch.kron(torch.eye(2, dtype=torch.float64), smooth)
    law = dressed(SharedCovariance(weights, means, cov, (2, 4, 4)))
    known = torch.zeros(16, 16)
    known[:, :8] = 1
    about = "4 components in a latent 2 x 4 x 4, linear decoder to 16 x 16, right half hidden, sigma_y .05"
    return _posed("Z-M32", law, known, 0.05, seed, about)


LATENT: dict[str, Callable[[int], Problem]] = {"Z-G16": zg16, "Z-M32": zm32}
