"""Tables, JSON and figures of a certificate with known numbers."""

from __future__ import annotations

import io
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from priorpaint import MissingExtra, UsageError
from priorpaint.lab.certify import Calibration, Cell, Certificate, Measures, save, show
from priorpaint.lab.certify import plots as figures
from priorpaint.lab.certify.report import details, markdown, methods_by_error, notes, overview
from priorpaint.lab.certify.results import FAILED, NOT_APPLICABLE

RESULTS = Path(__file__).parents[3] / "docs" / "results"
SETUP = {"priorpaint": "0", "torch": "0", "python": "3", "machine": "m", "draws": 2, "num_samples": 64, "workers": 1}


def measures(sliced: float, modes: float | None = 0.1) -> Measures:
    return Measures(sliced, 0.01, modes, 0.2, 0.9, 0.1, 0.6, 0.95)


def cell(method: str, problem: str, budget: int, ratio: float) -> Cell:
    floors = (measures(0.1), measures(0.2))
    own = tuple(measures(ratio * floor.sliced) for floor in floors)
    priors = (measures(1.0), measures(2.0))
    test = Calibration(0.0001, ((1, 2), (3, 4))) if budget == 200 else None
    return Cell(method, problem, budget, "done", "", {"steps": 3}, 64, own, floors, priors, test, 10.0, 5.0, 1.25)


@pytest.fixture
def certificate() -> Certificate:
    cells = [
        cell(m, p, b, r) for m, r in (("bad", 8.0), ("good", 1.5)) for p in ("G1", "B16-2", "B16-4") for b in (50, 200)
    ]
    cells += [Cell("maskless", "G1", 200, NOT_APPLICABLE, "it needs a mask"), Cell("broken", "G1", 200, FAILED, "boom")]
    return Certificate(tuple(cells), {"G1": "two pixels", "B16-2": "two copies", "B16-4": "four copies"}, SETUP)


def test_means_over_the_draws() -> None:
    one = cell("m", "p", 50, 3.0)
    assert (
        one.ratios == pytest.approx([3, 3]) and one.ratio == pytest.approx(3) and one.prior_ratio == pytest.approx(10)
    )
    assert one.mean("sliced") == pytest.approx(0.45) and one.floor("sliced") == pytest.approx(0.15)
    assert replace(one, measures=(measures(1, None),) * 2).mean("modes") is None


def test_json_and_back(certificate: Certificate) -> None:
    text = certificate.to_json()
    assert Certificate.from_json(text) == certificate
    broken = replace(certificate.cells[0], measures=(measures(math.inf), measures(math.nan)))
    again = Certificate.from_json(Certificate((broken,), {}, SETUP).to_json()).cells[0]
    assert again.measures[0].sliced == math.inf and again.measures[1].sliced == math.inf
    for bad in ("nonsense", "{}", json.dumps({"version": 99})):
        with pytest.raises(UsageError, match="run certify again"):
            Certificate.from_json(bad)
    with pytest.raises(UsageError, match="cannot be read"):
        Certificate.read("/nowhere/at/all.json")


def test_merging_replaces_cells_and_keeps_the_others(certificate: Certificate) -> None:
    new = Certificate((cell("good", "G1", 50, 9.0), cell("new", "M3", 50, 2.0)), {"M3": "modes"}, SETUP)
    merged = certificate.merged(new)
    assert len(merged.cells) == len(certificate.cells) + 1 and merged.about["M3"] == "modes"
    replaced, kept = merged.cell("good", "G1", 50), merged.cell("good", "G1", 200)
    assert replaced is not None and kept is not None
    assert replaced.ratio == pytest.approx(9) and kept.ratio == pytest.approx(1.5)


def test_tables(certificate: Certificate) -> None:
    assert methods_by_error(certificate, 200) == ["good", "bad", "maskless", "broken"]
    grid = overview(certificate, 200)
    assert grid.rows[0] == ["good", "1.50", "1.50", "1.50"] and grid.rows[-1][1:] == ["10.0"] * 3
    assert grid.rows[2][1] == "–" and grid.rows[3][1] == "failed"
    own = details(certificate, "G1", 200)
    assert [row[0] for row in own.rows] == ["good", "bad", "exact samples"]
    assert dict(zip(own.header, own.rows[0], strict=True)) == {
        "method": "good", "50": "1.50", "200": "1.50", "SW": "0.225", "modes": "0.100", "mean": "0.200", "std": "0.900",
        "residual": "0.100", "50 %": "0.60", "90 %": "0.95", "p": "<.001", "NFE": "10+5", "CPU s": "1.2",
    }  # fmt: skip
    assert own.rows[-1][3] == "0.150"
    assert notes(certificate, failures_only=True) == ["broken: failed on G1 (200): boom"]


def test_the_terminal_shows_everything(certificate: Certificate) -> None:
    out = io.StringIO()
    show(certificate, Console(file=out, width=160))
    assert "error over the floor, 50" in out.getvalue() and "broken: failed on G1" in out.getvalue()


def test_the_stored_page_is_that_of_its_json() -> None:
    page = (RESULTS / "certification.md").read_text()
    figure = re.search(r"^!\[Error[^]]*\]\((.*)\)$", page, re.MULTILINE)
    command = re.search(r"^Made by `(.*)`: ", page, re.MULTILINE)
    assert figure is not None and command is not None
    stored = Certificate.read(RESULTS / "certification.json")
    assert markdown(stored, figure=figure[1], command=command[1]) == page


def test_the_page(certificate: Certificate) -> None:
    page = markdown(certificate, figure="x.png", command="priorpaint certify")
    assert "![" in page and "(x.png)" in page and "Made by `priorpaint certify`" in page
    assert "| good | 1.50 | 1.50 | 1.50 |" in page and "### B16-4: four copies" in page
    assert "- maskless: not applicable on G1 (200): it needs a mask" in page
    for line in page.splitlines():  # every table row has as many cells as its header
        if line.startswith("| method"):
            columns = line.count("|")
        elif line.startswith("| good"):
            assert line.count("|") == columns


def test_what_a_page_is_told_cannot_steer_a_terminal(certificate: Certificate) -> None:
    evil = "\x1b[31mred\nblue\u202e"
    cells = (*certificate.cells, Cell("broken", "B16-2", 200, FAILED, evil), cell(f"own:{evil}", "G1", 200, 2.0))
    more = replace(certificate, cells=cells, about={**certificate.about, "G1": evil})
    page = markdown(more, command=f"priorpaint {evil}")
    assert page.replace("\n", "").isprintable()
    shown = "\\x1b[31mred\\nblue\\u202e"
    assert all(f"{start}{shown}" in page for start in ("`priorpaint ", "| own:", "G1: ", "failed on B16-2 (200): "))


def test_files(certificate: Certificate, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    files = save(certificate, tmp_path / "a" / "results", pictures=tmp_path / "a" / "images")
    names = ["certification.json", "certification.md", "certification.png"]
    assert [path.name for path in files] == [*names, "certification-budgets.png", "certification-copies.png"]
    assert "(../images/certification.png)" in files[1].read_text()
    for path in files[2:]:
        with Image.open(path) as image:
            assert image.width > 300 and image.height > 150
            assert len(image.convert("L").getcolors() or []) > 10
    assert not list(tmp_path.rglob("*.part"))


def test_the_overview_figure_shows_the_numbers(certificate: Certificate) -> None:
    pytest.importorskip("matplotlib")
    axes = figures.overview(certificate).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "exact samples", "good", "bad", "maskless", "broken", "prior, ignoring y",
    ]  # fmt: skip
    shown = [text.get_text() for text in axes.texts]
    assert shown[:6] == ["1.00"] * 3 + ["1.50"] * 3 and shown[9:12] == ["–"] * 3


def test_without_matplotlib(certificate: Certificate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtra, match=r"pip install 'priorpaint\[plot\]'"):
        save(certificate, tmp_path)
    assert len(save(certificate, tmp_path, figures=False)) == 2
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be made"):
        save(certificate, tmp_path / "file" / "x", figures=False)
