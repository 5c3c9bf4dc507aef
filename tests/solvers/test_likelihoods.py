"""Approximate likelihoods against their closed forms under a Gaussian prior, where D, J and V are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from priorpaint import DenoiserPrior, Inpainting, PriorError
from priorpaint.diffusion.schedules import EDM, VP, Flow, Schedule
from priorpaint.diffusion.transitions import tweedie_scale
from priorpaint.operators import MatrixOperator
from priorpaint.priors.analytic import Gaussian
from priorpaint.solvers.dps import PointLikelihood
from priorpaint.solvers.likelihoods import Denoised, Likelihood, Spectrum, white_variance
from priorpaint.solvers.mmps import MomentLikelihood
from priorpaint.solvers.pigdm import WhiteLikelihood
from priorpaint.solvers.tmpd import RowSumLikelihood

DIM, SEEN, SIGMA_Y = 6, 3, 0.3
GENERATOR = torch.Generator().manual_seed(8)
MIX = torch.randn(DIM, DIM, generator=GENERATOR, dtype=torch.float64) / 2
COV = MIX @ MIX.mT + 0.05 * torch.eye(DIM, dtype=torch.float64)
MEAN = torch.randn(DIM, generator=GENERATOR, dtype=torch.float64)
MATRIX = torch.randn(SEEN, DIM, generator=GENERATOR, dtype=torch.float64)
MASK = torch.tensor([1.0, 0, 1, 1, 0, 0], dtype=torch.float64)
X_T = torch.randn(4, 1, 2, 3, generator=GENERATOR)
T = torch.tensor(0.4, dtype=torch.float64)
SCHEDULES = [VP(), EDM(), Flow()]


def gaussian(schedule: Schedule) -> Gaussian:
    return Gaussian(MEAN, COV.tolist(), (1, 2, 3), schedule)


def dense_problem() -> tuple[MatrixOperator, Tensor, Tensor, Tensor]:
    """Operator, y of the rows, and A and y without entries that say nothing."""
    y = torch.randn(4, SEEN, generator=torch.Generator().manual_seed(1))
    return MatrixOperator(MATRIX, (1, 2, 3)), y, MATRIX, y.double()


def mask_problem() -> tuple[Inpainting, Tensor, Tensor, Tensor]:
    y = torch.randn(4, 1, 2, 3, generator=torch.Generator().manual_seed(1)) * MASK.reshape(2, 3).float()
    known = MASK > 0
    return (
        Inpainting(MASK.reshape(2, 3)),
        y,
        torch.eye(DIM, dtype=torch.float64)[known],
        y.flatten(1)[:, known].double(),
    )


PROBLEMS = [dense_problem, mask_problem]


def moments(schedule: Schedule) -> tuple[Tensor, Tensor, Tensor]:
    """D (4, d), J and V."""
    alpha, sigma = schedule.alpha(T), schedule.sigma(T)
    eye = torch.eye(DIM, dtype=torch.float64)
    j = alpha * COV @ torch.linalg.inv(alpha**2 * COV + sigma**2 * eye)
    d = MEAN + (X_T.double().flatten(1) - alpha * MEAN) @ j.mT
    return d, j, sigma**2 / alpha * j


def check(likelihood: Likelihood, a: Tensor, y: Tensor, j: Tensor, d: Tensor, s: Tensor) -> None:
    """D, G and the log density for S_t = s, from their definitions."""
    seen = likelihood.evaluate(X_T, T)
    residual = y - d @ a.mT
    gradient = torch.linalg.solve(s, residual[..., None])[..., 0] @ a @ j
    torch.testing.assert_close(seen.x_0.flatten(1).double(), d, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(seen.gradient.flatten(1).double(), gradient, rtol=2e-3, atol=2e-4)
    assert seen.log_likelihood is not None
    expected = MultivariateNormal(torch.zeros(len(a), dtype=torch.float64), s).log_prob(residual)
    torch.testing.assert_close(seen.log_likelihood, expected, rtol=1e-3, atol=1e-3)
    bare = likelihood.evaluate(X_T, T, density=False)
    assert torch.equal(bare.gradient, seen.gradient)


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("kind", ["point", "wide", "white"])
def test_point_and_white_likelihoods(kind: str, schedule: Schedule, problem: object) -> None:
    operator, y, a, seen_y = problem()  # type: ignore[operator]
    d, j, _ = moments(schedule)
    prior = gaussian(schedule)
    prior.data_std = 0.7
    alpha, sigma = schedule.alpha(T).item(), schedule.sigma(T).item()
    r2 = 0.49 * sigma**2 / (0.49 * alpha**2 + sigma**2)
    eye = torch.eye(len(a), dtype=torch.float64)
    if kind == "white":
        check(WhiteLikelihood(prior, operator, y, SIGMA_Y), a, seen_y, j, d, SIGMA_Y**2 * eye + r2 * a @ a.mT)
        return
    extra = r2 if kind == "wide" else 0.0
    likelihood = PointLikelihood(prior, operator, y, SIGMA_Y, widen=kind == "wide")
    check(likelihood, a, seen_y, j, d, (SIGMA_Y**2 + extra) * eye)


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("linear_solver", ["cg", "gmres"])
@pytest.mark.parametrize("symmetric", [False, True])
def test_moment_likelihood(schedule: Schedule, problem: object, linear_solver: str, symmetric: bool) -> None:
    """With M_y iterations the gradient and the quadratic form are exact; log det S is z^T log(S) z of one probe."""
    operator, y, a, seen_y = problem()  # type: ignore[operator]
    d, j, v = moments(schedule)
    likelihood = MomentLikelihood(
        gaussian(schedule),
        operator,
        y,
        SIGMA_Y,
        iterations=len(a),
        linear_solver=linear_solver,  # type: ignore[arg-type]
        symmetric=symmetric,
    )
    s = SIGMA_Y**2 * torch.eye(len(a), dtype=torch.float64) + a @ v @ a.mT
    seen = likelihood.evaluate(X_T, T)
    residual = seen_y - d @ a.mT
    solved = torch.linalg.solve(s, residual[..., None])[..., 0]
    torch.testing.assert_close(seen.gradient.flatten(1).double(), solved @ a @ j, rtol=5e-3, atol=1e-3)
    probe = likelihood._probe[0].flatten().double()
    probe = probe[probe != 0]
    assert set(probe.abs().tolist()) == {1.0} and len(probe) == len(a)
    values, vectors = torch.linalg.eigh(s)
    log_det = ((probe @ vectors) ** 2 * values.log()).sum()
    expected = -0.5 * ((residual * solved).sum(1) + log_det + len(a) * math.log(2 * math.pi))
    assert seen.log_likelihood is not None
    torch.testing.assert_close(seen.log_likelihood, expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_row_sum_likelihood(schedule: Schedule, problem: object) -> None:
    """diag(sigma_y^2 + |A V A^T 1|)."""
    operator, y, a, seen_y = problem()  # type: ignore[operator]
    d, j, v = moments(schedule)
    s = torch.diag(SIGMA_Y**2 + (a @ v @ a.mT).sum(1).abs())
    check(RowSumLikelihood(gaussian(schedule), operator, y, SIGMA_Y, shorten=False), a, seen_y, j, d, s)


def test_the_dense_problem_has_a_negative_row_sum() -> None:
    """So that the absolute value is tested."""
    sums = [(MATRIX @ moments(s)[2] @ MATRIX.mT).sum(1).min().item() for s in SCHEDULES]
    assert min(sums) < 0


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_row_sums_that_are_too_small_give_a_shorter_pull(schedule: Schedule) -> None:
    """The pull along u = L^-1 r is at most what minimises the misfit under S; rows where L is wide enough keep it."""
    operator, y, a, seen_y = dense_problem()
    d, _, v = moments(schedule)
    s = SIGMA_Y**2 * torch.eye(len(a), dtype=torch.float64) + a @ v @ a.mT
    sums = SIGMA_Y**2 + (a @ v @ a.mT).sum(1).abs()
    residual = seen_y - d @ a.mT
    u = residual / sums
    step = ((u * residual).sum(1) / (u * (u @ s)).sum(1)).clamp(max=1)
    free, short = (
        RowSumLikelihood(gaussian(schedule), operator, y, SIGMA_Y, shorten=shorten).evaluate(X_T, T)
        for shorten in (False, True)
    )
    assert bool((step < 1).any())
    torch.testing.assert_close(
        short.gradient.flatten(1).double(), step[:, None] * free.gradient.flatten(1).double(), rtol=1e-3, atol=1e-4
    )


def test_without_noise_the_white_density_is_that_of_the_range_of_a() -> None:
    """Two equal rows and one more: rank 2; y agrees with itself on the equal rows."""
    matrix = torch.stack([MATRIX[0], MATRIX[0], MATRIX[1]])
    prior, y = gaussian(VP()), torch.tensor([[0.3, 0.3, -0.2]]).expand(4, 3)
    seen = WhiteLikelihood(prior, MatrixOperator(matrix, (1, 2, 3)), y, 0.0).evaluate(X_T, T)
    d, _, _ = moments(VP())
    left, values, _ = torch.linalg.svd(matrix, full_matrices=False)
    left, values = left[:, :2], values[:2]
    inside = (y.double() - d @ matrix.mT) @ left
    variance = VP().sigma(T).double() ** 2 * values**2
    expected = -0.5 * (inside**2 / variance + variance.log() + math.log(2 * math.pi)).sum(1)
    assert seen.log_likelihood is not None
    torch.testing.assert_close(seen.log_likelihood, expected, rtol=1e-3, atol=1e-3)


def test_one_time_a_row() -> None:
    operator, y, _, _ = mask_problem()
    prior = gaussian(VP())
    times = torch.tensor([0.2, 0.5, 0.2, 0.9], dtype=torch.float64)
    for cls in (PointLikelihood, WhiteLikelihood, MomentLikelihood, RowSumLikelihood):
        together = cls(prior, operator, y, SIGMA_Y).evaluate(X_T, times)
        for row, t in enumerate(times):
            alone = cls(prior, operator, y[row : row + 1], SIGMA_Y).evaluate(X_T[row : row + 1], t)
            torch.testing.assert_close(together.gradient[row : row + 1], alone.gradient, rtol=1e-4, atol=1e-4)
            assert together.log_likelihood is not None and alone.log_likelihood is not None
            torch.testing.assert_close(together.log_likelihood[row], alone.log_likelihood[0], rtol=1e-5, atol=1e-5)


def test_one_mask_a_row() -> None:
    masks = torch.stack([MASK, 1 - MASK, torch.ones(DIM), torch.zeros(DIM)]).reshape(4, 1, 2, 3)
    operator, prior = Inpainting(masks), gaussian(VP())
    y = operator(torch.randn(4, 1, 2, 3, generator=torch.Generator().manual_seed(1)))
    for cls in (PointLikelihood, WhiteLikelihood, MomentLikelihood, RowSumLikelihood):
        got = cls(prior, operator, y, SIGMA_Y).evaluate(X_T, T).log_likelihood
        assert got is not None and got[3] == 0, "nothing known: p(y | x_t) = 1"
        for row in range(3):
            rows = slice(row, row + 1)
            alone = cls(prior, Inpainting(masks[rows]), y[rows], SIGMA_Y).evaluate(X_T[rows], T).log_likelihood
            assert alone is not None
            torch.testing.assert_close(got[rows], alone, rtol=1e-5, atol=1e-5)


def test_exact_is_the_measurement_noise() -> None:
    operator, y, a, seen_y = mask_problem()
    got = PointLikelihood(gaussian(VP()), operator, y, SIGMA_Y).exact(X_T)
    residual = seen_y - X_T.double().flatten(1) @ a.mT
    expected = torch.distributions.Normal(0.0, SIGMA_Y).log_prob(residual).sum(1)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


# -- products with J, and what they cost -------------------------------------------------------------------------------


def crooked() -> tuple[DenoiserPrior, Tensor]:
    """A linear denoiser with a Jacobian that is not symmetric."""
    return DenoiserPrior(lambda x, t: (x.flatten(1) @ MIX.float().mT).reshape(x.shape), VP(), (1, 2, 3)), MIX.float()


def test_jvp_and_vjp() -> None:
    prior, j = crooked()
    seen = Denoised(prior, X_T, T)
    v = torch.randn(4, 1, 2, 3, generator=torch.Generator().manual_seed(2))
    for _ in range(2):
        torch.testing.assert_close(seen.vjp(v).flatten(1), v.flatten(1) @ j)
        torch.testing.assert_close(seen.jvp(v).flatten(1), v.flatten(1) @ j.mT)


def test_each_pass_beyond_the_first_is_counted() -> None:
    prior, _ = crooked()
    seen = Denoised(prior, X_T, T)
    assert (prior.nfe.forward, prior.nfe.backward) == (0, 4)
    seen.vjp(X_T)
    assert prior.nfe.backward == 4
    seen.vjp(X_T)
    assert prior.nfe.backward == 8
    seen.jvp(X_T)
    assert prior.nfe.backward == 16, "the graph of J^T u, and J v"
    seen.jvp(X_T)
    assert prior.nfe.backward == 20


def test_a_prior_without_gradient() -> None:
    prior = DenoiserPrior(lambda x, t: 0.5 * x.detach(), VP(), (1, 2, 3))
    with pytest.raises(PriorError, match="no gradient"):
        Denoised(prior, X_T, T)


# -- numbers -----------------------------------------------------------------------------------------------------------


def test_spread_and_white_variance() -> None:
    one = torch.ones((), dtype=torch.float64)
    assert tweedie_scale(Flow(), one) == 0, "pure noise says nothing about y"
    prior = gaussian(Flow())
    assert white_variance(prior, one) == pytest.approx(1.0)
    for schedule in SCHEDULES:
        white = Gaussian([0.0], [[1.0]], schedule=schedule)
        j = schedule.alpha(T) / (schedule.alpha(T) ** 2 + schedule.sigma(T) ** 2)
        assert white_variance(white, T).item() == pytest.approx((tweedie_scale(schedule, T) * j).item())


def test_spectrum_of_large_masks_is_exact_and_of_others_near() -> None:
    known = torch.rand(2, 1, 24, 24, generator=torch.Generator().manual_seed(0)) > 0.4
    images = torch.zeros(2, 3, 24, 24)
    traces = Spectrum(Inpainting(known), images).trace(lambda s: torch.where(s > 0, 2.5, 0.0))
    torch.testing.assert_close(traces, 2.5 * 3 * known.sum((1, 2, 3)).double(), rtol=1e-6, atol=0)
    matrix = torch.randn(40, 1728, generator=torch.Generator().manual_seed(0)) / 40
    values = torch.linalg.svdvals(matrix.double())
    near = Spectrum(MatrixOperator(matrix, (3, 24, 24)), images).trace(lambda s: (1 + s**2).log())
    # Hutchinson's variance is at most 2 ||f||_F^2 a probe.
    error = math.sqrt(2 * (1 + values**2).log().square().sum().item() / 32)
    assert near.item() == pytest.approx((1 + values**2).log().sum().item(), abs=4 * error)
