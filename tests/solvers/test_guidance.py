"""What guided denoisers share: any sampler runs them, and moves of x_s and moves of D are converted rightly."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from priorpaint import solver
from priorpaint.diffusion.rng import Streams
from priorpaint.diffusion.samplers import DDIM, EulerMaruyama, Sampler
from priorpaint.diffusion.schedules import EDM, VP, Flow, Schedule
from priorpaint.operators import Operator
from priorpaint.priors.wrapped import normalised
from priorpaint.solvers.base import Cost, Problem
from priorpaint.solvers.dps import DPS
from priorpaint.solvers.guidance import GuidedSolver, towards
from priorpaint.solvers.pigdm import PiGDM
from tests.solvers.toy import KNOWN, Y, toy_g, toy_m

SCHEDULES = [VP(), EDM(), Flow()]
X_T = torch.tensor([[0.7, -0.4], [2.0, 0.3], [-1.0, -1.0]]).reshape(3, 1, 1, 2)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize(
    ("name", "eta", "sampler"),
    [("ddim", 0.6, DDIM(eta=0.6)), ("heun", 1.0, DDIM()), ("euler_maruyama", 1.0, EulerMaruyama())],
)
def test_the_estimate_moves_a_step_as_far_as_the_move(
    schedule: Schedule, name: str, eta: float, sampler: Sampler
) -> None:
    """A step with D + move / b ends where the step with D and then the move end, between neighbours of the grid."""
    prior, rows = normalised(toy_g(schedule)), torch.zeros(3, dtype=torch.long)
    run = DPS(steps=8, sampler=name, eta=eta)  # type: ignore[arg-type]
    problem = Problem(prior, KNOWN.select(rows), Y.expand(3, 1, 1, 2))
    guided = run.guide(prior, problem.operator, problem.y)
    times = schedule.grid(8)
    for t, s in zip(times[1:-1], times[2:], strict=True):
        plain, moved = (sampler.step(p, X_T, t, s, Streams(range(3)))[0] for p in (prior, guided))
        _, move = run.move(problem, X_T, t, s, None)
        assert float(move.abs().max()) > 1e-2
        torch.testing.assert_close(moved - plain, move, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["dps", "pigdm", "mmps", "tmpd"])
@pytest.mark.parametrize("sampler", ["ddim", "heun", "euler_maruyama"])
def test_any_sampler_runs_it_and_the_cost_is_right(name: str, sampler: str) -> None:
    prior = toy_m()
    run = solver(name, steps=60, sampler=sampler, **({"scale": 0.3} if name == "dps" else {}))
    out = run.sample(prior, KNOWN, Y, sigma_y=0.2, num_samples=50)
    assert Cost(prior.nfe.forward, prior.nfe.backward) == run.cost(50)
    assert out[..., 0].mean().item() == pytest.approx(1.0, abs=0.2), "the mode that y excludes is not sampled"


def test_a_white_likelihood_of_a_mask_is_the_widened_point_likelihood() -> None:
    """A A^T is the identity on known pixels, so PiGDM's strict form is DPS's likelihood form with sigma_y^2 + r_t^2."""
    for sigma_y in (0.0, 0.3):
        ours = DPS(steps=20, guidance="likelihood", widen=True).sample(toy_g(), KNOWN, Y, sigma_y=sigma_y)
        theirs = PiGDM(steps=20, form="strict").sample(toy_g(), KNOWN, Y, sigma_y=sigma_y)
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


class _Square(Operator):
    """y = x^2, whose sign is lost."""

    def __call__(self, x: Tensor) -> Tensor:
        return x.square()

    def image_shape(self, y: Tensor) -> tuple[int, int, int]:
        return int(y.shape[1]), int(y.shape[2]), int(y.shape[3])

    def guess(self, y: Tensor) -> Tensor:
        return y.clamp(min=0).sqrt()


@pytest.mark.parametrize("settings", [{}, {"guidance": "likelihood", "scale": 1.0, "steps": 400}])
def test_dps_takes_a_measurement_that_is_not_linear(settings: dict[str, object]) -> None:
    """Both signs explain the squares; the prior's correlation makes them equal in both pixels."""
    y = torch.full((1, 1, 1, 2), 0.64)
    out = solver("dps", **{"scale": 0.1, **settings}).sample(toy_g(), _Square(), y, sigma_y=0.2, num_samples=200)[0]
    assert (out.square() - 0.64).abs().mean() < 0.25
    signs = out.flatten(1).sign()
    assert (signs[:, 0] == signs[:, 1]).float().mean() > 0.9
    assert 0.2 < (signs[:, 0] > 0).float().mean() < 0.8


def test_towards_is_tweedie_and_does_nothing_at_pure_noise() -> None:
    prior, times = toy_g(Flow()), torch.tensor([0.5, 1.0, 0.25], dtype=torch.float64)
    moved = towards(prior, X_T, times, torch.ones_like(X_T)) - X_T
    expected = torch.tensor([0.25 / 0.5, 0.0, 0.0625 / 0.75]).reshape(3, 1, 1, 1).expand_as(X_T)
    torch.testing.assert_close(moved, expected, rtol=1e-4, atol=1e-5)


def test_what_dps_reports_is_the_plain_estimate() -> None:
    """The move of D that moves x_s by `scale` is scale / b, too large for a picture."""
    prior, seen = toy_g(), []
    DPS(steps=50).sample(prior, KNOWN, Y, callback=lambda step, total, x_0: seen.append(x_0))
    assert len(seen) == 50 and max(x.abs().max().item() for x in seen) < 3
    assert issubclass(DPS, GuidedSolver)
