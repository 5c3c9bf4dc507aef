"""The measuring stick measured: denoiser, score, density and posterior against autograd, grids and closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from priorpaint import Inpainting, UsageError
from priorpaint.diffusion.schedules import EDM, VE, VP, Flow, Schedule
from priorpaint.operators import MatrixOperator
from priorpaint.priors.analytic import Gaussian, GaussianMixture, LinearManifold
from tests.solvers.toy import KNOWN, Y, toy_g, toy_m

SCHEDULES = {"vp": VP(), "ve": VE(), "edm": EDM(), "flow": Flow()}


def mixture(schedule: Schedule | None = None, dim: int = 4) -> GaussianMixture:
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(3, dim, dim, dtype=torch.float64, generator=generator) / 2
    means = torch.randn(3, dim, dtype=torch.float64, generator=generator)
    eye = torch.eye(dim, dtype=torch.float64)
    return GaussianMixture([0.2, 0.5, 0.3], means, mix @ mix.mT + 0.05 * eye, (1, 2, dim // 2), schedule)


def points(prior: GaussianMixture, t: float, count: int = 6) -> Tensor:
    alpha, sigma = (f(torch.tensor(t, dtype=torch.float64)) for f in (prior.schedule.alpha, prior.schedule.sigma))
    x_0 = prior.sample(count, seed=3).double()
    return alpha * x_0 + sigma * torch.randn(x_0.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


# -- density, score, denoiser ------------------------------------------------------------------------------------------


def test_density_against_torch() -> None:
    prior = mixture()
    x = points(prior, 0.5)
    parts = [
        torch.distributions.MultivariateNormal(mean, cov).log_prob(x.flatten(1)) + weight.log()
        for weight, mean, cov in zip(prior.weights, prior.means, prior.covs, strict=True)
    ]
    torch.testing.assert_close(prior.log_prob(x), torch.stack(parts).logsumexp(0))
    torch.testing.assert_close(prior.responsibilities(x), torch.stack(parts, 1).softmax(1))


def test_noisy_density_integrates_to_one() -> None:
    prior = GaussianMixture([0.3, 0.7], [[1.0], [-1.0]], [[[0.1]], [[0.5]]])
    x = torch.linspace(-8, 8, 4001, dtype=torch.float64).reshape(-1, 1, 1, 1)
    for t in (0.0, 0.2, 1.0):
        assert torch.trapezoid(prior.log_prob(x, t).exp(), x.flatten()).item() == pytest.approx(1, abs=1e-8)


@pytest.mark.parametrize("family", SCHEDULES)
@pytest.mark.parametrize("t", [0.01, 0.3, 0.8, 0.999])
def test_tweedie(family: str, t: float) -> None:
    """score = grad log p(x_t) by autograd, and D = (x_t + sigma^2 score) / alpha."""
    prior = mixture(SCHEDULES[family])
    x = points(prior, t).requires_grad_()
    (gradient,) = torch.autograd.grad(prior.log_prob(x, t).sum(), x)
    torch.testing.assert_close(prior.score(x, t).detach(), gradient, rtol=1e-8, atol=1e-10)
    alpha, sigma = (f(torch.tensor(t, dtype=torch.float64)) for f in (prior.schedule.alpha, prior.schedule.sigma))
    expected = (x.detach() + sigma**2 * gradient) / alpha
    scale = max(1.0, (sigma**2 / alpha * gradient.abs().max()).item())
    torch.testing.assert_close(prior.denoise(x.detach(), t), expected, rtol=0, atol=1e-11 * scale)


def test_score_keeps_its_precision_down_to_t_0() -> None:
    prior = toy_g(VE(1e-6, 50.0))
    x = torch.tensor([[[[0.3, -0.2]]]], dtype=torch.float64)
    exact = -torch.linalg.solve(prior.cov, x.flatten())
    for t in (0.0, 1e-5):
        torch.testing.assert_close(prior.score(x, t).flatten(), exact, rtol=1e-9, atol=0)


def test_denoiser_is_the_mean_of_x_0_given_x_t() -> None:
    """By brute force on a grid: E[x_0 | x_t] under a 1-D mixture."""
    prior = GaussianMixture([0.3, 0.7], [[1.0], [-1.0]], [[[0.1]], [[0.5]]])
    x_0 = torch.linspace(-8, 8, 16001, dtype=torch.float64)
    density = prior.log_prob(x_0.reshape(-1, 1, 1, 1))
    for t in (0.1, 0.5, 0.95):
        alpha, sigma = (f(torch.tensor(t, dtype=torch.float64)) for f in (prior.schedule.alpha, prior.schedule.sigma))
        for x_t in (-2.0, 0.1, 0.9):
            weights = torch.softmax(density - 0.5 * ((x_t - alpha * x_0) / sigma) ** 2, 0)
            got = prior.denoise(torch.full((1, 1, 1, 1), x_t, dtype=torch.float64), t).item()
            assert got == pytest.approx((weights @ x_0).item(), abs=1e-9)


def test_denoiser_has_a_gradient_and_keeps_dtype() -> None:
    prior = mixture()
    x = points(prior, 0.5, 2)
    assert torch.autograd.gradcheck(lambda x: prior.denoise(x, 0.5), (x.requires_grad_(),))
    assert prior.denoise(x.float(), 0.5).dtype == torch.float32


def test_ends_of_the_denoiser() -> None:
    prior = mixture(Flow())
    x = points(prior, 0.5)
    torch.testing.assert_close(prior.denoise(x, 1.0), prior.mean.expand_as(x))  # pure noise says nothing
    torch.testing.assert_close(prior.denoise(x, 1e-9), x, rtol=0, atol=1e-6)  # no noise says it all


def test_singular_covariances() -> None:
    line = Gaussian([0.0, 0.0], [[1.0, 1.0], [1.0, 1.0]])
    x = line.sample(50, seed=0)
    torch.testing.assert_close(x[..., 0], x[..., 1])
    d = line.denoise(torch.tensor([[[[1.0, 0.2]]]], dtype=torch.float64), 0.001)
    assert d[..., 0].item() == pytest.approx(d[..., 1].item(), abs=1e-12), "off the line is noise"
    for function in (line.log_prob, line.score):
        with pytest.raises(UsageError, match="singular"):
            function(x, 0.0)
        assert function(x, 0.1).isfinite().all()


# -- sampling ----------------------------------------------------------------------------------------------------------


def test_exact_samples_have_the_moments() -> None:
    """10,000 samples; five standard errors, 1/sqrt(n) of each spread and sqrt(C_ii C_jj + C_ij^2)/sqrt(n) of each
    covariance (times 2 for the kurtosis that a mixture may have)."""
    prior, n = mixture(), 10_000
    x = prior.sample(n, seed=0).double()
    assert x.shape == (n, 1, 2, 2)
    spread = prior.cov.diagonal().sqrt()
    assert ((x.mean(0) - prior.mean).flatten().abs() < 5 * spread / math.sqrt(n)).all()
    error = (torch.cov(x.flatten(1).T) - prior.cov).abs()
    assert (error < 10 * (spread[:, None] ** 2 * spread**2 + prior.cov**2).sqrt() / math.sqrt(n)).all()
    share = prior.responsibilities(x).mean(0)
    assert ((share - prior.weights).abs() < 5 * (prior.weights * (1 - prior.weights) / n).sqrt()).all()


def test_exact_samples_by_seed() -> None:
    prior = mixture()
    assert torch.equal(prior.sample(5, seed=0)[:2], prior.sample(2, seed=0))
    assert not torch.equal(prior.sample(2, seed=0), prior.sample(2, seed=1))
    assert prior.sample(2, seed=0).dtype == torch.float32
    assert prior.nfe.forward == 0, "exact samples need no denoiser"
    with pytest.raises(UsageError, match="at least 1"):
        prior.sample(0, seed=0)


def test_components_of_weight_zero_are_never_drawn() -> None:
    prior = GaussianMixture([0.0, 1.0, 0.0], [[9.0], [0.0], [9.0]], [[1e-4]])
    assert prior.sample(500, seed=0).max() < 1
    assert prior.log_prob(torch.zeros(1, 1, 1, 1)).isfinite() and prior.denoise(torch.ones(1, 1, 1, 1), 0.3).isfinite()


# -- posteriors --------------------------------------------------------------------------------------------------------


def test_toy_posteriors() -> None:
    exact = toy_g().posterior(KNOWN, Y)
    torch.testing.assert_close(exact.mean.flatten(), torch.tensor([1.0, 0.9], dtype=torch.float64))
    expected = torch.tensor([[0.0, 0.0], [0.0, 0.19]], dtype=torch.float64)
    torch.testing.assert_close(exact.cov, expected, rtol=0, atol=1e-12)
    noisy = toy_g().posterior(KNOWN, Y, 0.5)
    torch.testing.assert_close(noisy.mean.flatten(), torch.tensor([0.8, 0.72], dtype=torch.float64))
    torch.testing.assert_close(noisy.cov.diagonal(), torch.tensor([0.2, 0.352], dtype=torch.float64))
    modes = toy_m().posterior(KNOWN, Y)
    torch.testing.assert_close(modes.weights, torch.tensor([0.6, 0.4, 0.0], dtype=torch.float64), rtol=0, atol=1e-9)
    torch.testing.assert_close(modes.means[:, 1], torch.tensor([1.0, -1.0, 0.0], dtype=torch.float64))


@pytest.mark.parametrize("sigma_y", [0.0, 0.2, 2.0])
def test_gaussian_posterior_in_information_form(sigma_y: float) -> None:
    """(C^-1 + A^T A / s^2)^-1 and its mean; at s = 0 the Schur complement on the unseen part."""
    prior = Gaussian(torch.tensor([0.1, -0.2, 0.3, 0.4]), mixture().covs[0], (1, 2, 2))
    operator = Inpainting(torch.tensor([[1, 0], [0, 1]]))
    y = torch.tensor([[[[0.5, 0.0], [0.0, -0.5]]]], dtype=torch.float64)
    got = prior.posterior(operator, y, sigma_y)
    cov, mean, observed = prior.covs[0], prior.means[0], torch.tensor([True, False, False, True])
    values = y.flatten()[observed]
    if sigma_y > 0:
        a = torch.eye(4, dtype=torch.float64)[observed]
        new = torch.linalg.inv(torch.linalg.inv(cov) + a.mT @ a / sigma_y**2)
        expected = new @ (torch.linalg.solve(cov, mean) + a.mT @ values / sigma_y**2)
    else:
        gain = cov[:, observed] @ torch.linalg.inv(cov[observed][:, observed])
        new, expected = cov - gain @ cov[observed], mean + gain @ (values - mean[observed])
    torch.testing.assert_close(got.covs[0], new, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(got.means[0], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("sigma_y", [0.1, 0.5])
def test_mixture_posterior_and_evidence_by_brute_force(sigma_y: float) -> None:
    """On a 601 x 601 grid over 2-D: p(x) N(y; A x, s^2) normalised, with A = (0.6, -1.1)."""
    prior = GaussianMixture(
        [0.3, 0.7], [[1.0, -1.0], [-0.5, 0.5]], [[[0.3, 0.2], [0.2, 0.3]], [[0.5, -0.1], [-0.1, 0.2]]]
    )
    operator = MatrixOperator(torch.tensor([[0.6, -1.1]]), (1, 1, 2))
    y = torch.tensor([[0.4]], dtype=torch.float64)
    axis = torch.linspace(-5, 5, 601, dtype=torch.float64)
    x = torch.cartesian_prod(axis, axis).reshape(-1, 1, 1, 2)
    log_joint = prior.log_prob(x) - 0.5 * ((y - operator(x)) / sigma_y).square().sum(1)
    log_joint = log_joint - math.log(sigma_y * math.sqrt(2 * math.pi))
    evidence = log_joint.logsumexp(0) + 2 * (axis[1] - axis[0]).log()
    assert prior.log_evidence(operator, y, sigma_y) == pytest.approx(evidence.item(), abs=1e-6)
    weights = log_joint.softmax(0)
    mean = weights @ x.flatten(1)
    centred = x.flatten(1) - mean
    exact = prior.posterior(operator, y, sigma_y)
    torch.testing.assert_close(exact.mean.flatten(), mean, rtol=0, atol=1e-6)
    torch.testing.assert_close(exact.cov, (weights[:, None] * centred).mT @ centred, rtol=0, atol=1e-6)
    # Bayes, point by point: log p(x | y) = log joint - log evidence.
    here = x[::9973]
    torch.testing.assert_close(exact.log_prob(here), log_joint[::9973] - evidence, rtol=0, atol=1e-6)


def test_posterior_of_a_posterior_is_the_posterior_of_both() -> None:
    prior = mixture()
    first, second = Inpainting(torch.tensor([[1, 0], [0, 0]])), Inpainting(torch.tensor([[0, 1], [0, 0]]))
    both = Inpainting(torch.tensor([[1, 1], [0, 0]]))
    y = torch.tensor([[[[0.5, -0.3], [0.0, 0.0]]]], dtype=torch.float64)
    for sigma_y in (0.0, 0.3):
        chained = prior.posterior(first, y, sigma_y).posterior(second, y, sigma_y)
        joint = prior.posterior(both, y, sigma_y)
        torch.testing.assert_close(chained.weights, joint.weights)
        torch.testing.assert_close(chained.means, joint.means)
        torch.testing.assert_close(chained.covs, joint.covs)
        parts = prior.log_evidence(first, y, sigma_y) + prior.posterior(first, y, sigma_y).log_evidence(
            second, y, sigma_y
        )
        assert prior.log_evidence(both, y, sigma_y) == pytest.approx(parts, abs=1e-9)


def test_little_noise_tends_to_no_noise() -> None:
    matrix = torch.randn(2, 4, generator=torch.Generator().manual_seed(2))
    prior, operator = mixture(), MatrixOperator(matrix, (1, 2, 2))
    y = torch.tensor([[0.4, -0.2]], dtype=torch.float64)
    exact, near = prior.posterior(operator, y), prior.posterior(operator, y, 1e-5)
    torch.testing.assert_close(near.weights, exact.weights, rtol=0, atol=1e-6)
    torch.testing.assert_close(near.means, exact.means, rtol=0, atol=1e-6)
    torch.testing.assert_close(near.covs, exact.covs, rtol=0, atol=1e-6)
    torch.testing.assert_close(operator(exact.sample(20, seed=0)), y.float().expand(20, 2), rtol=0, atol=1e-5)


def test_hidden_values_have_no_influence() -> None:
    dirty = torch.where(KNOWN.known > 0, Y, torch.nan)
    for sigma_y in (0.0, 0.3):
        a, b = toy_m().posterior(KNOWN, Y, sigma_y), toy_m().posterior(KNOWN, dirty, sigma_y)
        assert torch.equal(a.weights, b.weights) and torch.equal(a.means, b.means)


def test_measurements_rounded_to_float32_still_fit_a_singular_prior() -> None:
    """A 3-D subspace of 64-D seen in 32 places without noise: y is in its range only up to rounding, at any scale."""
    basis = torch.randn(64, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    operator = Inpainting((torch.arange(64) % 2).reshape(1, 64))
    for scale in (1.0, 100.0):
        prior = Gaussian(torch.zeros(64), scale**2 * basis @ basis.mT)
        x = prior.sample(1, seed=4)
        exact = prior.posterior(operator, operator(x))
        torch.testing.assert_close(exact.mean.float()[None], x, rtol=0, atol=2e-5 * scale)
        with pytest.raises(UsageError, match="no component"):
            prior.posterior(operator, operator(x + 0.1 * scale * torch.eye(64)[1]))


def test_a_component_on_the_plane_beats_one_around_it() -> None:
    """sigma_y = 0: where the measured coordinate has no spread, its density at a fitting y is infinite."""
    flat, round_ = [[0.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]]
    prior = GaussianMixture([0.1, 0.9], [[1.0, 0.0], [1.0, 0.0]], [flat, round_])  # type: ignore[arg-type]
    assert prior.posterior(KNOWN, Y).weights.tolist() == [1.0, 0.0]
    assert prior.posterior(KNOWN, 0.5 * Y).weights.tolist() == [0.0, 1.0]
    near = prior.posterior(KNOWN, Y, 1e-5)
    assert near.weights[0] > 0.999


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([-0.1, 1.1], [[0.0], [1.0]], [[1.0]]), "weights"),
        (([0.0, 0.0], [[0.0], [1.0]], [[1.0]]), "weights"),
        (([1.0], [[0.0, 0.0]], [[1.0, 2.0], [2.0, 1.0]]), "semi-definite"),
        (([1.0], [[0.0, 0.0]], [[1.0]]), "covs have shape"),
        (([0.5, 0.5], [[0.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]), "one mean a weight"),
        (([1.0], [[0.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]], (1, 1, 3)), "3 elements"),
    ],
)
def test_errors(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        GaussianMixture(*arguments)  # type: ignore[arg-type]


def test_posterior_takes_one_measurement() -> None:
    with pytest.raises(UsageError, match="one measurement"):
        toy_g().posterior(KNOWN, Y.expand(2, 1, 1, 2))


# -- linear manifolds --------------------------------------------------------------------------------------------------


def test_linear_manifold_has_the_moments_of_a_z() -> None:
    basis = torch.tensor([[1.0, 0.0], [2.0, 1.0], [0.0, 1.0]])
    prior = LinearManifold(basis, [1.0, 2.0, 3.0])
    torch.testing.assert_close(prior.cov, (basis @ basis.mT).double())
    assert prior.mean.flatten().tolist() == [1.0, 2.0, 3.0]
    x = prior.sample(500, seed=0).double().flatten(1) - prior.mean.flatten()
    normal = torch.linalg.svd(prior.basis)[0][:, 2]
    assert (x @ normal).abs().max() < 1e-5, "samples lie on the manifold"
    with pytest.raises(UsageError, match="singular"):
        prior.log_prob(prior.sample(1, seed=0))


@pytest.mark.parametrize("family", SCHEDULES)
def test_denoiser_of_a_linear_manifold_projects(family: str) -> None:
    """D = alpha / (alpha^2 + sigma^2) P x_t for orthonormal columns."""
    prior = LinearManifold.random(9, 3, seed=0, shape=(1, 3, 3), schedule=SCHEDULES[family])
    t = torch.tensor(0.4, dtype=torch.float64)
    alpha, sigma = prior.schedule.alpha(t), prior.schedule.sigma(t)
    x_t = torch.randn(4, 1, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = alpha / (alpha**2 + sigma**2) * (x_t.flatten(1) @ prior.basis @ prior.basis.mT)
    torch.testing.assert_close(prior.denoise(x_t, t).flatten(1), expected)


@pytest.mark.parametrize("known", [10, 40])
@pytest.mark.parametrize("sigma_y", [0.0, 0.3])
def test_posterior_on_a_linear_manifold_of_64_pixels(known: int, sigma_y: float) -> None:
    """In latent coordinates: z | y ~ N(S A_K^T y / s^2, S), S = (I + A_K^T A_K / s^2)^-1; pseudo-inverse at s = 0."""
    prior = LinearManifold.random(64, 16, seed=1, shape=(1, 8, 8))
    indices = torch.randperm(64, generator=torch.Generator().manual_seed(0))[:known]
    mask = torch.zeros(64).index_fill(0, indices, 1.0)
    operator = Inpainting(mask.reshape(8, 8))
    noise = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    y = operator(prior.sample(1, seed=2) + sigma_y * noise)
    observed = prior.basis[mask > 0]
    if sigma_y > 0:
        cov = torch.linalg.inv(torch.eye(16, dtype=torch.float64) + observed.mT @ observed / sigma_y**2)
        z = cov @ observed.mT @ y.double().flatten()[mask > 0] / sigma_y**2
    else:
        inverse = torch.linalg.pinv(observed)
        cov = torch.eye(16, dtype=torch.float64) - inverse @ observed
        z = inverse @ y.double().flatten()[mask > 0]
    posterior = prior.posterior(operator, y, sigma_y)
    torch.testing.assert_close(posterior.mean.flatten(), prior.basis @ z, rtol=0, atol=1e-5)
    torch.testing.assert_close(posterior.cov, prior.basis @ cov @ prior.basis.mT, rtol=0, atol=1e-9)


def test_random_manifolds_and_bad_ones() -> None:
    one, again, other = (LinearManifold.random(5, 2, seed=seed).basis for seed in (1, 1, 2))
    assert torch.equal(one, again) and not torch.equal(one, other)
    torch.testing.assert_close(one.mT @ one, torch.eye(2, dtype=torch.float64))
    for basis, message in ((torch.ones(3), "matrix"), (torch.ones(3, 2), "dependent"), (torch.eye(2, 3), "dependent")):
        with pytest.raises(UsageError, match=message):
            LinearManifold(basis)
    with pytest.raises(UsageError, match="1 <= k <= d"):
        LinearManifold.random(3, 4, seed=0)
