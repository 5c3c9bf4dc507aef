"""TMPD: where its diagonal is the whole of A V A^T it is MMPS, and elsewhere it is not."""

from __future__ import annotations

import math

import pytest
import torch

from priorpaint import Inpainting
from priorpaint.diffusion.schedules import EDM, VP, Flow, Schedule
from priorpaint.priors.analytic import Gaussian
from priorpaint.solvers.mmps import MMPS
from priorpaint.solvers.tmpd import TMPD
from tests.solvers import affine
from tests.solvers.toy import KNOWN, Y, toy_g, toy_m

SCHEDULES = [VP(), EDM(), Flow()]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("sigma_y", [0.0, 0.5])
def test_one_measurement_is_mmps(schedule: Schedule, sigma_y: float) -> None:
    """A V A^T is a number then, also for a mixture, and its row sum is itself."""
    settings = {"steps": 12, "sampler": "heun", "spacing": "logsnr"}
    for prior in (toy_g(schedule), toy_m(schedule)):
        ours = TMPD(**settings).sample(prior, KNOWN, Y, sigma_y=sigma_y, num_samples=6)  # type: ignore[arg-type]
        theirs = MMPS(**settings, iterations=1).sample(prior, KNOWN, Y, sigma_y=sigma_y, num_samples=6)  # type: ignore[arg-type]
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_independent_pixels_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """A diagonal covariance makes V diagonal: the posterior to 1 %."""
    prior = Gaussian([0.2, -0.1, 0.4], torch.diag(torch.tensor([1.0, 0.3, 0.5])).tolist())
    operator, y = Inpainting(torch.tensor([[1.0, 1.0, 0.0]])), torch.tensor([[[[0.9, -0.5, 0.0]]]])
    run = TMPD(steps=25, sampler="heun", spacing="logsnr")
    mean, cov = affine.of_solver(monkeypatch, run, prior, operator, y, 3, sigma_y=0.4)
    truth = prior.posterior(operator, y, 0.4)
    torch.testing.assert_close(mean, truth.mean.flatten(), rtol=0, atol=0.005)
    torch.testing.assert_close(cov, truth.cov, rtol=0, atol=0.01)


def test_row_sums_are_too_wide_for_what_correlated_pixels_tell_apart() -> None:
    """Two copies of one pixel: A V A^T = v [[1, 1], [1, 1]] has the row sums 2 v.

    In the direction (1, 1) that is right, so the pull is exact; in (1, -1), where V is 0, the density is too flat.
    """
    prior, operator = Gaussian([0.0, 0.0], [[1.0, 1.0 - 1e-6], [1.0 - 1e-6, 1.0]]), Inpainting(torch.ones(1, 2))
    x_t, t, y = torch.zeros(1, 1, 1, 2), torch.tensor(0.3, dtype=torch.float64), torch.tensor([[[[0.5, -0.3]]]])
    alpha, sigma = VP().alpha(t).item(), VP().sigma(t).item()
    wide = 0.04 + 2 * sigma**2 / (2 * alpha**2 + sigma**2)
    ours = TMPD().likelihood(prior, operator, y, 0.2).evaluate(x_t, t)
    exact = MMPS(iterations=2).likelihood(prior, operator, y, 0.2).evaluate(x_t, t)
    torch.testing.assert_close(ours.gradient, exact.gradient, rtol=1e-3, atol=1e-4)
    guided = TMPD().guide(prior, operator, y, 0.2).denoise(x_t, t)
    assert guided.flatten().tolist() == pytest.approx([0.1 * (wide - 0.04) / wide] * 2, rel=1e-3)
    assert ours.log_likelihood is not None
    parts = [-0.5 * (r**2 / wide + math.log(2 * math.pi * wide)) for r in (0.2 / 2**0.5, 0.8 / 2**0.5)]
    assert ours.log_likelihood.item() == pytest.approx(sum(parts), abs=2e-3)
    assert parts[1] > -0.5 * (0.32 / 0.04 + math.log(2 * math.pi * 0.04)) + 1, "the true density of (1, -1)"


def test_two_passes_a_call() -> None:
    prior = toy_g()
    run = TMPD(steps=5)
    run.sample(prior, KNOWN, Y, num_samples=3)
    assert (prior.nfe.forward, prior.nfe.backward) == (0, 30) and run.cost(3).backward == 30
