"""The settings of the papers: each method has an entry, it is valid, and what the caller gives wins."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from priorpaint import SOLVERS, UsageError, solver
from priorpaint.inpainting.method import choose_solver
from priorpaint.solvers.reference import PAPER


def settings(name: str, **params: Any) -> dict[str, Any]:
    made: Any = solver(name, **params)
    return asdict(made)


def test_every_method_and_nothing_else_has_an_entry() -> None:
    assert set(PAPER) == set(SOLVERS)


@pytest.mark.parametrize("name", sorted(SOLVERS))
def test_the_paper_preset_is_the_default_with_the_entry(name: str) -> None:
    default, paper = settings(name), settings(name, preset="paper")
    assert paper == default | dict(PAPER[name])
    assert {key for key in default if default[key] != paper[key]} == set(PAPER[name])


def test_given_settings_win() -> None:
    assert settings("ddrm", preset="paper", steps=7)["steps"] == 7
    assert settings("dps", preset="paper", steps="10")["scale"] == 0.5


def test_other_presets_stay_the_methods_own() -> None:
    assert settings("vipaint", preset="exact") == settings("vipaint")
    with pytest.raises(UsageError, match="no setting 'preset'"):
        solver("ddnm", preset="exact")


def test_the_default_method_with_the_paper_preset_is_not_tuned() -> None:
    assert choose_solver(None, {"preset": "paper"}) == solver("ddnm", preset="paper")
    assert choose_solver(None, {}) != solver("ddnm")
