"""The rules of each singular direction: with a perfect denoiser every step must land on N(alpha_s x_0, sigma_s^2 I)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from priorpaint import solver
from priorpaint.diffusion.rng import Streams
from priorpaint.diffusion.schedules import EDM, VE, VP, Flow, Schedule
from priorpaint.priors.analytic import Gaussian
from priorpaint.solvers.ddnm import DDNM
from priorpaint.solvers.ddrm import DDRM
from priorpaint.solvers.paper import PaperSolver
from priorpaint.solvers.spectral import corrected, relative
from tests.solvers.linear_toy import coloured, dense, task_of

SCHEDULES = [VP(), VE(), EDM(), Flow()]
TRUTH = torch.tensor([0.3, -1.0, 0.5, 2.0], dtype=torch.float64).reshape(1, 1, 1, 4)


def at(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


class Given(Streams):
    """Returns the noise that it was made with."""

    def __init__(self, draw: Tensor) -> None:
        self.draw, self.device = draw, torch.device("cpu")

    def __len__(self) -> int:
        return len(self.draw)

    def normal_like(self, x: Tensor) -> Tensor:
        return self.draw.to(x)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("sigma_y", [0.0, 0.05, 0.5, 3.0])
@pytest.mark.parametrize(
    "run",
    [
        DDRM(eta=0.85),
        DDRM(eta=0.3, eta_b=0.6),
        DDRM(eta=0.0),
        DDNM(eta=0.85),
        DDNM(eta=0.0),
        DDNM(form="ddpm"),
    ],
    ids=["ddrm", "ddrm-eta_b", "ddrm-eta0", "ddnm", "ddnm-eta0", "ddnm-ddpm"],
)
def test_the_noise_adds_up(schedule: Schedule, sigma_y: float, run: PaperSolver) -> None:
    """If D = x_0 then x_s = alpha_s x_0 + noise of variance sigma_s^2 in every direction: the noise of y, what is
    kept of x_t's and what is fresh add up, whichever rule applies. Exact, by linearity."""
    operator, _, _ = dense()
    prior = Gaussian(torch.zeros(4), torch.eye(4), schedule=schedule)
    for t, s in [(0.9, 0.8), (0.5, 0.3), (0.2, 0.0)]:
        alpha_t, sigma_t = schedule.alpha(at(t)), schedule.sigma(at(t))

        def update(n: Tensor, eps: Tensor, z: Tensor, t: float = t, s: float = s) -> Tensor:
            x_0 = TRUTH.expand(len(n), 1, 1, 4)
            y = operator(x_0) + sigma_y * n[:, 0, 0, :3]
            x_t = schedule.alpha(at(t)) * x_0 + schedule.sigma(at(t)) * eps
            return run._update(task_of(prior, operator, y, Given(z), sigma_y), x_t, x_0, at(t), at(s))

        got = coloured(update, 4, 3)
        sigma_s = float(schedule.sigma(at(s)))
        expected = sigma_s**2 * np.eye(4)
        np.testing.assert_allclose(got, expected, atol=1e-9 * max(1.0, float(sigma_t / alpha_t)) ** 2)
        zero = torch.zeros(1, 1, 1, 4, dtype=torch.float64)
        torch.testing.assert_close(update(zero, zero, zero), float(schedule.alpha(at(s))) * TRUTH)


def test_relative_noise() -> None:
    singular = torch.tensor([0.0, 0.5, 2.0])
    assert relative(singular, at(3.0), 0.5).tolist() == [0.0, 3.0, 12.0]
    assert relative(singular, at(0.0), 0.5).tolist() == [0.0, 0.0, 0.0]
    # Without noise y is cleaner than every level, the clean one too (the published code: strictly, so not there).
    for ratio in (0.0, 3.0, math.inf):
        assert relative(singular, at(ratio), 0.0).tolist() == [0.0, math.inf, math.inf]
    assert relative(singular, at(math.inf), 0.5).tolist() == [0.0, math.inf, math.inf]


def test_estimate_in_each_direction() -> None:
    """eta_b of the way to y where q >= 1, q of it where y is noisier, nothing where A sees nothing."""
    operator, singular, v = dense()
    x_0 = torch.tensor([[1.0, 2.0, -1.0, 0.5]], dtype=torch.float64).reshape(1, 1, 1, 4)
    y = torch.tensor([[0.4, 1.0, -0.2]], dtype=torch.float64)
    told = v.T @ operator.pinv(y).flatten().numpy()
    before = v.T @ x_0.flatten().numpy()
    got = v.T @ corrected(x_0, operator, y, 0.4, at(0.5), 0.9).flatten().numpy()
    for i, s in enumerate(singular):  # q = 2.5, 0.625, 0, 0
        q = s * 0.5 / 0.4
        part = 0.9 if q >= 1 else q
        assert got[i] == pytest.approx(before[i] + part * (told[i] - before[i] if s else 0), abs=1e-12)


@pytest.mark.parametrize("name", ["ddrm", "ddnm", "diffpir"])
@pytest.mark.parametrize("sigma_y", [0.0, 0.3])
def test_guide_takes_a_time_a_row(name: str, sigma_y: float) -> None:
    operator, _, _ = dense()
    prior = Gaussian(torch.zeros(4), (torch.eye(4) + 0.5))
    run = solver(name)
    assert isinstance(run, PaperSolver)
    x_t = torch.randn(5, 1, 1, 4, generator=torch.Generator().manual_seed(0))
    y = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    t = torch.tensor([0.9, 0.02, 0.5, 0.02, 0.1], dtype=torch.float64)
    together = run.guide(prior, operator, y, sigma_y).denoise(x_t, t)
    for row in range(5):
        alone = run.guide(prior, operator, y[row : row + 1], sigma_y).denoise(x_t[row : row + 1], t[row])
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["ddrm", "ddnm", "diffpir"])
def test_any_sampler_runs_the_estimate(name: str) -> None:
    """Noise-free, all three estimates agree with y in the directions that A sees; the samplers then end there."""
    operator, _, v = dense()
    prior = Gaussian(torch.zeros(4), torch.eye(4) + 0.5)
    y = operator(prior.sample(1, seed=3))
    for sampler in ("ddim", "heun", "euler_maruyama"):
        run = solver(name, steps=20, sampler=sampler, paste=False)
        before = prior.nfe.copy()
        out = run.sample(prior, operator, y, num_samples=8)[0]
        assert (prior.nfe - before).forward == run.cost(8).forward == (39 if sampler == "heun" else 20) * 8
        # In the weakest direction (s = 0.5) DiffPIR's floor leaves 1 - s^2 / (s^2 + rho) of the misfit, rho < 1e-2.
        torch.testing.assert_close(operator(out), y.expand(8, 3), rtol=0, atol=5e-2)
        assert (out.flatten(1).double() @ torch.from_numpy(v[:, 2:])).std(0).min() > 0.2


@pytest.mark.parametrize("name", ["ddrm", "ddnm", "diffpir"])
def test_clip_limits_the_estimate_of_the_prior(name: str) -> None:
    operator, _, _ = dense()
    prior = Gaussian(torch.zeros(4), 9 * torch.eye(4))
    seen: list[Tensor] = []
    solver(name, steps=5, clip=True).sample(
        prior, operator, operator(prior.sample(1, seed=0)), callback=lambda step, total, x_0: seen.append(x_0)
    )
    assert max(x.abs().max() for x in seen) <= 1
