"""From plan to stored samples: the layout of the store, what a cell says, resuming, and a kill at any moment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import priorpaint
from priorpaint.batch import Event, Outcome, Processes
from priorpaint.bench.cells import Measured, draw, fit_seed, mask_seed, sample_seed
from priorpaint.bench.grid import Grid
from priorpaint.bench.measure import finished
from priorpaint.bench.pictures import prepared
from priorpaint.bench.plan import CellCase, Plan, solver_of
from priorpaint.bench.planning import make_plan
from priorpaint.bench.run import open_store, run_bench, seconds_a_call, work, work_of, worker
from priorpaint.errors import CancelToken, UsageError
from priorpaint.imaging.mask_kinds import draw_mask
from priorpaint.operators import Downsampling, Inpainting
from priorpaint.priors.base import Prior
from priorpaint.priors.loading import load_prior
from priorpaint.solvers.base import Problem

METHODS = (
    "ddnm:steps=3",
    "vipaint:preset=exact,iterations=2,refine_steps=3",
    "smc:steps=3,twist=dps,kernel=first,particles=4,num_kept=2",
)


def planned(prior: Prior, images: Path, **values: Any) -> Plan:
    basis: dict[str, Any] = {"masks": ["rotated"], "methods": METHODS, "samples": 3, "settings": "default"}
    return make_plan(Grid(**{**basis, **values}), prior, images)


def ran(plan: Plan, prior: Prior, images: Path, out: Path, **options: Any) -> Outcome:
    return run_bench(plan, prior, open_store(out, resume=True), images, **options)


def done(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "done.jsonl").read_text().splitlines()]


def samples_of(out: Path, key: str) -> Any:
    return np.load(out / "cells" / key / "samples.npy")


def test_the_store_holds_problems_samples_and_a_line_a_cell(prior: Prior, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    plan = planned(prior, images, operators=["x2 = downsampling:factor=2"], sigma_y=0.05)
    assert ran(plan, prior, images, out) == Outcome(done=3 * 2 * 3)
    assert Plan.read(out) == plan
    records = {record["key"]: record for record in done(out)}
    assert list(records) == [cell.key for cell in plan.cells()]
    for cell in plan.cells():
        record, folder = records[cell.key], out / "problems" / cell.problem.key
        samples, truth, y = samples_of(out, cell.key), np.load(folder / "truth.npy"), np.load(folder / "y.npy")
        assert samples.shape == (3, 1, 16, 16) and samples.dtype == truth.dtype == y.dtype == np.float32
        np.testing.assert_array_equal(truth, prepared(images / record["picture"], (1, 16, 16)).numpy())
        about = json.loads((folder / "problem.json").read_text())
        assert about["picture"] == record["picture"] and about["seed"] == 0 and about["sigma_y"] == 0.05
        masked = record["mask"] is not None
        operator = Inpainting(torch.from_numpy(np.load(folder / "mask.npy"))) if masked else Downsampling(2)
        noise = y - operator(torch.from_numpy(truth)[None])[0].numpy()
        known = np.load(folder / "mask.npy")[None] if masked else np.ones((1, 8, 8), dtype=bool)
        assert (folder / "mask.npy").exists() == masked
        # 64 values or more: the sample deviation is within 4 / sqrt(2 n) of sigma_y.
        assert abs(noise[known].std() / 0.05 - 1) < 4 / np.sqrt(2 * known.sum()) and not noise[~known].any()


def test_a_cell_says_what_fit_and_sampling_took(prior: Prior, images: Path, tmp_path: Path) -> None:
    plan = planned(prior, images)
    ran(plan, prior, images, tmp_path / "out")
    for record in done(tmp_path / "out"):
        method = next(method for method in plan.methods if method.label == record["method"])
        solver, fit, sampling = solver_of(method), record["fit"], record["sampling"]
        shared, whole = solver.shared_cost(), solver.cost(3)
        assert (fit["nfe_forward"], fit["nfe_backward"]) == (shared.forward, shared.backward)
        assert fit["nfe_forward"] + sampling["nfe_forward"] == whole.forward
        assert fit["nfe_backward"] + sampling["nfe_backward"] == whole.backward
        assert (fit["seconds"] > 0) == solver.fits and sampling["seconds"] > 0
        assert record["peak_bytes"] is None or record["peak_bytes"] > 10**7
        assert record["settings"] == method.settings and record["num_samples"] == 3


def test_a_sample_is_the_same_alone_and_in_the_grid(prior: Prior, images: Path, tmp_path: Path) -> None:
    plan = planned(prior, images, masks=["rotated", "half"], seeds=[0, 1])
    ran(plan, prior, images, tmp_path / "grid")
    alone = planned(prior, images, methods=METHODS[1:2], masks=["half"], seeds=[1])
    ran(alone, prior, images, tmp_path / "alone", batch_size=1)
    for cell in alone.cells():
        np.testing.assert_allclose(
            samples_of(tmp_path / "alone", cell.key), samples_of(tmp_path / "grid", cell.key), atol=2e-5
        )
    fewer = planned(prior, images, samples=2)
    ran(fewer, prior, images, tmp_path / "fewer")
    ours = {(cell.problem.key, cell.method.label): cell.key for cell in plan.cells()}
    for cell in fewer.cells():  # smc keeps as many particles a group whatever the number of samples
        whole = samples_of(tmp_path / "grid", ours[cell.problem.key, cell.method.label])
        np.testing.assert_allclose(samples_of(tmp_path / "fewer", cell.key), whole[:2], atol=2e-5)


def test_a_cell_is_what_the_solver_gives_without_the_bench(prior: Prior, images: Path, tmp_path: Path) -> None:
    plan = planned(prior, images)
    ran(plan, prior, images, tmp_path / "out")
    for cell in plan.cells():
        case = cell.problem
        truth = prepared(images / case.picture.name, plan.shape)[None]
        operator = Inpainting(torch.from_numpy(draw_mask("rotated", (16, 16), mask_seed(case))))
        solver, y = solver_of(cell.method), operator(truth)
        if solver.fits:
            bare = solver.condition(Problem(prior, operator, y), seed=fit_seed(case)).draw(3, seed=sample_seed(case))
        else:
            bare = solver.sample(prior, operator, y, num_samples=3, seed=[sample_seed(case)])[0]
        np.testing.assert_array_equal(samples_of(tmp_path / "out", cell.key), bare.numpy())


def test_a_mask_belongs_to_picture_and_seed(prior: Prior, images: Path) -> None:
    plan = planned(prior, images, seeds=[0, 1], sigma_y=0.1, masks=["rotated", "random"])
    cases = list(plan.problems())
    assert len({mask_seed(case) for case in cases}) == len(cases) == 3 * 2 * 2
    noisier = planned(prior, images, seeds=[1, 0], sigma_y=0.2, masks=["rotated", "random"])
    assert {mask_seed(case) for case in noisier.problems()} == {mask_seed(case) for case in cases}


def test_nothing_is_computed_twice(prior: Prior, images: Path, tmp_path: Path) -> None:
    out, plan = tmp_path / "out", planned(prior, images)
    assert ran(plan, prior, images, out, limit=4) == Outcome(done=4)
    store = open_store(out, resume=True)
    assert work(plan) == 3 * sum(work_of(plan).values()) > work(plan, store) > 0
    assert ran(plan, prior, images, out) == Outcome(done=5, kept=4)
    before, nfe = (out / "done.jsonl").read_bytes(), prior.nfe.copy()
    assert ran(plan, prior, images, out) == Outcome(kept=9)
    assert (out / "done.jsonl").read_bytes() == before and prior.nfe == nfe
    assert work(plan, open_store(out, resume=True)) == 0
    with pytest.raises(UsageError, match="holds a benchmark already; add --resume"):
        open_store(out, resume=False)


def test_what_is_kept_has_the_words_of_the_new_plan(prior: Prior, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran(planned(prior, images, methods=["Old = ddnm:steps=3"]), prior, images, out)
    (images / "a.png").rename(images / "new.png")
    plan = planned(prior, images, methods=["New = ddnm:steps=3"])
    assert ran(plan, prior, images, out) == Outcome(kept=3)
    records = finished(out, plan)
    assert {record["method"] for record in records} == {"New"}
    assert {record["picture"] for record in records} == {"b.PNG", "more/c.jpg", "new.png"}


def test_a_log_that_was_cut_off_costs_one_cell(prior: Prior, images: Path, tmp_path: Path) -> None:
    out, plan = tmp_path / "out", planned(prior, images, methods=METHODS[:1])
    ran(plan, prior, images, out)
    kept = {cell.key: samples_of(out, cell.key) for cell in plan.cells()}
    (out / "done.jsonl").write_bytes((out / "done.jsonl").read_bytes()[:-30])
    assert ran(plan, prior, images, out) == Outcome(done=1, kept=2)
    for key, samples in kept.items():
        np.testing.assert_array_equal(samples_of(out, key), samples)


def test_a_picture_that_changes_meanwhile_fails_alone(prior: Prior, images: Path, tmp_path: Path) -> None:
    out, plan = tmp_path / "out", planned(prior, images, methods=METHODS[:1])
    (images / "a.png").write_bytes((images / "b.PNG").read_bytes())
    (images / "more" / "c.jpg").unlink()
    assert ran(plan, prior, images, out) == Outcome(done=1, failed=2)
    failures = [json.loads(line) for line in (out / "failed.jsonl").read_text().splitlines()]
    assert "a.png has changed" in failures[0]["error"] and failures[1]["picture"] == "more/c.jpg"
    assert {"key", "picture", "mask", "operator", "method", "seed", "error"} <= set(failures[0])


def test_samples_that_are_not_numbers_are_a_failure(prior: Prior, images: Path, tmp_path: Path) -> None:
    class Broken(type(prior)):  # type: ignore[misc]
        def _denoise(self, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return x_t * torch.nan

    plan = planned(prior, images, methods=METHODS[:1])
    prior.__class__ = Broken
    assert ran(plan, prior, images, tmp_path / "out") == Outcome(failed=3)
    assert "not numbers" in (tmp_path / "out" / "failed.jsonl").read_text()


def test_a_cancelled_run_keeps_what_is_finished(prior: Prior, images: Path, tmp_path: Path) -> None:
    token, shares = CancelToken(), list[float]()

    def on_event(event: Event) -> None:
        if event.kind == "step":
            shares.append(event.share)
        if event.kind == "started" and event.item.about["method"] == METHODS[2]:
            token.cancel()

    plan = planned(prior, images)
    outcome = ran(plan, prior, images, tmp_path / "out", on_event=on_event, cancel=token)
    assert outcome == Outcome(done=2, cancelled=True) and len(done(tmp_path / "out")) == 2
    assert shares[:3] == [pytest.approx(i / 3) for i in (1, 2, 3)]
    fitted = shares[3:]
    assert fitted == sorted(fitted) and fitted[-1] == 1.0 and len(fitted) == 2 + 3


def test_one_timed_call_is_not_counted(prior: Prior, images: Path) -> None:
    plan, nfe = planned(prior, images), prior.nfe.copy()
    assert seconds_a_call(plan, prior) > 0 and prior.nfe == nfe


KILLED = """
import sys, time
from pathlib import Path
from priorpaint.bench.grid import Grid
from priorpaint.bench.planning import make_plan
from priorpaint.bench.run import open_store, run_bench
from priorpaint.priors import analytic
import torch
torch.set_num_threads(1)
prior = analytic.Gaussian(torch.full((256,), 0.1), 0.16 * torch.eye(256), (1, 16, 16))
images, out = map(Path, sys.argv[1:])
grid = Grid(masks=["rotated"], methods=["ddnm:steps=3", "dps:steps=4"], samples=2, settings="default", seeds=[0, 1, 2])
plan = make_plan(grid, prior, images)
print(run_bench(plan, prior, open_store(out, resume=True), images), flush=True)
"""


@pytest.mark.slow
def test_a_kill_at_any_moment_loses_the_cell_in_flight_and_no_byte_of_the_others(images: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(priorpaint.__file__).parents[1])}

    command = [sys.executable, "-c", KILLED, str(images)]

    def killed_after(cells: int, log: Path) -> int:
        """Lines of the log of a process that is killed once it has so many."""
        with subprocess.Popen([*command, str(log.parent)], env=environment, stdout=subprocess.DEVNULL) as process:
            while not (log.exists() and log.read_bytes().count(b"\n") >= cells):
                assert process.poll() is None
                time.sleep(0.001)
            process.send_signal(signal.SIGKILL)
        return log.read_bytes().count(b"\n")

    def finished(out: Path) -> str:
        return subprocess.run([*command, str(out)], env=environment, text=True, check=True, capture_output=True).stdout

    assert finished(tmp_path / "whole") == "Outcome(done=18, kept=0, failed=0, cancelled=False)\n"
    out = tmp_path / "killed"
    first = killed_after(2, out / "done.jsonl")
    second = killed_after(first + 3, out / "done.jsonl")
    assert 2 <= first < second < 18
    assert finished(out) == f"Outcome(done={18 - second}, kept={second}, failed=0, cancelled=False)\n"
    whole = {path.relative_to(tmp_path / "whole"): path.read_bytes() for path in (tmp_path / "whole").rglob("*.npy")}
    assert len(whole) == 18 + 9 * 3
    assert {path: (out / path).read_bytes() for path in whole} == whole
    assert sorted(record["key"] for record in done(out)) == sorted(r["key"] for r in done(tmp_path / "whole"))


def test_measuring_needs_no_store(prior: Prior, images: Path) -> None:
    cell: CellCase = next(planned(prior, images).cells())
    truth = prepared(images / cell.problem.picture.name, (1, 16, 16))
    measured = Measured.of(cell.problem, truth)
    assert measured.known is not None and not measured.y[0][~measured.known].any()
    problem = Problem(prior, Inpainting(torch.from_numpy(measured.known)), torch.from_numpy(measured.y)[None])
    samples, fit, sampling = draw(solver_of(cell.method), problem, cell.problem, 2, 1)
    assert samples.shape == (2, 1, 16, 16) and fit.seconds == 0 < sampling.seconds


def test_processes_compute_the_samples_that_this_process_does(images: Path, tmp_path: Path) -> None:
    prior = load_prior("avatars", device="cpu")
    plan = planned(prior, images, methods=["ddnm:steps=2"], pictures=2)
    assert ran(plan, prior, images, tmp_path / "here") == Outcome(done=2)
    make = partial(worker, plan, {"spec": "avatars"}, tmp_path / "there", images, None)
    outcome = ran(plan, prior, images, tmp_path / "there", executor=Processes(make, ["cpu"], threads=1))
    assert outcome == Outcome(done=2)
    for record in done(tmp_path / "here"):
        here, there = (samples_of(tmp_path / where, record["key"]) for where in ("here", "there"))
        assert np.array_equal(here, there)
    with pytest.raises(UsageError, match="has changed since"):
        worker(plan, {"spec": "fashion"}, tmp_path, images, None, "cpu")
