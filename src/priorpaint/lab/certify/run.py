"""The run: methods x problems x budgets, in this process or in several."""

from __future__ import annotations

import multiprocessing
import platform
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.synchronize import Event
from typing import Any

import torch

from ... import __version__
from ...errors import Cancelled, CancelToken, PriorpaintError, UsageError
from ...solvers import SOLVERS, Solver
from ...solvers.budgets import BUDGETS, computes_jacobians
from .base import Problem, fresh
from .cells import Job, Method, compute, problem_of
from .problems import STANDARD, select
from .results import Cell, Certificate

NUM_SAMPLES = 512
CALIBRATED_BUDGET = 200
_LARGE = 64
_LOOK_SECONDS = 0.3

# Settings that are a method of their own in the tables.
VARIANTS = ("vipaint:components=8,levels=1,correct=true",)

Report = Callable[[int, int, Cell], None]


def certify(
    methods: Sequence[str | Solver | Method] | None = None,
    problems: Sequence[str | Problem] = STANDARD,
    budgets: Sequence[int | None] | None = None,
    *,
    draws: int | None = None,
    draw_seed: int | None = None,
    num_samples: int = NUM_SAMPLES,
    calibrated: bool = True,
    workers: int = 1,
    batch_size: int | None = None,
    report: Report | None = None,
    cancel: CancelToken | None = None,
) -> Certificate:
    """Measure methods against exact posteriors.

    Args:
        methods: names, ``NAME:key=value,...`` or solvers; None is every method of the registry and ``VARIANTS``.
        problems: names of standard problems or families (``M25``), or problems of your own.
        budgets: network evaluations a sample; a budget None runs a method with its settings as they are. By default
            50, 200 and 1000, but only up to 200 on problems that are ``costly``, and for methods that compute whole
            Jacobians in 64 dimensions and more.
        draws: of each problem; None is 3, but 1 for budgets above 200 and in those costly cases. A problem of your own
            is one draw, on which the solver's seed changes.
        draw_seed: makes them draws that no table shows, with other priors, masks, truths and noise; None is the draws
            of the tables.
        num_samples: samples of each draw; some problems take fewer.
        calibrated: whether the budget of 200 (or None) also gets the rank test over many measurements.
        workers: processes; above 1, methods and problems of your own must be picklable.
        batch_size: rows computed together, for a prior that needs much memory; None is all.
        report: called as report(done, total, cell) after each cell.
        cancel: looked at after every step of a solver; once it is cancelled, from any thread, the run ends, and the
            cells that are finished are returned.

    Raises:
        UsageError: unknown names, or numbers out of range.
    """
    if num_samples < 2 or workers < 1 or (draws is not None and draws < 1):
        raise UsageError("certify takes at least 2 samples, 1 draw and 1 worker")
    if any(budget is not None and budget < 1 for budget in budgets or ()):
        raise UsageError("a budget is at least 1 network evaluation a sample")
    chosen = [Method.of(asked) for asked in ((*sorted(SOLVERS), *VARIANTS) if methods is None else methods)]
    posed = _unique([name for asked in problems for name in (select([asked]) if isinstance(asked, str) else [asked])])
    if len({method.label for method in chosen}) < len(chosen):
        raise UsageError("two methods have the same label; give each a label with Method(label, solver)")
    jobs = [
        _job(method, problem, budget, draws, draw_seed, num_samples, calibrated, batch_size)
        for problem in posed
        for budget in (BUDGETS if budgets is None else budgets)
        for method in chosen
        if budgets is not None or budget in BUDGETS[:2] or not _is_costly(method, problem)
    ]
    cancel = CancelToken() if cancel is None else cancel
    cells: dict[tuple[str, str, int | None], Cell] = {}
    for cell in _in_this_process(jobs, cancel) if workers == 1 else _in_processes(jobs, cancel, workers):
        cells[cell.method, cell.problem, cell.budget] = cell
        if report is not None:
            report(len(cells), len(jobs), cell)
    order = [(job.method.label, job.problem_name, job.budget) for job in jobs]
    about = {job.problem_name: problem_of(job.problem, 0).about for job in jobs}
    setup = _setup(draws, draw_seed, num_samples, workers)
    return Certificate(tuple(cells[key] for key in order if key in cells), about, setup)


def _unique(posed: Sequence[str | Problem]) -> list[str | Problem]:
    """The problems without repetition of standard ones."""
    unique = list(dict.fromkeys(posed))
    names = [problem if isinstance(problem, str) else problem.name for problem in unique]
    if len(set(names)) < len(names):
        raise UsageError("two problems have the same name; give each one its own")
    return unique


def _is_costly(method: Method, problem: str | Problem) -> bool:
    drawn = problem_of(problem, 0)
    large = drawn.law.dim * drawn.copies >= _LARGE
    return drawn.costly or (large and computes_jacobians(drawn.settled(method.solver)))


def _job(
    method: Method,
    problem: str | Problem,
    budget: int | None,
    draws: int | None,
    draw_seed: int | None,
    num_samples: int,
    calibrated: bool,
    batch_size: int | None,
) -> Job:
    costly = _is_costly(method, problem)
    count = draws or (1 if costly or (budget or 0) > CALIBRATED_BUDGET else 3)
    numbers = tuple(i if draw_seed is None else fresh(draw_seed, i) for i in range(count))
    ranked = calibrated and not costly and budget in (None, CALIBRATED_BUDGET)
    return Job(method, problem, budget, numbers, num_samples, ranked, batch_size)


def _work_of(job: Job) -> tuple[int, str, int]:
    """Sorted by this, downwards, large problems and long jobs come first, and a worker meets each problem once."""
    problem = problem_of(job.problem, 0)
    return problem.law.dim * problem.copies, problem.name, (job.budget or CALIBRATED_BUDGET) * len(job.draws)


def _setup(draws: int | None, draw_seed: int | None, num_samples: int, workers: int) -> dict[str, Any]:
    return {
        "priorpaint": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "draws": draws,
        "draw_seed": draw_seed,
        "num_samples": num_samples,
        "workers": workers,
    }


# -- where the jobs run ------------------------------------------------------------------------------------------------


def _in_this_process(jobs: Sequence[Job], cancel: CancelToken) -> Iterator[Cell]:
    for job in jobs:
        try:
            cancel.check()
            yield compute(job, lambda: cancel.cancelled)
        except Cancelled:
            return


_stopped: Event | None = None


def _begin(event: Event) -> None:
    """In a worker: one thread each, and stopping is the parent's business."""
    import signal

    global _stopped
    _stopped = event
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _work(job: Job) -> Cell | None:
    event = _stopped
    assert event is not None
    if event.is_set():
        return None
    try:
        return compute(job, event.is_set)
    except Cancelled:
        return None


def _in_processes(jobs: Sequence[Job], cancel: CancelToken, workers: int) -> Iterator[Cell]:
    """The jobs in several processes, in the order in which they end."""
    context = multiprocessing.get_context("spawn")
    event = context.Event()
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(event,))
    try:
        waiting = {pool.submit(_work, job) for job in sorted(jobs, key=_work_of, reverse=True)}
        for done in _ended(waiting, cancel, event):
            if (cell := done.result()) is not None:
                yield cell
    except BrokenProcessPool:
        if not cancel.cancelled:  # else the signal went to the whole process group, and took the workers with it
            raise PriorpaintError("a worker process died, probably for memory; use fewer workers") from None
    finally:
        event.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _ended(waiting: set[Future[Cell | None]], cancel: CancelToken, event: Event) -> Iterator[Future[Cell | None]]:
    """Futures as they end; once cancelled, workers leave at their next step and what is left ends at once."""
    while waiting:
        done, waiting = wait(waiting, timeout=_LOOK_SECONDS, return_when=FIRST_COMPLETED)
        yield from done
        if cancel.cancelled:
            event.set()
