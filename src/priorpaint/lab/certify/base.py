"""What a problem is: an exact law, an operator, a measurement; and what the standard problems are built from."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from ...diffusion.rng import Streams, derive
from ...diffusion.schedules import EDM
from ...errors import UsageError
from ...operators import Inpainting, LinearOperator, MatrixOperator
from ...priors.analytic import GaussianMixture
from ...priors.base import Prior
from ...priors.latent import LatentPrior, LinearAutoencoder
from ...solvers import Solver
from .mixtures import Copies, element_std, widest


@dataclass(frozen=True, eq=False)
class Problem:
    """A measurement y = A x_0 + sigma_y n with the exact law of x_0.

    With an ``autoencoder``, x_0 is a latent and y = A Dec(x_0) + sigma_y n. Solvers then get a latent prior and return
    images, but all measures are those of latents: images lie on the subspace that the decoder reaches and have no
    density, and samples are encoded to compare them, which loses nothing of a decoded latent.

    Attributes:
        name: what tables call it.
        law: the exact prior of x_0, of one copy where there are ``copies``.
        operator: A of one copy.
        y: the measurement (1, ...) of one copy.
        sigma_y: standard deviation of the noise, in units of image values.
        prior: what the solver gets; None is the exact denoiser of ``law``. Give a network of yours to certify it.
        seed: the draw.
        copies: with B > 1, the solver gets B independent copies of the problem as the rows of one image.
        most_samples: the largest number of samples that a run draws, for problems that cost much.
        autoencoder: of latents, linear, so that the posterior stays exact; None for images.
        costly: whether the default run leaves out budgets above 200, the rank test and all but one draw.
        about: one sentence for the tables.
    """

    name: str
    law: GaussianMixture
    operator: LinearOperator
    y: Tensor
    sigma_y: float = 0.0
    prior: Prior | None = None
    seed: int = 0
    copies: int = 1
    most_samples: int | None = None
    autoencoder: LinearAutoencoder | None = None
    costly: bool = False
    about: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if len(self.y) != 1:
            raise UsageError(f"a problem has one measurement (1, ...), not {len(self.y)}")
        if self.copies > 1 and not isinstance(self.operator, Inpainting):
            raise UsageError("copies of a problem are rows of an image and need a mask as operator")
        if self.copies > 1 and self.autoencoder is not None:
            raise UsageError("copies of a problem are rows of an image, and latents have no rows; pass copies=1")

    @cached_property
    def posterior(self) -> GaussianMixture:
        """The exact p(x_0 | y) of one copy."""
        if self.autoencoder is None:
            return self.law.posterior(self.operator, self.y, self.sigma_y)
        basis = torch.eye(self.law.dim, dtype=torch.float64).reshape(-1, *self.law.shape)
        matrix = self.observed(basis).flatten(1).mT
        return self.law.posterior(MatrixOperator(matrix, self.law.shape), self.y.flatten(1), self.sigma_y)

    def observed(self, x_0: Tensor) -> Tensor:
        """A x_0, or A Dec(x_0), for x_0 (n, C, H, W) of one copy."""
        return self.operator(x_0 if self.autoencoder is None else self.autoencoder.decode(x_0))

    @cached_property
    def solver_prior(self) -> Prior:
        """The prior that a solver gets."""
        if self.prior is not None:
            return self.prior
        if self.autoencoder is not None:
            return LatentPrior(self.law, self.autoencoder, self.name)
        return self.law if self.copies == 1 else Copies(self.law, self.copies)

    def settled(self, solver: Solver) -> Solver:
        """The method with what it leaves to the problem decided."""
        height, width = self.solver_operator.image_shape(self.solver_y)[1:]
        shape = self.solver_prior.latent_shape(height, width)
        return solver.settled(self.solver_prior, shape, isinstance(self.solver_operator, Inpainting))

    @cached_property
    def solver_operator(self) -> LinearOperator:
        """The operator that a solver gets."""
        if self.copies == 1:
            return self.operator
        assert isinstance(self.operator, Inpainting)
        return Inpainting(self.operator.known.expand(1, 1, self.copies, -1))

    @property
    def solver_y(self) -> Tensor:
        """The measurement that a solver gets, (1, ...) float32."""
        return self.y if self.copies == 1 else self.y.expand(1, 1, self.copies, -1).clone()

    def split(self, x: Tensor) -> Tensor:
        """Images (n, C, H, W) of the solver as vectors x_0 of single copies (copies, n, d), float64."""
        x_0 = x.detach().cpu().double()
        x_0 = x_0 if self.autoencoder is None else self.autoencoder.encode(x_0)
        return x_0.reshape(len(x), self.copies, self.law.dim).transpose(0, 1)

    def joint(self, num: int, *, seed: int) -> tuple[Tensor, Tensor]:
        """``num`` draws of (image, y) from the joint law, as the solver sees them: (num, C, H, W) and (num, ...)."""
        prior = self.solver_prior if self.prior is None else self.law
        x_0 = prior.exact(num, seed=seed) if isinstance(prior, Copies) else self.law.sample(num, seed=seed)
        x_0 = x_0 if self.autoencoder is None else self.autoencoder.decode(x_0)
        return x_0, measure(self.solver_operator, x_0, self.sigma_y, seed)


def measure(operator: LinearOperator, x_0: Tensor, sigma_y: float, seed: int) -> Tensor:
    """y = A x_0 + sigma_y n, (N, ...) float32, for x_0 (N, C, H, W)."""
    clean = operator(x_0)
    noise = Streams([derive("measurement", seed, row) for row in range(len(x_0))]).normal_like(clean)
    return operator.measured(clean + sigma_y * noise).float()


def dressed(law: GaussianMixture) -> GaussianMixture:
    """The law with the schedule and the width that fit it."""
    std = element_std(law)
    law.schedule, law.data_std = EDM(sigma_min=0.005 * std, sigma_max=20 * widest(law)), std
    return law


FRESH = 2**32
"""Draws of problems are numbered: those below this are the ones of the tables, the others are `fresh`."""


def fresh(draw_seed: int, i: int) -> int:
    """The number of the draw i of a caller's own seed."""
    return FRESH + derive("certify draw", draw_seed, i) % FRESH


def undecided(draw: Callable[[int], Problem], seed: int) -> Problem:
    """The draw number ``seed`` of those whose heaviest posterior mode is below .8: there is something to decide.

    A fresh draw is the first such one from its number on.
    """
    first, skipped = (seed, 0) if seed >= FRESH else (0, seed)
    candidates = itertools.count(first)
    open_draws = (p for candidate in candidates if float((p := draw(candidate)).posterior.weights.max()) < 0.8)
    return replace(next(itertools.islice(open_draws, skipped, None)), seed=seed)


def generator_of(name: str, seed: int) -> torch.Generator:
    """What a draw of a problem takes its random numbers from."""
    return torch.Generator().manual_seed(derive("certify", name, seed))


def rotation(d: int, generator: torch.Generator) -> Tensor:
    """A random orthogonal matrix (d, d), float64."""
    axes: Tensor = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))[0]
    return axes


def random_cov(d: int, generator: torch.Generator) -> Tensor:
    """A covariance (d, d), float64, with random axes and eigenvalues log-uniform in [0.02, 1]."""
    values = torch.exp(math.log(0.02) * torch.rand(d, generator=generator, dtype=torch.float64))
    axes = rotation(d, generator)
    return axes * values @ axes.mT
