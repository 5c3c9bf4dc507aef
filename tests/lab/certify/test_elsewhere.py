"""No method is worse here than the same method in another library (docs/results/certification.json has our numbers)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from priorpaint.lab.certify import Certificate
from priorpaint.lab.certify.elsewhere import (
    ELSEWHERE,
    PROBLEMS,
    Elsewhere,
    left,
)
from priorpaint.lab.certify.report import MAIN_BUDGET, elsewhere, markdown

STORED = Path(__file__).parents[3] / "docs" / "results" / "certification.json"


@pytest.fixture(scope="module")
def stored() -> Certificate:
    return Certificate.read(STORED)


@pytest.mark.parametrize("other", ELSEWHERE, ids=lambda other: other.name)
def test_no_method_is_worse_than_elsewhere(stored: Certificate, other: Elsewhere) -> None:
    for problem, theirs in zip(PROBLEMS, other.left, strict=True):
        ours = left(stored, other.ours, problem, MAIN_BUDGET)
        assert ours is not None and ours <= theirs, problem


def test_the_page_has_the_table(stored: Certificate) -> None:
    table = elsewhere(stored, MAIN_BUDGET)
    assert len(table.rows) == len(ELSEWHERE)
    assert "| azula TDS, 1024 particles | smc | 0.17 |" in markdown(stored)


def test_what_is_not_certified_is_not_compared(stored: Certificate) -> None:
    cells = tuple(cell for cell in stored.cells if cell.method != "smc")
    rows = elsewhere(replace(stored, cells=cells), MAIN_BUDGET).rows
    assert len(rows) == len(ELSEWHERE) - 1
    assert left(replace(stored, cells=()), "smc", "M16", 200) is None
