"""The report: its statistics against plain ones, its tables, its sheets, and what it says of what is missing."""

from __future__ import annotations

import json
import math
import re
import statistics
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from priorpaint.batch.store import Store, append
from priorpaint.bench.features import FeatureNetwork
from priorpaint.bench.grid import MethodSpec
from priorpaint.bench.measure import MEASURES, measure, measured
from priorpaint.bench.plan import LeftOut, Paper, Plan
from priorpaint.bench.report import write_report
from priorpaint.bench.summary import Estimate
from priorpaint.errors import Cancelled, CancelToken, UsageError
from tests.bench.stored import line_of, make
from tests.bench.test_measure import MEANS

PAPER = Paper(
    source="A paper, Table 1", setting="other pictures",
    values=(
        {"method": "right", "metric": "psnr", "value": 31.25, "mask": "half"},
        {"method": "sure", "metric": "lpips", "value": 0.216, "mask": "half"},
        {"method": "right", "metric": "psnr", "value": 22.22, "mask": "other"},
    ),
)  # fmt: skip


def numbers(folder: Path) -> dict[str, dict[str, Any]]:
    """The methods of the first mask in report.json, by label."""
    content = json.loads((folder / "report.json").read_text())
    return {one["method"]: one for one in content["cases"][0]["methods"]}


def set_values(folder: Path, plan: Plan, values: dict[str, list[dict[str, Any]]]) -> None:
    """Measures, by method and then cell by cell."""
    for label, lines in values.items():
        cases = [case for case in plan.cells() if case.method.label == label]
        for case, line in zip(cases, lines, strict=False):
            append(folder / MEASURES, {"key": case.key, "values": line, "made_with": {}})


def test_means_errors_and_paired_differences(tmp_path: Path) -> None:
    """Standard errors over pictures, after the mean over seeds; differences on the pictures that both methods have."""
    plan = make(tmp_path, pictures=3, seeds=(0, 1))
    right = [0.1, 0.3, 0.2, 0.2, 0.4, 0.6]  # picture by picture, two seeds each: means .2, .2, .5
    wide = [0.5, 0.5, 0.7, 0.7]  # two pictures only
    rows = {"right": [{"crps": v} for v in right], "wide": [{"crps": v} for v in wide]}
    set_values(tmp_path, plan, rows)
    write_report(tmp_path)
    found = numbers(tmp_path)
    best = found["right"]["estimates"]["crps"]
    assert best["mean"] == pytest.approx(0.3) and best["pictures"] == 3
    assert best["error"] == pytest.approx(statistics.stdev([0.2, 0.2, 0.5]) / math.sqrt(3))
    other = found["wide"]["differences"]["crps"]
    assert other["mean"] == pytest.approx(statistics.mean([0.3, 0.5])) and other["pictures"] == 2
    assert other["error"] == pytest.approx(statistics.stdev([0.3, 0.5]) / math.sqrt(2))
    assert found["right"]["differences"] == {} and found["sure"]["estimates"] == {}


def test_pairing_takes_the_difficulty_of_pictures_out(tmp_path: Path) -> None:
    plan = make(tmp_path, pictures=3)
    easy = [1.0, 5.0, 9.0]
    set_values(tmp_path, plan, {"right": [{"crps": v} for v in easy], "wide": [{"crps": v + 0.5} for v in easy]})
    write_report(tmp_path)
    found = numbers(tmp_path)["wide"]
    assert found["differences"]["crps"]["mean"] == pytest.approx(0.5)
    assert found["differences"]["crps"]["error"] == pytest.approx(0, abs=1e-12)
    assert found["estimates"]["crps"]["error"] == pytest.approx(4 / math.sqrt(3))


def test_the_ratio_is_that_of_the_means(tmp_path: Path) -> None:
    """Not the mean of ratios; its error by many draws of pictures whose ratio is known."""
    plan = make(tmp_path, pictures=2)
    lines = [{"variance": 1.0, "squared_error": 4.0}, {"variance": 3.0, "squared_error": 1.0}]
    set_values(tmp_path, plan, {"right": lines})
    write_report(tmp_path)
    assert numbers(tmp_path)["right"]["estimates"]["variance_over_error"]["mean"] == pytest.approx(4 / 5)
    rng = np.random.default_rng(0)
    draws = [(rng.gamma(8, 1, 40), rng.gamma(8, 1, 40)) for _ in range(2000)]
    estimates = [Estimate.of_ratio(a, b) for a, b in draws]
    means, errors = (np.array([getattr(e, name) for e in estimates]) for name in ("mean", "error"))
    assert errors.mean() == pytest.approx(means.std(), rel=0.05)
    assert Estimate.of_ratio(np.ones(2), np.zeros(2)) is None


def test_costs_are_those_of_a_fit_and_of_a_sample(tmp_path: Path) -> None:
    make(tmp_path, pictures=2, samples=4)
    write_report(tmp_path)
    cost = numbers(tmp_path)["wide"]["cost"]
    assert cost == {
        "fit_seconds": 2, "fit_nfe_forward": 40, "fit_nfe_backward": 5,
        "sample_seconds": 0.5, "sample_nfe_forward": 10, "sample_nfe_backward": 0, "peak_bytes": 2_000_000,
    }  # fmt: skip
    assert "| wide | 2 | 2.00 | 40 + 5 | 0.50 | 10 + 0 | 2 |" in (tmp_path / "report.md").read_text()


def test_tables_with_the_numbers_of_the_paper_beside(tmp_path: Path) -> None:
    plan = make(tmp_path, pictures=2, paper=PAPER)
    measure(tmp_path, features=MEANS)
    paths = write_report(tmp_path)
    assert [path.name for path in paths] == ["report.md", "report.json", "report.html"]
    text = paths[0].read_text()
    header = next(line for line in text.splitlines() if line.startswith("| method | "))
    assert "| LPIPS | LPIPS (paper) | PSNR | PSNR (paper) |" in header and "| Frechet | KID |" in header
    row = next(line for line in text.splitlines() if line.startswith("| sure | "))
    assert row.startswith("| sure | – | 0.216 | **")
    assert "31.25" in text and "22.22" not in text and "A paper, Table 1. other pictures" in text
    values = [line_of(plan, measured(tmp_path), "right", i)["psnr"] for i in (0, 1)]
    mean, error = statistics.mean(values), statistics.stdev(values) / math.sqrt(2)
    assert f"{mean:.2f} ± {error:.2f} | 31.25 |" in text
    entry = numbers(tmp_path)["right"]
    assert len(entry["ranks"]) == 7 and sum(entry["ranks"]) == pytest.approx(1)
    assert entry["estimates"]["kid"]["pictures"] == 2


def test_sheets_show_truth_what_was_measured_and_samples(tmp_path: Path) -> None:
    """32 pixels are shown three times as large; a sheet has at most eight pictures."""
    make(tmp_path, pictures=9, samples=4, operators=True)
    write_report(tmp_path)
    files = sorted(path.name for path in (tmp_path / "sheets").iterdir())
    assert files == ["01-001.png", "01-002.png", "02-001.png", "02-002.png"]
    content = json.loads((tmp_path / "report.json").read_text())
    assert [case["sheets"] for case in content["cases"]] == [[f"sheets/{f}" for f in files[i : i + 2]] for i in (0, 2)]
    masked, smaller = (np.asarray(Image.open(tmp_path / "sheets" / files[i])) for i in (0, 2))
    top, left = 26, 14
    truth = masked[top : top + 96, left : left + 96]
    shown = masked[top : top + 96, left + 110 : left + 206]
    grey = (shown == 128).all(-1)
    assert grey.mean() == pytest.approx(0.5, abs=0.01) and np.array_equal(shown[~grey], truth[~grey])
    sample = masked[top : top + 96, left + 220 : left + 316]
    assert np.array_equal(sample[~grey], truth[~grey])  # pasted
    assert not np.array_equal(sample[grey], truth[grey]) and np.abs(sample.astype(int) - truth).mean() < 10
    small = smaller[top : top + 96, left + 110 : left + 206]
    assert np.array_equal(small[::6, ::6].repeat(6, 0).repeat(6, 1), small)


class Links(HTMLParser):
    """The addresses in a page, and whether every tag is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_asks_for_nothing_but_its_sheets(tmp_path: Path) -> None:
    plan = make(tmp_path, pictures=2, operators=True)
    plan.model_copy(update={"title": "a <b> & c", "name": "x<y"}).write(tmp_path)
    measure(tmp_path)
    text = write_report(tmp_path)[2].read_text()
    links = Links()
    links.feed(text)
    assert links.open == [] and len(links.addresses) == 2
    assert all((tmp_path / address).is_file() for address in links.addresses)
    assert "a &lt;b&gt; &amp; c" in text and "x&lt;y" in text and "**" not in text
    assert not re.search(r"https?:|@import|url\(", text) and text.count("<svg") == 6


def test_what_failed_was_skipped_or_is_not_finished_is_said(tmp_path: Path) -> None:
    plan = make(tmp_path, pictures=2)
    skipped = (
        LeftOut(name="ddrm", operator="inpainting", error="needs a linear operator."),
        LeftOut(name="psld", error="needs a latent prior."),
    )
    more = plan.model_copy(
        update={
            "methods": (*plan.methods, MethodSpec(label="late", name="dps")),
            "skipped": skipped,
            "left_out": (LeftOut(name="text.png", error="text.png is not a picture."),),
            "repeated": (LeftOut(name="b.png", error="b.png is the same picture as a.png."),),
        }
    )
    more.write(tmp_path)
    late = [case for case in more.cells() if case.method.label == "late"]
    Store(tmp_path).fail(late[0].key, late[0].about, "it gave values that are not numbers.")
    text = write_report(tmp_path)[0].read_text()
    assert "## Failed\n\n- late, half, 000.png, seed 0: it gave values that are not numbers." in text
    assert "- 1 cell of the plan; run the benchmark on with --resume." in text
    assert "- ddrm, inpainting: needs a linear operator.\n- psld: needs a latent prior." in text
    assert "- text.png is not a picture.\n- b.png is the same picture as a.png." in text


def test_names_and_errors_cannot_steer_a_terminal_or_break_a_page(tmp_path: Path) -> None:
    evil = "\x1b[31mred\n\n# heading\u202e"
    plan = make(tmp_path, pictures=2)
    more = plan.model_copy(
        update={
            "title": f"title {evil}",
            "name": f"name {evil}",
            "methods": (*plan.methods, MethodSpec(label=f"late {evil}", name="dps")),
            "left_out": (LeftOut(name=evil, error=f"{evil} is not a picture."),),
        }
    )
    more.write(tmp_path)
    late = [case for case in more.cells() if case.method.label.startswith("late")]
    Store(tmp_path).fail(late[0].key, late[0].about, f"error {evil}")
    shown = "\\x1b[31mred\\n\\n# heading\\u202e"
    for file in write_report(tmp_path):
        text = file.read_text(encoding="utf-8")
        assert text.replace("\n", "").isprintable(), file
        if file.suffix != ".json":
            assert all(f"{word} {shown}" in text for word in ("name", "title", "late")), file
            assert "error \\x1b[31mred" in text, file


def test_what_is_damaged_leaves_its_place_empty(tmp_path: Path) -> None:
    plan = make(tmp_path, pictures=3)
    measure(tmp_path, features=MEANS)
    cases = list(plan.cells())
    (tmp_path / "cells" / cases[0].key / "samples.npy").write_bytes(b"\x93NUMPY")
    (tmp_path / "problems" / cases[3].problem.key / "truth.npy").unlink()
    for file in (tmp_path / "features" / "means").glob(f"{cases[-1].key}*"):
        file.unlink()
    write_report(tmp_path)
    sheet = np.asarray(Image.open(tmp_path / "sheets" / "01-001.png"))
    assert (sheet[26:122, 234:330] == 255).all()  # the first sample of the first method
    assert numbers(tmp_path)["wide"]["estimates"]["kid"]["pictures"] == 2


def test_features_of_two_networks_are_not_mixed(tmp_path: Path) -> None:
    """Half of the cells have features of another network, of another length, too."""
    make(tmp_path, pictures=4)
    token = CancelToken()

    def stop(done: int, total: int) -> None:
        if done == total // 2:
            token.cancel()

    measure(tmp_path, metrics=["kid"], features=MEANS)
    wider = FeatureNetwork("wider", "wider", lambda x: x.mean(2).flatten(1))
    with pytest.raises(Cancelled):
        measure(tmp_path, metrics=["kid"], features=wider, report=stop, cancel=token)
    text = write_report(tmp_path)[0].read_text()
    estimates = numbers(tmp_path)["wide"]["estimates"]
    assert estimates.keys() == {"kid"} and estimates["kid"]["pictures"] == 4
    assert "Not all cells have kid of the same weights" in text
    measure(tmp_path, metrics=["kid"], features=wider)
    assert "Not all cells" not in write_report(tmp_path)[0].read_text()


def test_cells_of_an_older_plan_do_not_count(tmp_path: Path) -> None:
    plan = make(tmp_path, pictures=2)
    measure(tmp_path)
    plan.model_copy(update={"methods": plan.methods[:1], "pictures": plan.pictures[1:]}).write(tmp_path)
    write_report(tmp_path)
    found = numbers(tmp_path)
    assert list(found) == ["right"] and found["right"]["cells"] == 1


def test_a_report_before_anything_is_finished(tmp_path: Path) -> None:
    plan = make(tmp_path / "other", pictures=1)
    (tmp_path / "new").mkdir()
    plan.write(tmp_path / "new")
    text = write_report(tmp_path / "new")[0].read_text()
    assert "- 3 cells of the plan" in text and "| method |" not in text
    with pytest.raises(UsageError, match="no benchmark in"):
        write_report(tmp_path)
