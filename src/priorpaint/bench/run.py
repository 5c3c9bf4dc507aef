"""A benchmark from plan to stored samples; metrics and report are a second pass over the store."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ..batch.runner import Event, Executor, Inline, Outcome, Work, run_all
from ..batch.store import DONE, Store
from ..errors import CancelToken, UsageError
from ..inpainting.coarse_to_fine import weight
from ..priors.base import Prior
from ..priors.loading import load_prior
from .cells import Bench, rows_of
from .plan import PLAN, Plan


def open_store(folder: Path, *, resume: bool) -> Store:
    """The store in a folder.

    Raises:
        UsageError: it holds cells already and nobody said that they are to be kept, or it cannot be used.
    """
    if not resume and (folder / PLAN).exists() and (folder / DONE).exists():
        raise UsageError(f"{folder} holds a benchmark already; add --resume to go on with it.")
    return Store(folder)


def run_bench(
    plan: Plan,
    prior: Prior,
    store: Store,
    images: Path,
    *,
    executor: Executor | None = None,
    batch_size: int | None = None,
    limit: int | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
    cancel: CancelToken | None = None,
) -> Outcome:
    """Compute every cell of a plan that the store does not hold.

    Args:
        plan: of `make_plan`, with this prior; it is written into the store first.
        images: the folder of the pictures.
        executor: computes the cells, such as `Processes` with `worker`; None is this process.
        batch_size: rows computed together; None is what the size of the pictures suggests. No sample depends on it.
        limit, on_event, cancel: as for `batch.run_all`.

    Raises:
        UsageError: results cannot be written.
    """
    plan.write(store.folder)
    bench = Bench(plan, prior, store.folder, images, batch_size)
    return run_all(store, bench.items(), executor or Inline(bench.run), on_event=on_event, cancel=cancel, limit=limit)


def worker(plan: Plan, prior: dict[str, Any], folder: Path, images: Path, batch_size: int | None, device: str) -> Work:
    """What computes cells in a process of its own (`Processes.make`).

    Args:
        plan, folder, images, batch_size: as for `Bench`.
        prior: arguments of `load_prior`, but for the device.

    Raises:
        PriorError, UsageError: the prior cannot be read, or is no longer that of the plan.
    """
    loaded = load_prior(**prior, device=device)
    if loaded.hash not in (None, plan.prior.digest):
        raise UsageError(f"the prior {prior['spec']} has changed since the run began; start it again.")
    return Bench(plan, loaded, folder, images, batch_size).run


@torch.no_grad()
def seconds_a_call(plan: Plan, prior: Prior) -> float:
    """Seconds of one network evaluation of one row, from one timed call on all samples of a problem."""
    rows = min(plan.samples, rows_of(plan))
    x_t = torch.zeros(rows, *prior.latent_shape(*plan.shape[1:]), device=prior.device)
    with prior.nfe.uncounted():
        prior.denoise(x_t, 0.5)  # the first call also plans and allocates
        begun = time.perf_counter()
        float(prior.denoise(x_t, 0.5).sum())  # which waits for a GPU
        return (time.perf_counter() - begun) / rows


def work_of(plan: Plan) -> dict[tuple[str, str], float]:
    """Network evaluations of a cell, one with a gradient counted as three without, by method and operator."""
    return {
        (method.label, condition.operator): weight(plan.cost_of(method))
        for condition in plan.conditions
        for method in plan.methods_on(condition)
    }


def work(plan: Plan, store: Store | None = None) -> float:
    """The same of all cells that are left."""
    cells, each = plan.cells(), work_of(plan)
    left = (cell for cell in cells if store is None or cell.key not in store)
    return sum(each[cell.method.label, cell.problem.condition.operator] for cell in left)
