"""RePaint+: a climber of the noised density, its fixed points and rates, its exactness and where it fails."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from priorpaint import DenoiserPrior, Inpainting, PriorError, UsageError, solver
from priorpaint.diffusion.schedules import EDM, VE, VP, Flow, Schedule
from priorpaint.priors import Prior
from priorpaint.priors.analytic import Gaussian, GaussianMixture, LinearManifold
from priorpaint.solvers.base import Cost
from priorpaint.solvers.repaint_plus import drift_gain, sweep
from tests.solvers.toy import KNOWN, Y, toy_g, toy_m

SCHEDULES = {"vp": VP(), "ve": VE(), "edm": EDM(), "flow": Flow()}


def time_of(schedule: Schedule, ratio: float) -> Tensor:
    """The time with sigma / alpha = ratio."""
    return schedule.time_at(torch.tensor(ratio, dtype=torch.float64))


def settle(prior: Prior, x: Tensor, known: Tensor, t: Tensor, g: Tensor | float = 1.0, rounds: int = 1000) -> Tensor:
    """x after many sweeps in float64; its known pixels are y."""
    y = x
    for _ in range(rounds):
        x, _ = sweep(prior, x, y, known, t, g)
    return x


# -- what a sweep does, for any prior ----------------------------------------------------------------------------------


def random_mixture(seed: int, schedule: Schedule) -> GaussianMixture:
    generator = np.random.default_rng(seed)
    mix = generator.standard_normal((4, 6, 6)) / 3
    covs = mix @ mix.transpose(0, 2, 1) + 0.05 * np.eye(6)
    means = 1.5 * generator.standard_normal((4, 6))
    return GaussianMixture(generator.uniform(0.2, 1, 4).tolist(), means, covs, schedule=schedule)


@pytest.mark.parametrize(("seed", "family"), [(0, "vp"), (1, "vp"), (2, "ve"), (3, "edm"), (4, "flow")])
def test_a_sweep_never_lowers_the_noised_density(seed: int, family: str) -> None:
    """Acceptance 10: log p_t(alpha x) climbs to a point where the score of the hidden pixels is 0."""
    prior = random_mixture(seed, SCHEDULES[family])
    t = time_of(prior.schedule, 0.5)
    alpha = prior.schedule.alpha(t)
    known = torch.tensor([True, False, True, False, False, True]).reshape(1, 1, 6)
    y = prior.sample(8, seed=seed).double()
    x = torch.where(known, y, torch.from_numpy(np.random.default_rng(seed).standard_normal((8, 1, 1, 6))))
    height = prior.log_prob(alpha * x, t)
    for _ in range(3000):
        x, _ = sweep(prior, x, y, known, t)
        before, height = height, prior.log_prob(alpha * x, t)
        assert (height - before >= -1e-11 * before.abs().clamp(min=1)).all()
        if float(prior.score(alpha * x, t)[..., ~known[0, 0]].abs().max()) < 1e-9:
            break
    assert prior.score(alpha * x, t)[..., ~known[0, 0]].abs().max() < 1e-8
    assert torch.equal(x[..., known[0, 0]], y[..., known[0, 0]]), "known pixels are y, bit for bit"


@pytest.mark.parametrize("ratio", [0.1, 0.5])
def test_rate_at_the_fixed_point(ratio: float) -> None:
    """Off along the slowest eigenvector of the Jacobian (from autograd), a sweep shrinks the error by its eigenvalue.

    The Jacobian is (I + sigma^2 Hessian of log p_t)_MM: where the density is flat, nothing moves.
    """
    prior = random_mixture(3, VP())
    t = time_of(prior.schedule, ratio)
    known = torch.tensor([True, False, True, False, True, True]).reshape(1, 1, 6)
    y = prior.sample(1, seed=0).double()
    fixed = settle(prior, y, known, t, rounds=200 if ratio == 0.5 else 1000)
    jacobian = torch.autograd.functional.jacobian(lambda x: sweep(prior, x, y, known, t)[0], fixed).reshape(6, 6)
    hidden = ~known[0, 0]
    alpha, sigma = prior.schedule.alpha(t), prior.schedule.sigma(t)
    hessian = torch.autograd.functional.jacobian(lambda x: prior.score(x, t), alpha * fixed).reshape(6, 6)
    curvature = torch.eye(6, dtype=torch.float64) + sigma**2 * hessian
    jacobian, curvature = jacobian[hidden][:, hidden], curvature[hidden][:, hidden]
    torch.testing.assert_close(jacobian, curvature, rtol=0, atol=1e-9)
    values, vectors = torch.linalg.eigh(jacobian)
    assert 0 < float(values[0]) and float(values[-1]) < 1
    error = torch.zeros(6, dtype=torch.float64)
    error[hidden] = 1e-5 * vectors[:, -1]
    after, _ = sweep(prior, fixed + error, y, known, t)
    assert float((after - fixed).norm()) / 1e-5 == pytest.approx(float(values[-1]), abs=1e-4)


# -- Gaussian priors: closed fixed points ------------------------------------------------------------------------------


def correlated(dim: int, schedule: Schedule | None = None) -> Gaussian:
    mix = np.random.default_rng(dim).standard_normal((dim, dim)) / math.sqrt(dim)
    return Gaussian(torch.zeros(dim), mix @ mix.T + 0.1 * np.eye(dim), schedule=schedule)


@pytest.mark.parametrize("family", SCHEDULES)
def test_gain_1_is_the_posterior_mean_at_the_noise_of_the_level(family: str) -> None:
    """x_M = Sigma_MK (Sigma_KK + (sigma/alpha)^2 I)^-1 y."""
    prior = correlated(6, SCHEDULES[family])
    known = torch.tensor([True, False, True, False, True, True]).reshape(1, 1, 6)
    y = Inpainting(known[0].double())(prior.sample(1, seed=0)).double()
    fixed = settle(prior, y, known, time_of(prior.schedule, 0.4), rounds=400)
    exact = prior.posterior(Inpainting(known[0].double()), y, 0.4)
    hidden = ~known[0, 0]
    torch.testing.assert_close(fixed.flatten()[hidden], exact.mean.flatten()[hidden], rtol=0, atol=1e-10)


def test_the_solver_ends_there_and_noisy_measurements_give_the_posterior_mean() -> None:
    """Down to sigma_y and no further; all pixels, the known ones too."""
    for family in ("vp", "edm"):
        prior = correlated(6, SCHEDULES[family])
        operator = Inpainting(torch.tensor([[1.0, 0, 1, 0, 1, 1]]))
        y = operator(prior.sample(2, seed=0))
        run = solver("repaint_plus", steps=15, resamplings=15)
        out = run.sample(prior, operator, y, sigma_y=0.5)[:, 0]
        for row in range(2):
            mean = prior.posterior(operator, y[row : row + 1], 0.5).mean
            torch.testing.assert_close(out[row].double(), mean, rtol=0, atol=1e-4)


def test_noise_below_the_last_level_is_removed_to_first_order() -> None:
    prior, operator = correlated(6), Inpainting(torch.tensor([[1.0, 0, 1, 0, 1, 1]]))
    y = operator(prior.sample(1, seed=0))
    run = solver("repaint_plus", algorithm="two", level=0.2, resamplings=200)
    known = operator.known[0, 0, 0] > 0
    mean = prior.posterior(operator, y, 0.05).mean.flatten()[known]
    out = run.sample(prior, operator, y, sigma_y=0.05)[0, 0].double().flatten()[known]
    exact_y = y.double().flatten()[known]
    assert (out - mean).norm() < 0.4 * (exact_y - mean).norm(), "nearer to the posterior mean than y itself"
    tiny = run.sample(prior, operator, y, sigma_y=1e-6)
    torch.testing.assert_close(tiny, run.sample(prior, operator, y), rtol=0, atol=1e-6)


# -- the linear model: exact with the paper's gain ---------------------------------------------------------------------


@pytest.mark.parametrize("family", SCHEDULES)
@pytest.mark.parametrize("algorithm", ["two", "multi"])
def test_the_papers_gain_recovers_a_linear_manifold(algorithm: str, family: str) -> None:
    """Theorem 4 in any schedule: with g = alpha^2 / (alpha^2 + sigma^2) a sweep is P (K y + D u), at every level."""
    prior = LinearManifold.random(16, 3, seed=0, shape=(1, 4, 4), schedule=SCHEDULES[family])
    operator = Inpainting(torch.tensor([[1, 1, 0, 1], [1, 0, 1, 1], [1, 1, 1, 1], [0, 1, 1, 1]]))
    x_0 = prior.sample(3, seed=1)
    rounds = {"two": {"level": 1.0, "resamplings": 60}, "multi": {"steps": 20, "resamplings": 3}}[algorithm]
    run = solver("repaint_plus", algorithm=algorithm, gain="reference", **rounds)
    out = run.sample(prior, operator, operator(x_0), num_samples=2)
    torch.testing.assert_close(out, x_0[:, None].expand_as(out), rtol=0, atol=2e-4)


def test_the_gain_of_a_level() -> None:
    for schedule in SCHEDULES.values():
        t = time_of(schedule, 2.0)
        assert float(drift_gain(schedule, t)) == pytest.approx(0.2)
    t = torch.tensor(0.3, dtype=torch.float64)
    assert float(drift_gain(VP(), t)) == pytest.approx(float(VP().alpha(t)) ** 2), "the paper's alpha^2"


def test_annealing_makes_the_gain_unnecessary() -> None:
    """Gain 1 at one level is biased by -beta (I - (1 - beta) B)^-1 x_M; down to small noise the bias goes."""
    prior = LinearManifold([[0.5**0.5], [0.5**0.5]])
    y = torch.tensor([[[[1.0, 0.0]]]])
    for ratio in (1.0, 0.3):
        beta = ratio**2 / (1 + ratio**2)
        run = solver("repaint_plus", algorithm="two", level=ratio, resamplings=200)
        x_2 = float(run.sample(prior, KNOWN, y)[0, 0, 0, 0, 1])
        assert x_2 - 1 == pytest.approx(-beta / (1 - (1 - beta) * 0.5), abs=1e-5)
    annealed = solver("repaint_plus", steps=30, spacing="logsnr").sample(prior, KNOWN, y)[0, 0, 0, 0, 1]
    assert float(annealed) == pytest.approx(1, abs=0.01)


# -- divergence --------------------------------------------------------------------------------------------------------


def power_law(schedule: Schedule | None = None) -> Gaussian:
    """64 pixels with eigenvalues (1 + f)^-2 in frequency and unit variance: a smooth signal, as pictures are."""
    frequency = torch.fft.fftfreq(64).abs() * 64
    basis = torch.fft.fft(torch.eye(64, dtype=torch.float64))
    spectrum = (1 + frequency.double()) ** -2
    cov = (basis.conj().mT @ torch.diag((64 * spectrum / spectrum.sum()).to(basis)) @ basis).real / 64
    return Gaussian(torch.zeros(64), cov, schedule=schedule)


BOX = torch.cat([torch.ones(32), torch.zeros(32)])[None]


def test_the_papers_gain_expands_on_a_smooth_signal() -> None:
    """Acceptance 13: spectral radius of [Sigma (alpha^2 Sigma + sigma^2 I)^-1]_MM; reported 14.2 ... 1.0009."""
    prior = power_law()
    assert float(prior.cov[0, 0]) == pytest.approx(1)
    for variance, reported in ((0.99, 14.2), (0.9, 5.82), (0.5, 1.816), (0.1, 1.098), (1e-3, 1.0009)):
        t = time_of(prior.schedule, math.sqrt(variance / (1 - variance)))
        x = torch.eye(64, dtype=torch.float64)[32:].reshape(32, 1, 1, 64)
        columns, _ = sweep(prior, x, 0 * x, BOX.bool()[None], t, drift_gain(prior.schedule, t))
        radius = float(torch.linalg.eigvalsh(columns.reshape(32, 64)[:, 32:])[-1])
        assert radius == pytest.approx(reported, rel=2e-3), variance


@pytest.mark.parametrize("settings", [{"algorithm": "two", "level": 3.0}, {"algorithm": "two", "level": 0.3}, {}])
def test_divergence_is_an_error(settings: dict[str, object]) -> None:
    prior, operator = power_law(), Inpainting(BOX)
    y = operator(prior.sample(2, seed=0))
    rounds = {"resamplings": 200} if "algorithm" in settings else {"steps": 20}
    with pytest.raises(UsageError, match="diverges with gain 'reference'"):
        solver("repaint_plus", gain="reference", **rounds, **settings).sample(prior, operator, y)
    assert solver("repaint_plus", **rounds, **settings).sample(prior, operator, y).abs().max() < 5


def test_slow_divergence_is_seen_before_it_is_large() -> None:
    """Latent variance 4, sigma^2 = .9: radius 1.14 and 20 rounds; the images are still of ordinary size."""
    prior = LinearManifold([[2**0.5], [2**0.5]])
    run = solver("repaint_plus", algorithm="two", level=3.0, gain="reference", resamplings=20)
    with pytest.raises(UsageError, match="diverges"):
        run.sample(prior, KNOWN, Y)


def test_a_prior_that_is_not_finite() -> None:
    prior = DenoiserPrior(lambda x, t: x * math.nan, VP(), (1, 1, 2))
    with pytest.raises(PriorError, match="not finite"):
        solver("repaint_plus", steps=2).sample(prior, KNOWN, Y)


def test_the_papers_gain_and_noise() -> None:
    with pytest.raises(UsageError, match="gain 'one'"):
        solver("repaint_plus", gain="reference").sample(toy_g(), KNOWN, Y, sigma_y=0.1)


# -- not a sampler -----------------------------------------------------------------------------------------------------


def two_modes() -> GaussianMixture:
    covs = [[[0.25, 0.1], [0.1, 0.12]], [[0.16, -0.06], [-0.06, 0.09]]]
    return GaussianMixture([0.35, 0.65], [[0.0, 1.1], [0.0, -0.9]], covs)


NEAR = torch.tensor([[[[0.4, 0.0]]]])


def test_annealing_forgets_the_start() -> None:
    """Acceptance 11: all samples are one fill, in the heavier mode; the posterior has both (.340 in the upper)."""
    x_2 = solver("repaint_plus").sample(two_modes(), KNOWN, NEAR, num_samples=50)[0, ..., 1]
    assert x_2.std() < 1e-3 and x_2.max() < 0


def test_one_low_level_keeps_basins_with_weights_of_the_start() -> None:
    """Two points, where the posterior has two modes of std .292 and .257; their weights follow the start's width."""
    run, prior = solver("repaint_plus", algorithm="two", level=0.1, resamplings=300), two_modes()
    shares = []
    for prior.data_std in (1.0, 0.02):
        x_2 = run.sample(prior, KNOWN, NEAR, num_samples=200, seed=1)[0, ..., 0, 1].flatten()
        upper = x_2 > 0.1
        shares.append(float(upper.double().mean()))
        assert (x_2[~upper] - x_2[~upper].mean()).abs().max() < 0.01
        assert not upper.any() or (x_2[upper] - x_2[upper].mean()).abs().max() < 0.01
    assert shares[0] > 0.25 and shares[1] == 0
    modes = solver("repaint_plus", algorithm="two", resamplings=300).sample(toy_m(), KNOWN, Y, num_samples=50)
    assert set(modes[0, ..., 0, 1].flatten().round().tolist()) == {1.0, -1.0}


@pytest.mark.slow
def test_repaint_does_sample_that_mixture() -> None:
    """Acceptance 11, the other half: P(upper) about .333 and W1 .028 where RePaint+ has 0 and .919."""
    prior, count = two_modes(), 4000
    run = solver("repaint", steps=250, jump_length=10, resamplings=10, spacing="respaced")
    x_2 = run.sample(prior, KNOWN, NEAR, num_samples=count, seed=1)[0, ..., 1].flatten().double()
    exact = prior.posterior(KNOWN, NEAR).sample(40_000, seed=2)[..., 1].flatten().double()
    probability = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    assert 0.29 < (x_2 > 0.1).double().mean() < 0.38
    assert (x_2.quantile(probability) - exact.quantile(probability)).abs().mean() < 0.06


def test_circle() -> None:
    """Acceptance 12: x uniform on the unit circle, x_1 = .6 known: x_2 = .8 in the limit, rate .36 = x_1^2.

    The rate is the tangent's share of the hidden coordinate. The denoiser is x I_1(k) / (|x| I_0(k)) with
    k = alpha |x| / sigma^2.
    """
    schedule = VP()

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        length = x_t.double().flatten(1).norm(dim=1)
        kappa = schedule.alpha(t) * length / schedule.sigma(t) ** 2
        shrink = torch.special.i1e(kappa) / torch.special.i0e(kappa) / length
        return shrink[:, None, None, None] * x_t

    prior = DenoiserPrior(denoise, schedule, (1, 1, 2))
    x = torch.tensor([[[[0.6, 0.5]]]], dtype=torch.float64)
    known = torch.tensor([True, False])
    for ratio, bias in ((0.3, -0.0616), (0.1, -0.0063), (0.03, -0.0006)):
        fixed = settle(prior, x, known, time_of(schedule, ratio), rounds=60)
        assert float(fixed[..., 1]) - 0.8 == pytest.approx(bias, abs=6e-5)
    t = time_of(schedule, 0.01)
    path = [settle(prior, x, known, t, rounds=count) for count in (6, 7, 8)]
    rate = float((path[2] - path[1]).norm() / (path[1] - path[0]).norm())
    assert 0.355 < rate < 0.365
    assert abs(float(settle(prior, x, known, t, rounds=60)[..., 1]) - 0.8) < 2e-4
    run = solver("repaint_plus", algorithm="two", level=0.01, resamplings=60)
    out = run.sample(prior, KNOWN, 0.6 * Y, num_samples=20)[0, ..., 0, 1].flatten()
    assert set(out.mul(1e3).round().tolist()) == {800.0, -800.0}
    forgetful = solver("repaint_plus", steps=50, resamplings=10).sample(prior, KNOWN, 0.6 * Y, num_samples=3)
    assert (forgetful[..., 1] == 0).all(), "annealing stays on the saddle between two equal answers"


# -- settings ----------------------------------------------------------------------------------------------------------


def test_cost_and_early_end() -> None:
    assert solver("repaint_plus").cost(2) == Cost(2000, 0)
    assert solver("repaint_plus", algorithm="two", resamplings=7).cost() == Cost(7, 0)
    prior, seen = toy_g(), list[tuple[int, int]]()
    full = solver("repaint_plus", steps=20, resamplings=20)
    early = solver("repaint_plus", steps=20, resamplings=20, tol=1e-4)
    exact = full.sample(prior, KNOWN, Y, num_samples=3)
    before = prior.nfe.copy()
    out = early.sample(prior, KNOWN, Y, num_samples=3, callback=lambda step, total, x: seen.append((step, total)))
    assert (prior.nfe - before).forward < 0.8 * early.cost(3).forward
    assert seen[-1] == (400, 400) and [step for step, _ in seen] == sorted(step for step, _ in seen)
    torch.testing.assert_close(out, exact, rtol=0, atol=0.01)


@pytest.mark.parametrize("tol", [0.0, 1e-2])
def test_rows_end_on_their_own(tol: float) -> None:
    """Where the start still shows, a batch is its images alone, also when rows stop at different rounds."""
    run = solver("repaint_plus", algorithm="two", level=0.3, resamplings=8, tol=tol)
    y = torch.cat([Y, 0.2 * Y, -1.5 * Y])
    together = run.sample(toy_m(), KNOWN, y, num_samples=4, seed=2)
    assert together[..., 1].std(1).max() > 0.01
    for row in range(3):
        alone = run.sample(toy_m(), KNOWN, y[row : row + 1], num_samples=4, seed=2, batch_size=1)
        torch.testing.assert_close(alone[0], together[row], rtol=0, atol=1e-5)


def test_clip_and_start_images() -> None:
    prior = Gaussian([0.0, 3.0], [[1.0, 0.0], [0.0, 0.01]])
    out = solver("repaint_plus", steps=5, clip=True).sample(prior, KNOWN, 2 * Y)
    assert out.flatten().tolist() == [2.0, 1.0], "what is filled in is clipped, what is known is kept"
    start = torch.tensor([[[[[0.0, -0.8]]], [[[0.0, 0.8]]]]])
    low = solver("repaint_plus", steps=5, t_init=0.05).sample(toy_m(), KNOWN, Y, num_samples=2, initial=start)
    torch.testing.assert_close(low[0, :, 0, 0, 1], torch.tensor([-1.0, 1.0]), rtol=0, atol=0.02)
