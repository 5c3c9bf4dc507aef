"""The settings of the papers: each method has an entry, it is valid, and what the caller gives wins."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from priorpaint import SOLVERS, UsageError, solver
from priorpaint.inpainting.method import choose_solver
from priorpaint.solvers.reference import REFERENCE


def settings(name: str, **params: Any) -> dict[str, Any]:
    made: Any = solver(name, **params)
    return asdict(made)


def test_every_method_and_nothing_else_has_an_entry() -> None:
    assert set(REFERENCE) == set(SOLVERS)


@pytest.mark.parametrize("name", sorted(SOLVERS))
def test_the_paper_preset_is_the_default_with_the_entry(name: str) -> None:
    default, paper = settings(name), settings(name, preset="reference")
    assert paper == default | dict(REFERENCE[name])
    assert {key for key in default if default[key] != paper[key]} == set(REFERENCE[name])


def test_paper_is_another_word_for_it() -> None:
    assert all(settings(name, preset="paper") == settings(name, preset="reference") for name in SOLVERS)


def test_given_settings_win() -> None:
    assert settings("ddrm", preset="reference", steps=7)["steps"] == 7
    assert settings("dps", preset="reference", steps="10")["scale"] == 0.5


def test_other_presets_stay_the_methods_own() -> None:
    assert settings("vipaint", preset="exact") == settings("vipaint")
    with pytest.raises(UsageError, match="no setting 'preset'"):
        solver("ddnm", preset="exact")


def test_the_default_method_with_the_paper_preset_is_not_tuned() -> None:
    assert choose_solver(None, {"preset": "reference"}) == solver("ddnm", preset="reference")
    assert choose_solver(None, {}) != solver("ddnm")
