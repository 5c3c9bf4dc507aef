"""docs/papers.md: everything that it names exists, and nothing of the three documents is left out."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

import priorpaint
from tests.docs.test_blocks import resolve

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/papers.md").read_text(encoding="utf-8")
CODES = sorted(set(re.findall(r"`([^`]+)`", TEXT)))
SECTIONS = {part.partition("\n")[0]: part for part in re.split(r"^## ", TEXT, flags=re.MULTILINE)[1:]}
ROWS = re.findall(r"^\|(.*)\|$", TEXT, re.MULTILINE)


@pytest.mark.parametrize("code", CODES)
def test_what_the_page_names_exists(code: str) -> None:
    """A command with its options and the names that it is given, a file, a method with settings, or a dotted name."""
    if code.startswith("priorpaint "):
        resolve(code)
        check_names(code.split()[1:])
    elif "/" in code:
        assert (ROOT / code).exists()
    elif re.fullmatch(r"\w+( \w+=[\w.-]+)*", code):
        name, *settings = code.split()
        priorpaint.solver(name, **dict(setting.split("=") for setting in settings))
    else:
        find(code)


def check_names(words: list[str]) -> None:
    """What a command only looks up when it runs."""
    from priorpaint.cli.theory import OPTIONS

    if words[0] == "theory" and "--experiment" in words:
        assert words[words.index("--experiment") + 1] in OPTIONS
    if words[0] == "bench" and len(words) > 1:
        assert (ROOT / f"src/priorpaint/bench/suites/{words[1]}.toml").exists()
    if words[0] == "figure":
        assert words[1] in find("lab.figures.FIGURES")
    if "--sampler" in words:
        assert words[words.index("--sampler") + 1] in find("diffusion.samplers.SAMPLERS")
    if "--loss" in words:
        find("training.config.TrainConfig")(data=["x"], out="y", crops=1, loss=words[words.index("--loss") + 1])


def find(name: str) -> Any:
    """What has this dotted name in the package."""
    parts = name.removeprefix("priorpaint.").split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(["priorpaint", *parts[:length]]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            found = getattr(found, part)
        return found
    raise AssertionError(f"nothing in the package is called {name}")


def test_no_cell_is_empty() -> None:
    assert len(ROWS) > 100
    for row in ROWS:
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", row)]
        assert len(cells) == 3 and all(cells), row


EQUATIONS = {"VIPaint": 14, "RePaint+": 11}
REST = {
    "VIPaint": ["Table 1", "Table 4", *(f"Fig. {i}:" for i in (1, 2, 3, 4, 9, 10, 11, 24)), "Figs. 5, 6, 12-15",
                "Figs. 7, 18, 22", *(f"App. {letter}" for letter in ("B.1, C:", "E.1", "E.2, H", "F"))],
    "RePaint+": [*(f"Theorem {i}" for i in (3, 4, 6, 8, 11, 12)), "Corollary 7", "Corollary 10", "Table 1",
                 *(f"Assumption {i}" for i in (1, 2, 5, 9)), *(f"Algorithm {i}" for i in (1, 2, 3)),
                 *(f"Fig. {i}" for i in (1, "3a", "4a", 5)), "App. A.1-A.8"],
    "The lecture": ["Algorithm 1", "Algorithm 2", *(f"{i}:" for i in ("2.1", "2.2", "2.3", "2.4", "3.1", "3.2"))],
}  # fmt: skip


@pytest.mark.parametrize("section", REST)
def test_nothing_is_left_out(section: str) -> None:
    """Of the first column: all equations that are numbered, and what else has a number."""
    column = [row.split("|")[0] for row in re.findall(r"^\|(.*)\|$", SECTIONS[section], re.MULTILINE)]
    numbers = {
        int(number)
        for cell in column
        for run in re.findall(r"Eq\. ([\d, ]+)", cell)
        for number in re.findall(r"\d+", run)
    }
    assert numbers == set(range(1, EQUATIONS.get(section, 0) + 1))
    assert [name for name in REST[section] if not any(name in cell for cell in column)] == []
