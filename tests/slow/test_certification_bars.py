"""The bars that methods must meet on exact posteriors, and no certified number worse than the stored one.

The stored certificate is docs/results/certification.json; `priorpaint certify --write-docs` makes it.
"""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path

import pytest

from priorpaint import SOLVERS
from priorpaint.lab.certify import Cell, Certificate, certify
from priorpaint.lab.certify.results import DONE
from tests.slow import i8_half

pytestmark = pytest.mark.slow

STORED = Path(__file__).parents[2] / "docs" / "results" / "certification.json"
AGAIN = [(problem, budget) for problem in ("G16", "M3", "M16") for budget in (50, 200)]


def run(method: str, problem: str, budget: int, num_samples: int = 1024, draws: int = 3) -> Cell:
    cell = certify([method], [problem], [budget], draws=draws, num_samples=num_samples, calibrated=False).cells[0]
    assert cell.status == DONE, cell.note
    return cell


# -- bars --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [200, 1000])
def test_moment_matching_is_nearly_exact_on_a_gaussian(budget: int) -> None:
    cell = run("mmps", "G16", budget)
    assert cell.ratio <= 1.3
    assert cell.mean("std") == pytest.approx(1, abs=0.05)


def test_moment_matching_is_nearly_exact_through_a_linear_decoder() -> None:
    """The bar of pixel priors; three iterations of the linear solver, the default, leave 1.6 on Z-G16."""
    assert run("mmps:iterations=6", "Z-G16", 200, num_samples=512).ratio <= 1.3


def test_moment_matching_is_nearly_exact_on_a_mixture_through_a_linear_decoder() -> None:
    """Draws of Z-M32 differ from processor to processor (see `i8_half`) and are not equally hard, so they are many.

    Measured over 24 draws: 1.22 on average, with a standard deviation of .54 from draw to draw, most of it the luck of
    512 samples with the shares of two modes. The mean of 3 draws has a standard error of .31, that of 24 draws .11:
    the bar is 1.22 + 3 x .11. With one iteration of the linear solver it is 1.70, for psld 5.7 and for dps 6.5.
    """
    assert run("mmps", "Z-M32", 200, num_samples=512, draws=24).ratio <= 1.55


@pytest.mark.parametrize("problem", ["Z-G16", "Z-M32"])
def test_weights_hold_their_bars_through_a_linear_decoder(problem: str) -> None:
    """Those of pixel priors: particles 1.3 times the floor, the corrected VIPaint twice."""
    assert run("smc", problem, 200, num_samples=512).ratio <= 1.3
    assert run("vipaint:components=8,levels=1,correct=true", problem, 200, num_samples=512).ratio <= 2


@pytest.mark.parametrize(("budget", "bar"), [(200, 1.3), (50, 1.6)])
def test_particles_on_a_mixture(budget: int, bar: float) -> None:
    cell = run("smc", "M16", budget)
    modes = cell.mean("modes")
    assert cell.ratio <= bar
    assert modes is not None and (budget < 200 or modes <= 0.03)


def test_guidance_by_a_point_mass_stays_far_from_the_posterior() -> None:
    """What makes the other bars worth something: the problem is not easy."""
    assert run("dps", "M16", 200, num_samples=512).ratio > 2


@pytest.mark.parametrize("copies", [8, 16])
def test_local_resampling_beats_guidance_where_joint_particles_collapse(copies: int) -> None:
    """One draw at a budget of 50 (two particles a sample), which the particles can afford in 256 dimensions."""
    particles = run("smc:local=0.3", f"B16-{copies}", 50, num_samples=64, draws=1)
    guidance = run("mmps", f"B16-{copies}", 50, num_samples=64, draws=1)
    assert particles.ratio < guidance.ratio


# -- no regression -----------------------------------------------------------------------------------------------------


@lru_cache
def stored() -> Certificate:
    return Certificate.read(STORED)


def slack(cell: Cell) -> float:
    """Four standard errors of a mean ratio of exact samples.

    The same draws are sampled again, but a change that uses other noise moves the distance of a set of samples by about
    a third of its floor, so the mean over s draws by a third over root s.
    """
    return 4 * 0.33 / math.sqrt(len(cell.measures))


def worsened(before: Cell, now: Cell) -> list[str]:
    """The measures that are further from those of exact samples than before, beyond chance."""
    share = 4 * math.sqrt(0.25 / (now.num_samples * len(now.measures)))
    worse = ["ratio"] if now.ratio > 1.1 * before.ratio + slack(before) else []
    for name, target, noise in (
        ("modes", 0.0, share),
        ("mean", 0.0, 0.1),
        ("std", 1.0, 0.05),
        ("cover50", 0.5, share),
        ("cover90", 0.9, share),
    ):
        old, new = before.mean(name), now.mean(name)
        if old is not None and new is not None and abs(new - target) > 1.1 * abs(old - target) + noise:
            worse.append(name)
    return worse


def check(before: Cell, now: Cell) -> None:
    assert now.status == before.status, now.note
    if now.status != DONE:
        return
    assert now.num_samples == before.num_samples
    assert worsened(before, now) == []
    assert now.forward + now.backward <= 1.01 * (before.forward + before.backward) + 1


@pytest.mark.parametrize(("problem", "budget"), AGAIN)
@pytest.mark.parametrize("method", sorted(SOLVERS))
def test_no_certified_number_is_worse_than_before(method: str, problem: str, budget: int) -> None:
    before = stored().cell(method, problem, budget)
    assert before is not None, f"{method} is not certified on {problem}; run: priorpaint certify --write-docs"
    now = certify(
        [method],
        [problem],
        [budget],
        draws=max(1, len(before.measures)),
        num_samples=before.num_samples or 512,
        calibrated=False,
    ).cells[0]
    check(before, now)


@pytest.mark.parametrize("budget", i8_half.BUDGETS)
@pytest.mark.parametrize("method", sorted(SOLVERS))
def test_no_number_on_i8_half_is_worse_than_before(method: str, budget: int) -> None:
    """On fixed measurements: those of the stored certificate are drawn anew on each processor (see `i8_half`)."""
    before = i8_half.together(i8_half.recorded(), method, budget)
    check(before, i8_half.together(i8_half.measured([method], (budget,)), method, budget))


@pytest.mark.parametrize(
    ("method", "worse", "budget"),
    [("copaint", "copaint:steps=4", 50), ("reddiff_v", "reddiff_v:lr=0.1", 200)],
)
def test_a_worse_method_is_noticed_on_i8_half(method: str, worse: str, budget: int) -> None:
    before = i8_half.together(i8_half.recorded(), method, budget)
    now = i8_half.together(i8_half.measured([worse], (budget,)), worse, budget)
    assert "ratio" in worsened(before, now)


def test_the_stored_certificate_is_whole() -> None:
    """Every method of the registry is in it, and every cell of a method that can run is finished."""
    assert set(SOLVERS) <= set(stored().methods)
    assert [cell for cell in stored().cells if cell.status == "failed"] == []
