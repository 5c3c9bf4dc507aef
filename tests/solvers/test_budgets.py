"""Settings for a budget: as much as it allows, and what the cost promises is what runs."""

from __future__ import annotations

import math

import pytest

from priorpaint import SOLVERS, UsageError, solver
from priorpaint.lab.certify.run import certify
from priorpaint.solvers.budgets import BUDGETS, at_budget, evaluations, settings_for
from priorpaint.solvers.smc.solver import SMC
from tests.lab.certify.exact import Exact


@pytest.mark.parametrize("samples", [15, 512])
@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("name", sorted(SOLVERS))
def test_every_method_uses_its_budget_and_no_more(name: str, budget: int, samples: int) -> None:
    run = at_budget(solver(name), budget, samples)
    assert 0.75 * budget <= evaluations(run, samples) <= budget


def test_the_largest_grid() -> None:
    assert settings_for("replacement", 50) == {"steps": 50}
    assert settings_for("dps", 200) == {"steps": 200}
    assert settings_for("dps", 250) == {}  # its own default
    assert at_budget(solver("ddnm", sampler="heun"), 50, 1).steps == 25  # type: ignore[attr-defined]  # 2 steps - 1


def test_what_is_given_is_kept() -> None:
    run = at_budget(solver("repaint", resamplings=2, jump_length=5), 200, 1, fixed={"resamplings", "jump_length"})
    assert (run.resamplings, run.jump_length) == (2, 5)  # type: ignore[attr-defined]
    assert at_budget(solver("dps", steps=7), 200, 1, fixed={"steps"}).steps == 7  # type: ignore[attr-defined]
    exact = Exact()
    assert at_budget(exact, 50, 1) is exact


def test_the_fit_of_vipaint_is_shared_by_its_samples() -> None:
    few, many = settings_for("vipaint", 200, 1), settings_for("vipaint", 200, 512)
    assert few["iterations"] < 20 and few["refine_steps"] < many["refine_steps"]


@pytest.mark.parametrize("samples", [1, 15, 512, 1024, 1500])
@pytest.mark.parametrize("budget", BUDGETS)
def test_particles_are_one_group_that_gives_no_more_than_asked(budget: int, samples: int) -> None:
    run = at_budget(solver("smc"), budget, samples)
    assert isinstance(run, SMC)
    groups = math.ceil(samples / run.num_kept)
    assert groups == math.ceil(samples / 1024)
    assert groups * run.num_kept - samples < groups
    if samples >= 512:
        assert run.steps == {50: 25, 200: 50, 1000: 69}[budget]


def test_too_little() -> None:
    with pytest.raises(UsageError, match="takes 300 evaluations a sample, more than the budget of 50"):
        at_budget(solver("dps", steps=300), 50, 1, fixed={"steps"})
    with pytest.raises(UsageError, match="more than the budget of 1"):
        at_budget(solver("langevin") if "langevin" in SOLVERS else solver("vipaint"), 1, 1)


def test_the_prior_counts_what_was_planned() -> None:
    cells = certify(["replacement", "dps"], ["G1"], [20], draws=1, num_samples=8, calibrated=False).cells
    assert [(cell.forward, cell.backward) for cell in cells] == [(20, 0), (0, 20)]
