"""Replacement: the known part, the exact bias of the toys, and what must equal what."""

from __future__ import annotations

import math

import pytest
import torch

from priorpaint import Inpainting, UsageError, solver
from priorpaint.diffusion import transitions
from priorpaint.diffusion.rng import Streams, image_seeds
from priorpaint.diffusion.schedules import VE, VP
from priorpaint.operators import MatrixOperator
from priorpaint.solvers.base import Task
from priorpaint.solvers.replacement import paste
from tests.solvers import affine
from tests.solvers.toy import KNOWN, Y, levels, mode_weights, propagate, toy_g, toy_m

# Reported with 20,000 samples: three standard errors of a mean and of a variance.
SE = 3 / math.sqrt(20_000)


def scalars(steps: int) -> int:
    """x_1, then the noise of each step and of each pasted known part, two pixels each."""
    return 2 + 4 * steps


@pytest.mark.parametrize(
    ("steps", "eta", "mean", "var"),
    [
        (250, 1.0, 0.625, 0.298),
        pytest.param(1000, 1.0, 0.626, 0.314, marks=pytest.mark.slow),
        (250, 0.0, 0.446, 0.433),
    ],
)
def test_toy_g_has_exactly_the_bias_that_the_literature_check_reports(
    monkeypatch: pytest.MonkeyPatch, steps: int, eta: float, mean: float, var: float
) -> None:
    run = solver("replacement", steps=steps, eta=eta, spacing="respaced")
    got_mean, got_cov = affine.of_solver(monkeypatch, run, toy_g(), KNOWN, Y, scalars(steps))
    # 1. against the same chain in numpy: float32 rounding of a few hundred contracting steps.
    exact_mean, exact_var = propagate(list(range(steps, -1, -1)), levels(steps), eta)
    assert got_mean[1].item() == pytest.approx(exact_mean, abs=2e-5)
    assert got_cov[1, 1].item() == pytest.approx(exact_var, abs=5e-5)
    # 2. against the sampled table: x_2 ~ N(.9, .19) is the truth, and more steps do not get there.
    assert exact_mean == pytest.approx(mean, abs=SE * math.sqrt(var))
    assert exact_var == pytest.approx(var, abs=SE * var * math.sqrt(2))
    # 3. the known coordinate is y, without any spread.
    assert got_mean[0] == 1 and got_cov[0].abs().max() == 0


def test_samples_follow_the_exact_law() -> None:
    """Real noise instead of impulses: 4000 samples, 4 standard errors around the exact moments."""
    out = solver("replacement", steps=50, spacing="respaced").sample(toy_g(), KNOWN, Y, num_samples=4000, seed=3)
    mean, var = propagate(list(range(50, -1, -1)), levels(50))
    x_2 = out.reshape(-1, 2)[:, 1].double()
    assert x_2.mean().item() == pytest.approx(mean, abs=4 * math.sqrt(var / 4000))
    assert x_2.var().item() == pytest.approx(var, abs=4 * var * math.sqrt(2 / 4000))


def test_toy_m_mode_weights() -> None:
    """Reported .571/.423/.006 with 20,000 samples; ours from 2500: 4 standard errors of the difference."""
    out = solver("replacement", steps=250, spacing="respaced").sample(toy_m(), KNOWN, Y, num_samples=2500, seed=1)
    for got, want in zip(mode_weights(out), (0.571, 0.423, 0.006), strict=True):
        assert got == pytest.approx(want, abs=4 * math.sqrt(want * (1 - want) * (1 / 2500 + 1 / 20_000)))


class Ones(Streams):
    def __init__(self, rows: int) -> None:
        super().__init__(range(rows))

    def normal(self, *shape: int) -> torch.Tensor:
        return torch.ones(len(self), *shape)


def task(y: torch.Tensor, sigma_y: float = 0.0) -> Task:
    shape = (y.shape[1], y.shape[2], y.shape[3])
    return Task(toy_g(), KNOWN, y, sigma_y, Ones(len(y)), shape, lambda step, x_0: None)


@pytest.mark.parametrize(
    ("index", "alpha", "sigma"), [(249, 0.72394, 0.68987), (499, 0.28033, 0.95990), (49, 0.98540, 0.17025)]
)
def test_known_part_is_y_at_the_level_that_the_step_arrives_at(index: int, alpha: float, sigma: float) -> None:
    """alpha_s y + sigma_s z with the roots of abar and 1 - abar: the slips of lecture and listing fail here."""
    y = torch.full((3, 1, 1, 2), 0.5)
    s = torch.tensor((index + 1) / 1000, dtype=torch.float64)
    out = paste(VP(), torch.full_like(y, 7.0), task(y), torch.tensor([[[[True, False]]]]), s)
    assert out[:, 0, 0, 0].tolist() == pytest.approx([0.5 * alpha + sigma] * 3, abs=1e-5)
    assert bool((out[:, 0, 0, 1] == 7).all())


def test_noisy_y_gets_only_the_noise_that_is_missing() -> None:
    y, known = torch.full((1, 1, 1, 2), 0.5), torch.tensor([[[[True, False]]]])
    u = torch.full_like(y, 7.0)
    schedule = VE(0.01, 50.0)

    def at_sigma(sigma: float) -> float:
        s = schedule.time_at(torch.tensor(sigma, dtype=torch.float64))
        return paste(schedule, u, task(y, sigma_y=0.3), known, s)[0, 0, 0, 0].item()

    assert at_sigma(0.5) == pytest.approx(0.5 + 0.4, abs=1e-6)  # sqrt(.5^2 - .3^2) = .4
    assert at_sigma(0.2) == 7.0  # y is noisier than x_s: left alone
    assert paste(schedule, u, task(y, sigma_y=0.3), known, torch.zeros((), dtype=torch.float64))[0, 0, 0, 0] == 7.0


def test_nothing_known_is_plain_ancestral_sampling() -> None:
    """With m = 0 the run is DDPM sampling with the same random numbers, bit for bit."""
    prior, y = toy_m(), torch.zeros(1, 1, 1, 2)
    run = solver("replacement", steps=30)
    out = run.sample(prior, Inpainting(torch.zeros(1, 2)), y, num_samples=6, seed=5)[0]
    noise = Streams.for_samples(image_seeds(5, y) * 6, range(6))
    x = prior.initial(noise.normal(1, 1, 2))
    times = prior.schedule.grid(30)
    for t, s in zip(times[:-1], times[1:], strict=True):
        x = transitions.step(prior.schedule, x, prior.denoise(x, t), t, s, noise.normal_like(x))
        noise.normal_like(x)  # the known part's noise, which no pixel gets
    assert torch.equal(out, x)


def test_everything_known_is_y() -> None:
    y = torch.tensor([[[[0.3, -0.7]]]])
    out = solver("replacement", steps=5).sample(toy_g(), Inpainting(torch.ones(1, 2)), y, num_samples=3)
    assert torch.equal(out[0], y.expand(3, 1, 1, 2))


def test_the_same_chain_in_other_coordinates() -> None:
    """VE is VP divided by alpha: with the same levels and the same noise the samples agree to rounding."""
    vp = VP("linear")
    ve = VE(*vp.nsr_range)
    run = solver("replacement", steps=40, spacing="logsnr")
    a, b = (run.sample(toy_m(schedule), KNOWN, Y, num_samples=20, seed=2) for schedule in (vp, ve))
    torch.testing.assert_close(a, b, rtol=0, atol=1e-3)


def test_clip_limits_the_estimate() -> None:
    seen: list[float] = []
    run = solver("replacement", steps=20, clip=True)
    prior = toy_g()
    run.sample(
        prior, KNOWN, 3 * Y, num_samples=50, callback=lambda step, total, x_0: seen.append(x_0.abs().max().item())
    )
    assert max(seen) == 1.0
    seen.clear()
    solver("replacement", steps=20).sample(
        prior, KNOWN, 3 * Y, num_samples=50, callback=lambda step, total, x_0: seen.append(x_0.abs().max().item())
    )
    assert max(seen) > 1.0


def test_other_operators_are_refused() -> None:
    class Half(Inpainting):
        pass

    for name in ("replacement", "repaint"):
        with pytest.raises(UsageError, match="hidden pixels of a mask and cannot use the operator MatrixOperator"):
            solver(name, steps=2).sample(toy_g(), MatrixOperator(torch.eye(2)), Y.flatten(1))
        solver(name, steps=2).sample(toy_g(), Half(torch.tensor([[1, 0]])), Y)


def test_more_steps_do_not_remove_the_bias() -> None:
    """The N = 1000 row and beyond, in numpy; the slow row above holds the solver to the same chain."""
    means = {}
    for steps in (250, 1000):
        means[steps], var = propagate(list(range(steps, -1, -1)), levels(steps))
        assert var > 0.29  # truth .19
    assert means[1000] == pytest.approx(0.626, abs=SE * math.sqrt(0.314))
    assert means[1000] - means[250] < 0.01
