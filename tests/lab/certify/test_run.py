"""Runs: which cells there are, what becomes of those that go wrong, stopping, processes."""

from __future__ import annotations

import math
import threading
import time
from pathlib import Path

import pytest
import torch

from priorpaint import CancelToken, UsageError, solver
from priorpaint.lab.certify import Certificate, Method, Problem, certify, problem
from priorpaint.lab.certify.base import fresh
from priorpaint.lab.certify.measures import Ruler
from priorpaint.lab.certify.report import overview, short_number
from priorpaint.lab.certify.results import DONE, FAILED, NOT_APPLICABLE, Cell
from priorpaint.lab.certify.run import _is_costly
from tests.lab.certify.exact import Broken, Exact

QUICK = {"draws": 1, "num_samples": 64, "calibrated": False}


def quick(*arguments: object, **changes: object) -> Certificate:
    return certify(*arguments, **{**QUICK, **changes})  # type: ignore[arg-type]


def test_exact_samples_have_a_ratio_of_one() -> None:
    """Over three draws of 512 samples; the scatter of a ratio is about a third on a mixture."""
    for cell in certify([Exact()], ["M16"], [None], calibrated=False).cells:
        assert cell.status == DONE and len(cell.measures) == 3 and cell.num_samples == 512
        assert cell.ratio == pytest.approx(1, abs=0.6)
        assert cell.prior_ratio > 3


def test_cells_in_order_with_the_same_numbers_again() -> None:
    certificate = quick(["replacement", "dps"], ["G1", "M3"], [5, 10])
    keys = [(cell.problem, cell.budget, cell.method) for cell in certificate.cells]
    assert keys == [(p, b, m) for p in ("G1", "M3") for b in (5, 10) for m in ("replacement", "dps")]
    assert certificate.methods == ["replacement", "dps"] and certificate.budgets == [5, 10]
    again = quick(["dps"], ["M3"], [10]).cells[0]
    cell = certificate.cell("dps", "M3", 10)
    assert cell is not None and cell.measures == again.measures and cell.settings["steps"] == 10


def test_seeds_change_the_draw_of_random_problems_and_the_samples_of_fixed_ones() -> None:
    for name, scatter in (("G16", False), ("G1", True)):
        cell = quick(["replacement"], [name], [5], draws=2).cells[0]
        assert len(cell.measures) == 2 and cell.measures[0].sliced != cell.measures[1].sliced
        one, two = (floor.residual for floor in cell.floors)
        assert (one == pytest.approx(two, abs=1e-6)) == scatter


def test_what_cannot_be_done_is_said() -> None:
    cells = quick(["repaint", "dps:guidance=likelihood", "dps:steps=60"], ["M25-8-1", "G1"], [50]).cells
    status = {(cell.method, cell.problem): (cell.status, cell.note) for cell in cells}
    assert status["repaint", "M25-8-1"] == (NOT_APPLICABLE, "it needs a mask")
    assert status["dps:guidance=likelihood", "M25-8-1"][0] == DONE
    assert "pass sigma_y > 0" in status["dps:guidance=likelihood", "G1"][1]
    assert "more than the budget" in status["dps:steps=60", "G1"][1]


def test_what_breaks_does_not_end_the_run() -> None:
    methods = [Method("raises", Broken()), Method("nan", Broken(math.nan)), Method("fine", Exact())]
    raises, nan, fine = quick(methods, ["G1"], [None]).cells
    assert (raises.status, raises.note) == (FAILED, "RuntimeError: out of cards")
    assert (nan.status, nan.note) == (FAILED, "the samples are not finite")
    assert fine.status == DONE


def test_cancelling_keeps_finished_cells() -> None:
    seen: list[Cell] = []
    cancel = CancelToken()

    def report(done: int, total: int, cell: Cell) -> None:
        seen.append(cell)
        if done == 2:
            cancel.cancel()

    certificate = quick(["replacement"], ["G1"], [3, 4, 5], report=report, cancel=cancel)
    assert list(certificate.cells) == seen and [cell.budget for cell in seen] == [3, 4]


def test_another_thread_cancels_inside_a_cell() -> None:
    """The second cell would take a minute."""
    cancel, begun = CancelToken(), threading.Event()
    thread = threading.Thread(target=lambda: (begun.wait(60), time.sleep(0.2), cancel.cancel()))
    thread.start()
    certificate = quick(["replacement"], ["G1"], [3, 10**5], report=lambda *_: begun.set(), cancel=cancel)
    thread.join()
    assert [cell.budget for cell in certificate.cells] == [3]


def test_costly_problems_are_cut_down_by_default() -> None:
    """B16-8: one draw of at most 128 samples, no rank test, no budget of 1000; what is asked for is done."""
    assert problem("B16-8").costly and not problem("M16").costly
    assert _is_costly(Method.of("smc"), "L64") and _is_costly(Method.of("vipaint:correct=true"), "B16-4")
    assert not any(
        _is_costly(Method.of(name), "L64") for name in ("dps", "vipaint:preset=exact", "smc:twist=pigdm,kernel=first")
    )
    assert not _is_costly(Method.of("smc"), "M16")
    cells = certify([Broken()], ["B16-8", "G1"]).cells
    assert [cell.budget for cell in cells] == [50, 200, 50, 200, 1000]
    cell = certify(["replacement"], ["B16-8"], [5], draws=2).cells[0]
    assert cell.num_samples == 128 and len(cell.measures) == 2 and cell.calibration is None


def test_a_prior_of_your_own_is_measured_against_its_law() -> None:
    base = problem("G16")
    own = Problem("own", base.law, base.operator, base.y, 0.1, prior=base.law)
    other = Problem("shifted", base.law, base.operator, base.y + 1, 0.1)
    cells = quick(["pigdm"], [own, other], [20], draws=1, num_samples=256).cells
    assert cells[0].problem == "own" and cells[0].ratio < cells[0].prior_ratio
    assert cells[0].floors[0] != cells[1].floors[0]
    with pytest.raises(UsageError, match="same name"):
        quick(["dps"], [own, Problem("own", base.law, base.operator, base.y, 0.2)], [20])


def test_wrong_use() -> None:
    for arguments, message in [
        ((["magic"],), "no method 'magic'"),
        ((["dps:speed=3"],), "no setting 'speed'"),
        ((["dps:speed"],), "NAME:key=value"),
        ((["dps"], ["M17"]), "no problem 'M17'"),
        ((["dps"], ["G1"], [0]), "at least 1 network evaluation"),
        (([solver("dps"), "dps"], ["G1"]), "same label"),
    ]:
        with pytest.raises(UsageError, match=message):
            certify(*arguments)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="at least 2 samples"):
        certify(["dps"], ["G1"], num_samples=1)


def test_the_global_generators_are_not_touched() -> None:
    state = torch.get_rng_state()
    quick(["replacement"], ["M16"], [3], calibrated=True)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("block", range(2))
def test_the_examples_of_the_docs(block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[3] / "docs" / "certify.md").read_text()
    code = [part.split("```")[0] for part in page.split("```python\n")[1:]][block]
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "example"}
    exec(compile(code, f"docs/certify.md, block {block}", "exec"), names)
    certificate = names["certificate"]
    assert isinstance(certificate, Certificate)
    assert all(cell.status == DONE and cell.ratio < cell.prior_ratio for cell in certificate.cells)
    if block == 0:
        assert Certificate.read(tmp_path / "out" / "certification.json").cells == certificate.cells


def test_fresh_draws_are_new_and_the_same_again() -> None:
    """Every kind has draws that no table shows, the two fixed ones too, by a seed of the caller's."""
    for name in ("G1", "M3", "G16", "M16", "B16-2", "M25-8-1", "L64", "I8-pixels"):
        drawn = [problem(name, fresh(7, i)) for i in (0, 1)]
        assert not torch.equal(drawn[0].y, drawn[1].y), name
        assert torch.equal(drawn[0].y, problem(name, fresh(7, 0)).y), name
        assert not torch.equal(drawn[0].y, problem(name, fresh(8, 0)).y), name
    one, two = (problem("G1", fresh(7, i)).law.cov for i in (0, 1))
    assert not torch.equal(one, two)
    for i in range(5):  # something to decide
        assert float(problem("M3", fresh(7, i)).posterior.weights.max()) < 0.8


def test_many_draws_show_median_and_worst() -> None:
    certificate = quick(["replacement"], ["G1"], [5], draws=5, draw_seed=3)
    cell = certificate.cells[0]
    assert len(set(cell.ratios)) == 5 and cell.median == sorted(cell.ratios)[2] and cell.worst == max(cell.ratios)
    table = overview(certificate, 5)
    assert "median (worst) of 5 draws" in table.title
    assert table.rows[0][1] == f"{short_number(cell.median)} ({short_number(cell.worst)})"
    assert table.rows[-1] == ["exact samples", f"1.00 ± {sum(cell.floor_spread) / 5:.2f}"]
    assert certificate.setup["draw_seed"] == 3
    again = Certificate.from_json(certificate.to_json())
    assert again.cells[0].ratios == cell.ratios and again.cells[0].floor_spread == cell.floor_spread


def test_the_spread_of_the_floor_is_that_of_exact_samples() -> None:
    """Sets of exact samples that no replicate holds stray from the floor as the spread says."""
    g16 = problem("G16", 0)
    ruler = Ruler(g16)
    scores = [ruler.measure(g16.posterior.sample(128, seed=1000 + i)).sliced for i in range(24)]
    floor, spread = ruler.floor(128).sliced, ruler.spread(128)
    own = torch.tensor(scores).std() / floor
    # Standard deviations of 24 and of 8 values: 99.8 % of the ratios, the root of F(23, 7), are in (.43, 3.6).
    assert 0.43 < float(own) / spread < 3.6
