"""The tables of settings in docs/methods, made from the solvers: ``python -m tools.settings_tables`` writes them."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

from priorpaint.solvers import SOLVERS, explain
from priorpaint.solvers.reference import REFERENCE, REMAINS

METHODS = Path(__file__).parents[1] / "docs" / "methods"
TABLE = re.compile(r"<!-- settings: (\w+) -->\n.*?<!-- end of settings -->", re.DOTALL)


def table(name: str) -> str:
    """The table of a method, with the values of ``preset="reference"`` if there are any, and how that run differs."""
    paper = REFERENCE.get(name, {})
    head = ["setting", "default", "reference", "meaning"] if paper else ["setting", "default", "meaning"]
    rows = [head, ["---"] * len(head)]
    for setting, (_, default, meaning) in explain(SOLVERS[name]).items():
        reference = [shown(paper[setting]) if setting in paper else ""] if paper else []
        rows.append([f"`{setting}`", shown(default), *reference, meaning.replace("|", r"\|")])
    lines = [f"| {' | '.join(row)} |" for row in rows]
    if name in REMAINS:
        said = f"What the published run does otherwise than `preset=reference`: {REMAINS[name]}"
        lines += ["", textwrap.fill(said, 130, break_long_words=False)]
    return "\n".join(lines)


def renewed(text: str) -> str:
    """A page with its tables as they should be."""
    return TABLE.sub(lambda m: f"<!-- settings: {m[1]} -->\n{table(m[1])}\n<!-- end of settings -->", text)


def shown(value: object) -> str:
    """A setting's value as the tables write it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value is None else f"`{value}`" if isinstance(value, str) else str(value)


def main() -> None:
    for page in sorted(METHODS.glob("*.md")):
        page.write_text(renewed(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
