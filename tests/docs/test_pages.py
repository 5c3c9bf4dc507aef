"""What holds for every page: lines that fit, links that lead somewhere, tables of settings as the solvers have them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from priorpaint.solvers import SOLVERS, explain
from tools.settings_tables import METHODS, TABLE, renewed, shown

ROOT = Path(__file__).parents[2]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    ROOT / "examples/README.md",
    *sorted(page for folder in ("docs", "src") for page in (ROOT / folder).rglob("*.md")),
]
WRITTEN = [page for page in PAGES if page.parent.name != "results"]  # those are made by programs
NAMES = [str(page.relative_to(ROOT)) for page in WRITTEN]


@pytest.mark.parametrize("page", WRITTEN, ids=NAMES)
def test_lines_are_shorter_than_200_characters(page: Path) -> None:
    """But for the tables of settings, whose rows are the solvers' own words."""
    text = TABLE.sub(lambda match: "\n" * match[0].count("\n"), page.read_text(encoding="utf-8"))
    assert not [(i, line) for i, line in enumerate(text.split("\n"), 1) if len(line) >= 200]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_that_are_there(page: Path) -> None:
    text = re.sub(r"^```.*?^```$|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    targets = [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"https?:|mailto:|#", target)]
    assert not [target for target in targets if not (page.parent / target.split("#")[0]).exists()]


@pytest.mark.parametrize("name", sorted(SOLVERS))
def test_the_page_of_a_method_begins_with_ten_lines_for_everyone(name: str) -> None:
    """A title; what it is; when to take it; the three settings that matter, with the defaults that the solver has."""
    title, opening = _opening((METHODS / f"{name}.md").read_text(encoding="utf-8"))
    assert re.fullmatch(r"# \w.*", title)
    assert 8 <= len([line for line in opening.split("\n") if line]) <= 14
    what, when, _, settings = opening.strip().split("\n\n")
    assert not what.startswith(("*", "-", "#")) and when.startswith("**Take it when** ")
    named = re.findall(r"^- `(\w+)` \(default `?([\w.]+)`?\): \S", settings, re.MULTILINE)
    known = explain(SOLVERS[name])
    assert len(dict(named)) == len(named) == 3
    assert dict(named) == {setting: shown(known[setting][1]).strip("`") for setting, _ in named}


def _opening(text: str) -> tuple[str, str]:
    """The title of a page, and what stands between it and the first heading."""
    title, _, rest = text.partition("\n")
    return title, rest.partition("\n## ")[0]


@pytest.mark.parametrize("name", sorted(SOLVERS))
def test_the_page_of_a_method_has_its_settings(name: str) -> None:
    text = (METHODS / f"{name}.md").read_text(encoding="utf-8")
    assert name in TABLE.findall(text)
    assert renewed(text) == text, "run `python -m tools.settings_tables`"


def test_a_table_that_drifted_is_seen() -> None:
    text = (METHODS / "dps.md").read_text(encoding="utf-8")
    assert renewed(text.replace("| `steps` | 250 |", "| `steps` | 251 |")) == text
    assert "| `steps` | 250 |" in text


def test_citation_and_changelog_have_the_version_of_the_package() -> None:
    import priorpaint

    version = priorpaint.__version__
    assert f"version: {version}" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
