"""Standard problems whose posterior is known exactly.

A problem is a prior with an exact law, an operator, one measurement y and sigma_y. Vectors of d numbers are dressed as
images (1, 1, d). The seed of a random problem chooses the draw: prior, operator, truth and noise; G1 and M3 are the
same for every seed but those of fresh draws. Every prior has an EDM schedule from 0.005 of its standard deviation up to
20 times the width of its widest direction, so that the first noise hides everything: a deterministic sampler keeps what
it does not hide.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ...diffusion.rng import derive
from ...errors import UsageError
from ...operators import Inpainting, LinearOperator, MatrixOperator
from ...priors.analytic import Gaussian, GaussianMixture
from .base import FRESH, Problem, dressed, generator_of, measure, random_cov, rotation, undecided
from .latent_problems import LATENT
from .mixtures import SharedCovariance


def _mask(known: Sequence[int] | Tensor, height: int, width: int) -> Inpainting:
    """The pixels that are known, counted row by row."""
    return Inpainting(torch.zeros(height * width).index_fill(0, torch.as_tensor(known), 1).reshape(height, width))


def _observed(law: GaussianMixture, operator: LinearOperator, sigma_y: float, name: str, seed: int) -> Tensor:
    """A y that the law itself produced."""
    x_0 = law.sample(1, seed=derive("certify truth", name, seed))
    return measure(operator, x_0, sigma_y, derive("certify noise", name, seed))


def g1(seed: int = 0) -> Problem:
    """Two correlated Gaussian pixels, N(0, [[1, .9], [.9, 1]]); the first is known to be 1; x_2 ~ N(.9, .19).

    A fresh draw has another correlation, uniform in (-1, 1), and a y of the law itself.
    Source: Toy G of the published checks of DPS, RePaint and CoPaint on a case that can be computed by hand.
    """
    if seed >= FRESH:
        rho = float(2 * torch.rand((), generator=generator_of("G1", seed), dtype=torch.float64) - 1)
        law, operator = dressed(Gaussian([0.0, 0.0], [[1.0, rho], [rho, 1.0]])), _mask([0], 1, 2)
        y = _observed(law, operator, 0.0, "G1", seed)
        return Problem("G1", law, operator, y, seed=seed, about="2-D Gaussians, x_1 known")
    law = Gaussian([0.0, 0.0], [[1.0, 0.9], [0.9, 1.0]])
    y = torch.tensor([[[[1.0, 0.0]]]])
    return Problem("G1", dressed(law), _mask([0], 1, 2), y, seed=seed, about="2-D Gaussian, correlation .9, x_1 = 1")


def m3(seed: int = 0) -> Problem:
    """Three Gaussians of std .2, weights .3/.2/.5 at (1, 1), (1, -1), (-1, 0); x_1 = 1 known.

    The truth is x_2 near 1 and -1 with weights .6 and .4. A fresh draw has weights Dir(3), and means with x_1 = +-1
    and x_2 uniform in (-1.5, 1.5), and a y of the law itself. Source: Toy M of the same checks as `g1`.
    """
    if seed >= FRESH:
        return undecided(_three_modes, seed)
    means = [[1.0, 1.0], [1.0, -1.0], [-1.0, 0.0]]
    law = SharedCovariance([0.3, 0.2, 0.5], means, 0.04 * torch.eye(2, dtype=torch.float64))
    y = torch.tensor([[[[1.0, 0.0]]]])
    return Problem(
        "M3", dressed(law), _mask([0], 1, 2), y, seed=seed, about="three modes in 2-D, x_1 = 1; truth .6/.4/0"
    )


def _three_modes(seed: int) -> Problem:
    generator = generator_of("M3", seed)
    x_1 = torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64)
    means = torch.stack([x_1, 3 * torch.rand(3, generator=generator, dtype=torch.float64) - 1.5], 1)
    law = dressed(SharedCovariance(_dirichlet(3, generator), means, 0.04 * torch.eye(2, dtype=torch.float64)))
    operator = _mask([0], 1, 2)
    return Problem(
        "M3", law, operator, _observed(law, operator, 0.0, "M3", seed), about="three modes in 2-D, x_1 known"
    )


def _dirichlet(components: int, generator: torch.Generator) -> Tensor:
    """Dir(3), not normalised: sums of three exponentials."""
    return -torch.rand(components, 3, generator=generator, dtype=torch.float64).log().sum(1)


def _sixteen(name: str, components: int, seed: int) -> Problem:
    """Means .8 N(0, I), centred; eigenvalues log-uniform in [.02, 1]; weights Dir(3); 6 of 16 seen with sigma_y .1."""
    generator = generator_of(name, seed)
    weights = _dirichlet(components, generator)
    means = 0.8 * torch.randn(components, 16, generator=generator, dtype=torch.float64)
    means = means - weights @ means / weights.sum()  # E[x_0] = 0, as the first noise assumes
    covs = torch.stack([random_cov(16, generator) for _ in range(components)])
    law = dressed(GaussianMixture(weights, means, covs))
    operator = _mask(torch.randperm(16, generator=generator)[:6], 1, 16)
    return Problem(name, law, operator, _observed(law, operator, 0.1, name, seed), 0.1, seed=seed)


def g16(seed: int = 0) -> Problem:
    """The one-component case of `m16`: every moment of the posterior has a closed form."""
    return replace(_sixteen("G16", 1, seed), about="16-D Gaussian, 6 coordinates seen, sigma_y .1")


def m16(seed: int = 0) -> Problem:
    """A mixture of 4 full-covariance Gaussians in 16-D, 6 coordinates seen, sigma_y = .1.

    Means .8 N(0, I), centred, eigenvalues log-uniform in [.02, 1], weights Dir(3); only draws whose heaviest posterior
    mode is below .8 count, so that there is something to decide. Source: the comparison of particle methods in
    docs/methods/smc.md, and of libraries for inverse problems on the same family.
    """
    drawn = undecided(lambda candidate: _sixteen("M16", 4, candidate), seed)
    return replace(drawn, about="4 components in 16-D, 6 coordinates seen, sigma_y .1")


def m25(d: int, rows: int, seed: int = 0) -> Problem:
    """25 unit Gaussians at 8 (i, j), i, j in -2..2, repeated to d dimensions, seen through ``rows`` random rows.

    Weights are squares of normal numbers; A = U diag(s) V^T with s uniform in (0, 1), sigma_y uniform in (0, max s).
    Source: the benchmark of MCGDiff (Cardoso et al., "Monte Carlo guided Diffusion for Bayesian linear inverse
    problems", ICLR 2024, Sec. 5 and App. B). Here all lengths, sigma_y too, are divided by 8 sqrt(2) = 11.3, the
    standard deviation of the grid, so that methods meet data of the usual size: multiply distances by it to compare.
    """
    name = f"M25-{d}-{rows}"
    generator, unit = generator_of(name, seed), 8 * math.sqrt(2)
    grid = torch.tensor(list(itertools.product(range(-2, 3), repeat=2)), dtype=torch.float64)
    weights = torch.randn(25, generator=generator, dtype=torch.float64).square()
    law = SharedCovariance(weights, 8 / unit * grid.repeat(1, d // 2), torch.eye(d, dtype=torch.float64) / unit**2)
    values = torch.rand(rows, generator=generator, dtype=torch.float64)
    left, right = rotation(rows, generator), rotation(d, generator)[:rows]
    operator = MatrixOperator((left * values @ right).float(), (1, 1, d))
    sigma_y = float(torch.rand((), generator=generator, dtype=torch.float64) * values.max()) / unit
    y = _observed(dressed(law), operator, sigma_y, name, seed)
    about = f"25 modes on a grid in {d}-D, {rows} random projection{'s' if rows > 1 else ''}, noisy"
    return Problem(name, law, operator, y, sigma_y, seed=seed, most_samples=256 if d > 16 else None, about=about)


def l64(seed: int = 0) -> Problem:
    """64 pixels (8 x 8) on a random linear subspace of 16 dimensions, 12 pixels known without noise.

    The posterior is a Gaussian on the 4 dimensions that the known pixels leave open; what leaves the subspace shows in
    the moments and in the regions. Source: the linear model of RePaint+ (Rout et al. 2023, Assumption 1).
    """
    generator = generator_of("L64", seed)
    basis = rotation(64, generator)[:, :16]
    law = dressed(Gaussian(torch.zeros(64), basis @ basis.mT, (1, 8, 8)))
    operator = _mask(torch.randperm(64, generator=generator)[:12], 8, 8)
    y = _observed(law, operator, 0.0, "L64", seed)
    about = "8 x 8 pixels on 16 linear dimensions, 12 pixels known"
    return Problem("L64", law, operator, y, seed=seed, most_samples=256, about=about)


def i8_law() -> GaussianMixture:
    """8 x 8 "images": a blob on the left and one on the right, each dark or bright, and smooth texture over them."""
    axis = torch.linspace(-1, 1, 8, dtype=torch.float64)
    rows, columns = torch.meshgrid(axis, axis, indexing="ij")
    left = torch.exp(-((columns + 0.5) ** 2 + rows**2) / 0.15)
    means = [0.6 * (a * left + b * left.flip(1)) for a, b in itertools.product((1, -1), repeat=2)]
    coordinates = torch.stack([rows.flatten(), columns.flatten()], 1)
    smooth = torch.exp(-torch.cdist(coordinates, coordinates).square() / (2 * 0.4**2))
    cov = 0.04 * smooth + 0.0025 * torch.eye(64, dtype=torch.float64)
    return SharedCovariance([0.4, 0.1, 0.2, 0.3], torch.stack(means), cov, (1, 8, 8))


def i8(mask: str, seed: int = 0) -> Problem:
    """An 8 x 8 image of `i8_law` with a hole, without noise, where image-space solvers run unchanged.

    Args:
        mask: half (the right half is hidden), box (4 x 4 in the middle) or pixels (a random 80 % of them).
        seed: the picture, and the hidden pixels of ``pixels``.
    """
    name = f"I8-{mask}"
    known = torch.ones(8, 8)
    if mask == "half":
        known[:, 4:] = 0
    elif mask == "box":
        known[2:6, 2:6] = 0
    shown = torch.randperm(64, generator=generator_of(name, seed))[:13]
    law, operator = dressed(i8_law()), _mask(shown, 8, 8) if mask == "pixels" else Inpainting(known)
    about = {"half": "right half hidden", "box": "4 x 4 box hidden", "pixels": "80 % of the pixels hidden"}[mask]
    y = _observed(law, operator, 0.0, name, seed)
    return Problem(name, law, operator, y, seed=seed, most_samples=256, about=f"8 x 8 images, {about}")


def b16(copies: int, seed: int = 0) -> Problem:
    """``copies`` independent copies of the draw ``seed`` of `m16` in one image: 4^copies combinations of modes.

    All measures are those of single copies, averaged. Source: the study of joint particle methods in
    docs/methods/smc.md: ambiguities that do not depend on each other are what makes particles collapse.
    """
    one = m16(seed)
    about = f"{copies} independent cop{'ies' if copies > 1 else 'y'} of M16 in one image"
    return Problem(
        f"B16-{copies}",
        one.law,
        one.operator,
        one.y,
        one.sigma_y,
        seed=seed,
        copies=copies,
        most_samples=128 if copies > 2 else 256,
        costly=copies > 2,
        about=about,
    )


def _of(build: Callable[..., Problem], *arguments: int | str) -> Callable[[int], Problem]:
    return lambda seed: build(*arguments, seed=seed)


PROBLEMS: dict[str, Callable[[int], Problem]] = {
    "G1": g1,
    "G16": g16,
    "M3": m3,
    "M16": m16,
    **{f"M25-{d}-{rows}": _of(m25, d, rows) for d in (8, 80) for rows in (1, 2, 4)},
    "L64": l64,
    **{f"I8-{mask}": _of(i8, mask) for mask in ("half", "box", "pixels")},
    **{f"B16-{copies}": _of(b16, copies) for copies in (1, 2, 4, 8, 16)},
    **LATENT,
}

STANDARD = ("G1", "G16", "M3", "M16", "M25-8-1", "M25-80-1", "L64", "I8-half", "I8-pixels", "B16-4", "Z-G16", "Z-M32")


def problem(name: str, seed: int = 0) -> Problem:
    """A standard problem by name.

    Raises:
        UsageError: no problem of this name.
    """
    if name not in PROBLEMS:
        raise UsageError(f"there is no problem {name!r}; the problems are {', '.join(PROBLEMS)}")
    return PROBLEMS[name](seed)


def select(names: Sequence[str]) -> list[str]:
    """Names of problems; a family such as M25 stands for all of its members, ``all`` for everything.

    Raises:
        UsageError: a name that is neither.
    """
    chosen: list[str] = []
    for name in names:
        members = [key for key in PROBLEMS if name in (key, key.split("-")[0], "all")]
        if not members:
            raise UsageError(f"there is no problem {name!r}; the problems are {', '.join(PROBLEMS)}")
        chosen += [key for key in members if key not in chosen]
    return chosen
