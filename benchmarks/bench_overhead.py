"""What `priorpaint bench` costs beside the bare solver calls, and its memory by the number of pictures.

    python benchmarks/bench_overhead.py                # avatars, four methods at 200 evaluations, 10 samples
    python benchmarks/bench_overhead.py --pictures 2 --budget 50

Every cell is computed twice in turn, by the bench (problem, store, logs, timing) and by the bare calls of its solver,
so that a busy machine slows both alike; the time of the plan is the bench's. The memory is the peak of the process over
what it held before, with a network that does nothing.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from priorpaint.batch import Inline, Store, run_all
from priorpaint.bench.cells import Bench, Measured, fit_seed, sample_seed
from priorpaint.bench.grid import Grid, MethodSpec
from priorpaint.bench.peak import peak_memory
from priorpaint.bench.pictures import prepared
from priorpaint.bench.plan import CellCase, Plan, ProblemCase, solver_of
from priorpaint.bench.planning import make_plan
from priorpaint.bench.run import run_bench
from priorpaint.diffusion.schedules import VP
from priorpaint.lab.avatars.writing import write
from priorpaint.operators import Inpainting
from priorpaint.priors.base import DenoiserPrior, Prior
from priorpaint.priors.loading import load_prior
from priorpaint.solvers.base import Problem

METHODS = ("ddnm", "dps", "repaint", "vipaint")
COUNTS = (10, 100, 1000)


def main() -> None:
    """Print both tables."""
    options = _options()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        _time(Path(folder), options.pictures, options.budget, options.samples)
        _memory(Path(folder), [count for count in COUNTS if count <= options.most])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=4)
    parser.add_argument("--budget", type=int, default=200, help="network evaluations a sample")
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--most", type=int, default=COUNTS[-1], help="most pictures of the second table")
    return parser.parse_args()


def _time(folder: Path, pictures: int, budget: int, samples: int) -> None:
    images, prior = folder / "pictures", load_prior("avatars", device="cpu")
    write(images, pictures, 0)
    begun = time.process_time(), time.perf_counter()
    plan = make_plan(_grid(METHODS, samples, f"budget={budget}"), prior, images)
    store = Store(folder / "out")
    bench = Bench(plan, prior, store.folder, images)
    spent = {"bench": np.subtract((time.process_time(), time.perf_counter()), begun), "bare": np.zeros(2)}
    problems = {case.key: _problem(case, plan, prior, images) for case in plan.problems()}
    _bare(next(plan.cells()), plan, problems)  # which warms up
    for item, cell in zip(bench.items(), plan.cells(), strict=True):
        for name in ("bench", "bare"):
            begun = time.process_time(), time.perf_counter()
            if name == "bench":
                assert run_all(store, [item], Inline(bench.run)).done == 1
            else:
                _bare(cell, plan, problems)
            spent[name] += np.subtract((time.process_time(), time.perf_counter()), begun)
    print("| cells | bench, CPU s | bare, CPU s | overhead, CPU | bench, s | bare, s | overhead |")
    print("|--:|--:|--:|--:|--:|--:|--:|")
    (cpu, wall), (bare_cpu, bare_wall) = spent["bench"], spent["bare"]
    print(
        f"| {plan.num_cells} | {cpu:.1f} | {bare_cpu:.1f} | {cpu / bare_cpu - 1:.1%} "
        f"| {wall:.1f} | {bare_wall:.1f} | {wall / bare_wall - 1:.1%} |"
    )


def _problem(case: ProblemCase, plan: Plan, prior: Prior, images: Path) -> Problem:
    measured = Measured.of(case, prepared(images / case.picture.name, plan.shape))
    assert measured.known is not None
    return Problem(prior, Inpainting(torch.from_numpy(measured.known)), torch.from_numpy(measured.y)[None])


def _bare(cell: CellCase, plan: Plan, problems: dict[str, Problem]) -> Tensor:
    """The samples of a cell by its solver alone."""
    case = cell.problem
    posterior = solver_of(cell.method).condition(problems[case.key], seed=fit_seed(case))
    return posterior.draw(plan.samples, seed=sample_seed(case))


def _memory(folder: Path, counts: list[int]) -> None:
    prior = DenoiserPrior(lambda x_t, t: 0.5 * x_t, VP("linear"), (3, 64, 64), name="nothing")
    print("\n| pictures | peak, MB over the start |\n|--:|--:|")
    for count in (1, *counts):  # the first one loads what is imported late
        images = folder / f"pictures-{count}"
        images.mkdir()
        for i in range(count):
            pixels = np.random.default_rng(i).integers(0, 256, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(images / f"{i:06}.png", compress_level=0)
        before = _resident()
        with peak_memory(torch.device("cpu")) as peak:
            plan = make_plan(_grid(("replacement:steps=1",), 1, "default"), prior, images)
            outcome = run_bench(plan, prior, Store(folder / f"out-{count}"), images)
        assert outcome.done == count and peak.bytes is not None, "this figure takes Linux"
        if count > 1:
            print(f"| {count} | {(peak.bytes - before) / 2**20:.1f} |")


def _resident() -> int:
    """Bytes that the process holds."""
    with peak_memory(torch.device("cpu")) as now:
        pass
    return now.bytes or 0


def _grid(methods: tuple[str, ...], samples: int, settings: str) -> Grid:
    chosen = tuple(MethodSpec.of(method) for method in methods)
    return Grid(masks=("rotated",), methods=chosen, samples=samples, settings=settings)


if __name__ == "__main__":
    main()
