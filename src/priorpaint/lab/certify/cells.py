"""One cell of a certification: a method, with the settings of a budget, on the draws of a problem."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

from torch import Tensor

from ...diffusion.rng import derive
from ...errors import Cancelled, UsageError
from ...operators import Inpainting
from ...solvers import SOLVERS, Solver, parse_method
from ...solvers import solver as solver_named
from ...solvers.budgets import at_budget, settings_of
from .base import Problem
from .calibration import SAMPLES, Calibration, calibrate
from .measures import Measures, Ruler
from .problems import problem as standard_problem
from .results import DONE, FAILED, NOT_APPLICABLE, Cell

_MISSING = {"latent": "it needs a latent prior", "classes": "it needs a prior with classes"}


@dataclass(frozen=True)
class Method:
    """A method under a label, with settings that no budget changes.

    Attributes:
        label: what tables call it.
        solver: the method.
        fixed: names of the settings that were given.
    """

    label: str
    solver: Solver
    fixed: frozenset[str] = frozenset()

    @staticmethod
    def of(method: str | Solver | Method) -> Method:
        """A name, a name with settings ``NAME:key=value,key=value``, or a solver of your own.

        Raises:
            UsageError: no such method or setting.
        """
        if isinstance(method, Method):
            return method
        if isinstance(method, Solver):
            named = next((name for name, cls in SOLVERS.items() if type(method) is cls), type(method).__name__)
            return Method(named, method)
        name, settings = parse_method(method)
        return Method(method, solver_named(name, **settings), frozenset(settings))


@dataclass(frozen=True)
class Job:
    """One cell to be computed."""

    method: Method
    problem: str | Problem
    budget: int | None
    draws: tuple[int, ...]
    num_samples: int
    calibrated: bool
    batch_size: int | None = None

    @property
    def problem_name(self) -> str:
        return self.problem if isinstance(self.problem, str) else self.problem.name


def compute(job: Job, stop: Callable[[], bool] = lambda: False) -> Cell:
    """One cell. What goes wrong with a method is its result, not the end of the run.

    Raises:
        Cancelled: ``stop`` said so.
    """
    cell = Cell(job.method.label, job.problem_name, job.budget)
    try:
        return _measured(cell, job, stop)
    except Cancelled:
        raise
    except UsageError as error:
        return replace(cell, status=NOT_APPLICABLE, note=sentence(error))
    except Exception as error:  # whatever a method of somebody else raises
        return replace(cell, status=FAILED, note=f"{type(error).__name__}: {sentence(error)}")


def _measured(cell: Cell, job: Job, stop: Callable[[], bool]) -> Cell:
    first = problem_of(job.problem, job.draws[0])
    if reason := why_not(job.method.solver, first):
        return replace(cell, status=NOT_APPLICABLE, note=reason)
    num = min(job.num_samples, first.most_samples or job.num_samples)
    solver = _solver(job, first, num)
    draws = [_draw(solver, job, seed, num, stop) for seed in job.draws]
    cell = replace(
        cell,
        settings={name: plain(value) for name, value in settings_of(solver).items()},
        num_samples=num,
        measures=tuple(draw.measures for draw in draws),
        floors=tuple(draw.floor for draw in draws),
        floor_spread=tuple(draw.floor_spread for draw in draws),
        priors=tuple(draw.prior for draw in draws),
        forward=sum(draw.forward for draw in draws) / num / len(draws),
        backward=sum(draw.backward for draw in draws) / num / len(draws),
        seconds=sum(draw.seconds for draw in draws) / len(draws),
    )
    if not all(math.isfinite(draw.measures.sliced) for draw in draws):
        return replace(cell, status=FAILED, note="the samples are not finite")
    return replace(cell, status=DONE, calibration=_calibration(job, first, stop) if job.calibrated else None)


@dataclass(frozen=True)
class _Draw:
    measures: Measures
    floor: Measures
    floor_spread: float
    prior: Measures
    forward: int
    backward: int
    seconds: float


def _draw(solver: Solver, job: Job, seed: int, num: int, stop: Callable[[], bool]) -> _Draw:
    problem = problem_of(job.problem, seed)
    ruler = _ruler(problem)
    prior = problem.solver_prior
    before, begun = prior.nfe.copy(), time.process_time()
    x = solver.sample(
        prior,
        problem.solver_operator,
        problem.solver_y,
        sigma_y=problem.sigma_y,
        num_samples=num,
        seed=derive("certify", seed),
        batch_size=job.batch_size,
        callback=checking(stop),
    )
    spent, seconds = prior.nfe - before, time.process_time() - begun
    measures = ruler.measure(x[0]) if bool(x.isfinite().all()) else _NOTHING
    return _Draw(
        measures, ruler.floor(num), ruler.spread(num), ruler.ignorant(num), spent.forward, spent.backward, seconds
    )


_NOTHING = Measures(*[float("nan")] * len(fields(Measures)))


def _calibration(job: Job, problem: Problem, stop: Callable[[], bool]) -> Calibration | None:
    """The rank test, or None where so few samples a measurement cannot pay for what they share (a fit)."""
    try:
        solver = _solver(job, problem, SAMPLES)
    except UsageError:
        return None
    return calibrate(solver, problem, batch_size=job.batch_size, callback=checking(stop))


def _solver(job: Job, problem: Problem, num: int) -> Solver:
    solver = problem.settled(job.method.solver)
    if job.budget is None:
        return solver
    return at_budget(solver, job.budget, num, fixed=job.method.fixed)


def why_not(solver: Solver, problem: Problem) -> str:
    """Why a method cannot be used on a problem, or nothing."""
    if "mask" in solver.needs and not isinstance(problem.solver_operator, Inpainting):
        return "it needs a mask"
    if problem.solver_prior.latent and not solver.through_decoder:
        return "it measures what the denoiser works on and would see only whole latent cells; it needs a pixel prior"
    return next((sentence for need, sentence in _MISSING.items() if need in solver.needs), "")


def checking(stop: Callable[[], bool]) -> Callable[[int, int, Tensor], None]:
    """A solver's callback that raises ``Cancelled`` once ``stop`` says so."""

    def callback(step: int, total: int, x_0: Tensor) -> None:
        if stop():
            raise Cancelled("certification stopped")

    return callback


@lru_cache(maxsize=64)
def problem_of(problem: str | Problem, seed: int) -> Problem:
    """A standard problem by name and draw; one of your own is itself, whatever the draw."""
    return standard_problem(problem, seed) if isinstance(problem, str) else problem


@lru_cache(maxsize=40)  # a ruler takes about 10 MB
def _ruler(problem: Problem) -> Ruler:
    return Ruler(problem)


def sentence(error: Exception) -> str:
    """What an error says, on one line."""
    return " ".join(str(error).split())


def plain(value: Any) -> Any:
    """A setting as JSON can hold it."""
    return value if isinstance(value, (int, float, str, bool)) or value is None else str(value)
