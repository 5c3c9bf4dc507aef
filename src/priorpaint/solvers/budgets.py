"""What a method may spend, and the settings that it spends it with.

A budget is a number of network evaluations a sample. An evaluation counts once, with or without a gradient, exactly as
``Prior.nfe`` counts (forward + backward) and as ``Solver.cost`` promises; the tables show both parts and the time,
because an evaluation with a gradient takes two to three times as long. What all samples of a measurement share (a fit)
is divided by their number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from pydantic import ValidationError

from ..errors import UsageError
from . import SOLVERS, Solver
from . import solver as solver_named
from .smc.solver import SMC
from .vipaint.solver import VIPaint

BUDGETS = (50, 200, 1000)
_MOST_STEPS = 1 << 20
_MOST_OF_A_GROUP = 1024


@dataclass(frozen=True)
class Plan:
    """How a method grows with its budget.

    Attributes:
        grid: the setting that is made as large as the budget allows.
        rest: (method, budget, samples) -> the settings that are fixed before.
    """

    grid: str = "steps"
    rest: Callable[[Solver, int, int], dict[str, Any]] = lambda solver, budget, samples: {}


def _by_budget(name: str, low: int, middle: int, high: int) -> Callable[[Solver, int, int], dict[str, Any]]:
    """A setting for budgets up to 50, up to 200 and above."""
    return lambda solver, budget, samples: {name: low if budget <= 50 else middle if budget <= 200 else high}


def _repaint(solver: Solver, budget: int, samples: int) -> dict[str, Any]:
    return {"jump_length": 1, **_by_budget("resamplings", 4, 6, 10)(solver, budget, samples)}


def _smc(solver: Solver, budget: int, samples: int) -> dict[str, Any]:
    """25, 50 and 69 levels with 2.4, 5.3 and 20 particles a sample, all in one group of up to 1024 samples.

    A group never gives more samples than asked; the particles of one group correct each other's shares of the modes,
    which independent groups do not.
    """
    groups = math.ceil(samples / _MOST_OF_A_GROUP)
    num_kept = math.ceil(samples / groups)
    share = 2.388 if budget <= 50 else 5.285 if budget <= 200 else 20
    return {"num_kept": num_kept, "particles": int(num_kept * share), "threshold": 0.25}


def _vipaint(solver: Solver, budget: int, samples: int) -> dict[str, Any]:
    """At most half of the budget goes into the fit, which 3 levels of 4 Monte-Carlo samples share."""
    assert isinstance(solver, VIPaint)
    most = solver.rules.iterations
    plain: dict[str, Any] = {}
    if solver.corrected:
        rest = _corrected_vipaint(solver, budget, samples)
        if evaluations(replace(solver, **rest, refine_steps=1), samples) <= budget:
            return rest
        plain = {"components": 1, "correct": False}  # few samples cannot pay for several chains and their weights
    rest = plain | {"levels": 2, "mc_samples": 4, "iterations": max(1, min(most, budget * samples // 2 // 12))}
    if solver.rules.refine_guidance != "langevin":
        return rest
    return rest | _by_budget("refine_inner", 9, 14, 19)(solver, budget, samples)


def _corrected_vipaint(solver: VIPaint, budget: int, samples: int) -> dict[str, Any]:
    """An eighth, or a quarter, of the budget for the fit; 3, 4 or 8 particles a sample in one group, as of smc."""
    num_kept = math.ceil(samples / math.ceil(samples / _MOST_OF_A_GROUP))
    short = budget <= 50
    an_iteration = 4 * solver.chains * (solver.num_levels + 1)
    iterations = max(1, min(solver.rules.iterations, budget * samples // (8 if short else 4) // an_iteration))
    rest = {"mc_samples": 4, "iterations": iterations, "num_kept": num_kept}
    share, up_steps = (3, 6) if short else (4, 16) if budget <= 200 else (8, 32)
    return rest | {"particles": share * num_kept, "up_steps": up_steps}


# Everything else grows by ``steps`` alone. Few levels crossed often beat many levels crossed rarely (RePaint), and
# jumps must fit into the grid.
PLANS: dict[str, Plan] = {
    "copaint_tt": Plan(rest=_by_budget("jump_length", 2, 5, 10)),
    "daps": Plan(rest=_by_budget("n_ode", 2, 5, 5)),
    "langevin": Plan(rest=_by_budget("inner_steps", 4, 5, 10)),
    "mmps": Plan(rest=_by_budget("iterations", 1, 3, 3)),
    "repaint": Plan(rest=_repaint),
    "repaint_plus": Plan(rest=_by_budget("resamplings", 2, 5, 10)),
    "resample": Plan(rest=_by_budget("every", 5, 10, 10)),
    "smc": Plan(rest=_smc),
    "vipaint": Plan("refine_steps", _vipaint),
}


def computes_jacobians(solver: Solver) -> bool:
    """Whether each evaluation comes with the whole Jacobian, whose products no budget counts: C H W times the work."""
    return (isinstance(solver, SMC) and solver.twist == "mmps") or (isinstance(solver, VIPaint) and solver.corrected)


def evaluations(solver: Solver, samples: int) -> float:
    """Network evaluations a sample when ``samples`` of one measurement are drawn."""
    cost = solver.cost(samples)
    return (cost.forward + cost.backward) / samples


def at_budget(solver: Solver, budget: int, samples: int, *, fixed: Collection[str] = ()) -> Solver:
    """The same method with the settings that a budget allows.

    Args:
        solver: the method; its other settings are kept. One without a time grid is returned as it is.
        budget: network evaluations a sample.
        samples: how many samples of one measurement are drawn together.
        fixed: settings that must not be changed.

    Raises:
        UsageError: the method cannot run within the budget.
    """
    plan = next((PLANS.get(name, Plan()) for name, cls in SOLVERS.items() if type(solver) is cls), Plan())
    known = settings_of(solver)
    free = known.keys() - fixed
    rest = {key: value for key, value in plan.rest(solver, budget, samples).items() if key in free}
    try:
        solver = replace(solver, **rest) if rest else solver  # type: ignore[type-var]
        if plan.grid not in known or plan.grid in fixed:
            return _affordable(solver, budget, samples)
        return _largest(solver, plan.grid, budget, samples)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise UsageError(f"{solver.title} has no settings for {budget} evaluations: {reason}") from None


def settings_for(method: str, budget: int, samples: int = 512) -> dict[str, Any]:
    """The settings of a method, by name, that `at_budget` changes from their defaults."""
    default = solver_named(method)
    chosen = settings_of(at_budget(default, budget, samples))
    return {name: value for name, value in chosen.items() if value != getattr(default, name)}


def settings_of(solver: Solver) -> dict[str, Any]:
    """Each setting of a method; none where it is a plain class."""
    return {field.name: getattr(solver, field.name) for field in fields(solver)} if is_dataclass(solver) else {}


def _affordable(solver: Solver, budget: int, samples: int) -> Solver:
    if evaluations(solver, samples) > budget:
        raise UsageError(
            f"{solver.title} with these settings takes {evaluations(solver, samples):.0f} evaluations a sample, "
            f"more than the budget of {budget}"
        )
    return solver


def _largest(solver: Solver, grid: str, budget: int, samples: int) -> Solver:
    """The largest grid whose cost is within the budget; the cost grows with the grid."""

    def size(steps: int) -> Solver:
        return replace(solver, **{grid: steps})  # type: ignore[type-var]

    low, high = 1, 2
    _affordable(size(low), budget, samples)
    while high < _MOST_STEPS and evaluations(size(high), samples) <= budget:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if evaluations(size(middle), samples) <= budget else (low, middle)
    return size(low)
