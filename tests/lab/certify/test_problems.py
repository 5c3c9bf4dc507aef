"""The standard problems are what their sources say."""

from __future__ import annotations

import math

import pytest
import torch

from priorpaint import Inpainting, UsageError
from priorpaint.lab.certify.base import Problem
from priorpaint.lab.certify.mixtures import Copies, SharedCovariance, widest
from priorpaint.lab.certify.problems import PROBLEMS, STANDARD, i8_law, problem, select
from priorpaint.operators import MatrixOperator
from priorpaint.priors.analytic import GaussianMixture

SMALL = [name for name in PROBLEMS if not name.startswith(("M25-80", "B16"))]


@pytest.mark.parametrize("name", SMALL)
def test_every_problem_is_whole_and_fixed_by_its_seed(name: str) -> None:
    place, again = problem(name, 1), problem(name, 1)
    assert place.name == name and place.about and torch.equal(place.y, again.y)
    assert torch.equal(place.posterior.means, again.posterior.means)
    assert place.solver_y.dtype == torch.float32
    assert place.solver_operator.image_shape(place.solver_y) == place.solver_prior.image_shape
    schedule, std = place.law.schedule, place.law.data_std
    assert schedule.nsr_range == pytest.approx((0.005 * std, 20 * widest(place.law)))
    assert float(place.posterior.cov.trace()) < float(place.law.cov.trace())
    if name not in ("G1", "M3"):
        assert not torch.equal(place.y, problem(name, 2).y)


def test_data_std_is_the_root_mean_square_of_an_element() -> None:
    law = problem("G16").law
    assert law.sample(20_000, seed=3).square().mean().sqrt().item() == pytest.approx(law.data_std, rel=0.01)


def test_the_toys_have_their_known_posteriors() -> None:
    g1 = problem("G1").posterior
    assert g1.mean.flatten().tolist() == pytest.approx([1.0, 0.9])
    assert g1.cov.flatten().tolist() == pytest.approx([0, 0, 0, 0.19], abs=1e-9)
    assert problem("M3").posterior.weights.tolist() == pytest.approx([0.6, 0.4, 0], abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_m16_is_undecided(seed: int) -> None:
    place = problem("M16", seed)
    eigenvalues = torch.linalg.eigvalsh(place.law.covs)
    assert place.law.means.shape == (4, 16) and place.sigma_y == 0.1
    assert float(place.posterior.weights.max()) < 0.8
    assert 0.02 <= float(eigenvalues.min()) and float(eigenvalues.max()) <= 1
    assert isinstance(place.operator, Inpainting) and int(place.operator.known.sum()) == 6
    assert place.law.mean.abs().max() < 1e-12


@pytest.mark.parametrize(("d", "rows"), [(8, 1), (8, 4), (80, 2)])
def test_m25_is_the_grid_of_mcgdiff(d: int, rows: int) -> None:
    place, unit = problem(f"M25-{d}-{rows}"), 8 * math.sqrt(2)
    means = unit / 8 * place.law.means
    assert {tuple(mean[:2].round().int().tolist()) for mean in means} == {
        (i, j) for i in range(-2, 3) for j in range(-2, 3)
    }
    assert torch.allclose(means, means[:, :2].repeat(1, d // 2), atol=1e-9)
    assert torch.allclose(place.law.covs * unit**2, torch.eye(d, dtype=torch.float64).expand(25, d, d))
    assert isinstance(place.operator, MatrixOperator) and place.y.shape == (1, rows)
    matrix = torch.cat([place.operator(row.reshape(1, 1, 1, d)) for row in torch.eye(d)]).mT
    singular = torch.linalg.svdvals(matrix)
    assert 0 < float(singular.min()) and float(singular.max()) < 1
    assert 0 < place.sigma_y * unit < float(singular.max())


def test_l64_leaves_four_directions_open() -> None:
    place = problem("L64")
    assert int((torch.linalg.eigvalsh(place.law.cov) > 1e-9).sum()) == 16
    assert int((torch.linalg.eigvalsh(place.posterior.cov) > 1e-9).sum()) == 4


def test_i8_hides_one_blob() -> None:
    """With the left half known, the sign of the left blob is decided and that of the right one is not."""
    for seed in range(3):
        place = problem("I8-half", seed)
        weights = place.posterior.weights.reshape(2, 2)  # signs of left x right
        assert float(weights.sum(1).max()) > 0.999 and 0.02 < float(weights.max(0).values.min()) < 0.5


def test_copies_are_independent_problems() -> None:
    one, many = problem("M16"), problem("B16-4")
    assert many.solver_y.shape == (1, 1, 4, 16) and many.posterior.weights.shape == (4,)
    assert all(torch.equal(many.solver_y[0, 0, row], one.y[0, 0, 0]) for row in range(4))
    prior = many.solver_prior
    assert isinstance(prior, Copies)
    x, t = torch.randn(5, 1, 4, 16, generator=torch.Generator().manual_seed(0)), torch.linspace(0.2, 0.9, 5)
    whole = prior.denoise(x, t)
    for row in range(4):
        assert torch.allclose(whole[:, :, row], one.law.denoise(x[:, :, row : row + 1], t)[:, :, 0], atol=1e-6)
    assert prior.nfe.forward == 5
    x_0, y = many.joint(3, seed=0)
    assert torch.equal(many.split(x_0)[2], x_0[:, 0, 2].double())
    assert x_0.shape == y.shape == (3, 1, 4, 16) and not torch.equal(x_0[:, :, 0], x_0[:, :, 1])
    with pytest.raises(UsageError, match="mask"):
        Problem("bad", one.law, MatrixOperator(torch.ones(1, 16)), torch.ones(1, 1), copies=2)


def test_shared_covariance_is_the_same_mixture() -> None:
    fast = i8_law()
    slow = GaussianMixture(fast.weights, fast.means, fast.covs, (1, 8, 8), fast.schedule)
    x = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for t in (1e-3, 0.1, 0.5, 1.0):
        times = torch.full((6,), t, dtype=torch.float64)
        exact = slow._denoise(x.double(), times)
        assert torch.allclose(fast._denoise(x.double(), times), exact, rtol=1e-9, atol=1e-9 * float(exact.abs().max()))
    with pytest.raises(UsageError, match="different covariances"):
        SharedCovariance([0.5, 0.5], torch.zeros(2, 1), [[[1.0]], [[2.0]]])


def test_the_joint_law_measures_what_it_drew() -> None:
    place = problem("G16")
    x_0, y = place.joint(4000, seed=1)
    gap = y - place.solver_operator(x_0)
    assert gap.square().sum().item() / (4000 * 6) == pytest.approx(0.01, rel=0.05)
    assert x_0.mean(0).flatten().tolist() == pytest.approx(place.law.mean.flatten().tolist(), abs=0.06)


def test_names() -> None:
    assert set(STANDARD) <= set(PROBLEMS) and set(select(["all"])) == set(PROBLEMS)
    assert select(["M25", "G1", "M25-8-1"]) == [*(f"M25-{d}-{m}" for d in (8, 80) for m in (1, 2, 4)), "G1"]
    for bad in (lambda: problem("M17"), lambda: select(["M17"])):
        with pytest.raises(UsageError, match="the problems are G1"):
            bad()
    with pytest.raises(UsageError, match="one measurement"):
        Problem("two", problem("G1").law, problem("G1").operator, torch.ones(2, 1, 1, 2))
