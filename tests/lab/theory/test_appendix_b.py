"""The experiment of Appendix B: the table's numbers under one natural setting, and theory beside each of them."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch

from priorpaint import MissingExtra, UsageError
from priorpaint.lab.theory import appendix_b, figure
from priorpaint.lab.theory.appendix_b import CG, CHEBYSHEV, LEAST_SQUARES, METHODS, REPAINT, REPAINT_PLUS, REVERSE_SDE
from tests.lab.theory.problems import diagonal, named


def test_table_of_the_paper() -> None:
    """Acceptance 3: published 22.97 / 27.61 / negligible; theory 22.22 / 26.40 for 1000 images and beta = .9."""
    outcome = appendix_b.run(diagonal(), beta=0.9, samples=1000, rounds=20, seeds=50)
    table = {row.method: row for row in outcome.rows}
    assert tuple(table) == METHODS
    assert 21.9 < table[REPAINT].norm < 22.5 and 0.3 < table[REPAINT].std < 0.7
    assert 26.0 < table[REVERSE_SDE].norm < 26.7 and 0.35 < table[REVERSE_SDE].std < 0.85
    assert table[REPAINT_PLUS].norm == pytest.approx(4.3e-5, rel=0.05)
    expected = appendix_b.expectations(diagonal(), 0.9, 20)
    assert expected[REPAINT] * math.sqrt(1000) == pytest.approx(22.22, abs=0.01)
    assert expected[REVERSE_SDE] * math.sqrt(1000) == pytest.approx(26.40, abs=0.01)
    assert expected[LEAST_SQUARES] * math.sqrt(1000) == pytest.approx(15.7, abs=0.02)
    assert all(row.check.holds and row.check.theory == expected[row.method] for row in outcome.rows)


def test_theory_and_experiment_agree_on_another_problem() -> None:
    model = named(32, 8, 16, 3)
    outcome = appendix_b.run(model, beta=0.5, samples=1000, rounds=60, seeds=3)
    assert all(row.check.holds and row.check.error < 0.02 * row.check.measured for row in outcome.rows)
    for measured, expected in zip(outcome.curves[REPAINT_PLUS], outcome.predicted, strict=True):
        assert measured == pytest.approx(expected, rel=0.1)
    assert outcome.curves[CG][model.k + 1] < 1e-10 < outcome.curves[CHEBYSHEV][model.k + 1]
    assert outcome.curves[CHEBYSHEV][60] < 1e-3 * outcome.curves[REPAINT_PLUS][60]
    assert outcome.images[REPAINT].shape == (1000, 32)


def test_an_invisible_direction_is_not_recovered() -> None:
    model = named(8, 4, 3, 3)
    outcome = appendix_b.run(model, beta=0.9, samples=2000, rounds=200, seeds=1)
    plus = outcome.rows[-1].check
    assert plus.holds and plus.theory == pytest.approx(math.sqrt(2), 1e-3)
    assert CG not in outcome.curves


def test_one_seed_gives_one_table() -> None:
    first, again, other = (
        appendix_b.run(diagonal(), beta=0.9, samples=10, rounds=3, seeds=2, seed=seed) for seed in (0, 0, 1)
    )
    assert first.rows == again.rows != other.rows
    assert torch.equal(first.images[REPAINT], again.images[REPAINT])


def test_rounds_for_a_tolerance() -> None:
    assert appendix_b.enough_rounds(diagonal(), 1e-10) == 34
    assert appendix_b.enough_rounds(diagonal(), 100.0) == 1
    assert appendix_b.enough_rounds(named(64, 16, 17, 6), 1e-10) == 1000
    assert appendix_b.enough_rounds(named(8, 4, 3, 3), 1e-10) == 100


@pytest.mark.parametrize("change", [{"beta": 0.0}, {"beta": 1.0}, {"samples": 0}, {"rounds": 0}, {"seeds": 0}])
def test_wrong_numbers(change: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="|".join(change)):
        appendix_b.run(diagonal(), **{"beta": 0.9, "samples": 3, "rounds": 2, "seeds": 1, **change})  # type: ignore[arg-type]


def test_nothing_hidden() -> None:
    with pytest.raises(UsageError, match="hide at least one"):
        appendix_b.run(named(4, 2, 4, 0), beta=0.9, samples=3, rounds=2, seeds=1)


@pytest.mark.parametrize("problem", [(2, 1, 1, 0), (12, 3, 8, 1), (8, 4, 3, 3)])
def test_the_plane_of_the_figure_holds_the_manifold_of_the_slowest_mode(problem: tuple[int, int, int, int]) -> None:
    model = named(*problem)
    basis, line = model.plane()
    known, hidden = basis
    assert (known[~model.known] == 0).all() and (hidden[model.known] == 0).all()
    expected = torch.tensor([math.sqrt(1 - model.rho), math.sqrt(model.rho)], dtype=torch.float64)
    torch.testing.assert_close(line.abs(), expected, rtol=0, atol=1e-7)
    torch.testing.assert_close(model.project((line @ basis)[None])[0], line @ basis, rtol=0, atol=1e-7)


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    outcome = appendix_b.run(diagonal(), beta=0.9, samples=3, rounds=2, seeds=1)
    with pytest.raises(MissingExtra, match=r"pip install 'priorpaint\[plot\]'"):
        figure.draw(diagonal(), outcome, tmp_path / "figure.png")
