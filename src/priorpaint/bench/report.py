"""The report of a benchmark: report.md, report.json and report.html, with sheets of pictures beside them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path

from ..errors import printable
from ..imaging import write_text_atomic
from .results import Results, read_results
from .tables import introduction, legend_of, tables, troubles

_STYLE = """
body { font: 14px/1.5 system-ui, sans-serif; color: #222; margin: 2rem; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #ddd; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: .3rem 0 1.2rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: #666; }
th, td { padding: .2rem .5rem; text-align: right; white-space: nowrap; border-bottom: 1px solid #eee; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: white; }
figure { display: inline-block; margin: 0 1rem .5rem 0; }
figcaption { color: #666; }
"""
_BARS = (120, 40)  # pixels of a rank histogram; a uniform one is half as high


def write_report(folder: str | Path) -> list[Path]:
    """Write the report of what is finished and measured in a benchmark's folder, however much that is.

    Returns:
        report.md, report.json and report.html; sheets lie in ``sheets/``.

    Raises:
        UsageError: there is no benchmark in the folder, or it cannot be written to.
    """
    folder = Path(folder)
    results = read_results(folder)
    texts = {"report.md": markdown(results), "report.json": to_json(results), "report.html": html(results)}
    for name, text in texts.items():
        write_text_atomic(folder / name, text)
    return [folder / name for name in texts]


def to_json(results: Results) -> str:
    """report.json: the plan and every number."""
    cases = [
        {"name": case.name, "best": case.best, "sheets": case.sheets, "methods": [asdict(one) for one in case.entries]}
        for case in results.cases
    ]
    about = {"plan": results.plan.model_dump(mode="json"), "made_with": results.made_with, "missing": results.missing}
    return json.dumps({**about, "cases": cases, "failed": results.failed}, indent=1) + "\n"


def markdown(results: Results) -> str:
    """report.md."""
    parts = [f"# {printable(results.plan.name)}\n", *(f"{line}\n" for line in introduction(results))]
    for case in results.cases:
        name = printable(case.name)
        parts.append(f"## {name}\n")
        parts += [f"![Truth, {name}, and samples of each method]({sheet})\n" for sheet in case.sheets[:1]]
        for title, rows in tables(case):
            parts.append(f"{title}\n\n{_table(rows)}")
    if legend := legend_of(results):
        parts.append("## Columns\n\n" + "\n".join(f"- **{title}**: {about}" for title, about in legend) + "\n")
    for title, lines in troubles(results):
        parts.append(f"## {title}\n\n" + "\n".join(f"- {line}" for line in lines) + "\n")
    return "\n".join(parts)


def _table(rows: list[list[str]]) -> str:
    lines = [rows[0], ["---", *["--:"] * (len(rows[0]) - 1)], *rows[1:]]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def html(results: Results) -> str:
    """report.html: one file with relative links to the sheets, which asks for nothing from outside."""
    name = escape(printable(results.plan.name))
    parts = [f"<h1>{name}</h1>", *(f"<p>{escape(line)}</p>" for line in introduction(results))]
    for case in results.cases:
        title = escape(printable(case.name))
        parts.append(f"<h2>{title}</h2>")
        parts += [_html_table(title, rows) for title, rows in tables(case)]
        if any(entry.ranks for entry in case.entries):
            parts.append("<p>How many samples of a hidden value are below the truth; level is right, a U too sure.</p>")
            parts += [_histogram(entry.method, entry.ranks) for entry in case.entries if entry.ranks]
        alt = f"Truth, {title}, and samples of each method"
        parts += [f'<div class="wide"><img src="{sheet}" alt="{alt}" loading="lazy"></div>' for sheet in case.sheets]
    if legend := legend_of(results):
        parts.append("<h2>Columns</h2>" + _html_list([f"**{title}**: {about}" for title, about in legend]))
    parts += [f"<h2>{escape(title)}</h2>{_html_list(lines)}" for title, lines in troubles(results)]
    head = f'<meta charset="utf-8"><title>{name}</title><style>{_STYLE}</style>'
    return (
        f'<!doctype html>\n<html lang="en">\n<head>{head}</head>\n<body>\n' + "\n".join(parts) + "\n</body>\n</html>\n"
    )


def _histogram(method: str, shares: Sequence[float]) -> str:
    wide, high = _BARS
    step = wide / len(shares)
    heights = [min(1.0, share * len(shares) / 2) * high for share in shares]
    bars = "".join(
        f'<rect x="{i * step:.1f}" y="{high - h:.1f}" width="{step - 1:.1f}" height="{h:.1f}" fill="#58c"/>'
        for i, h in enumerate(heights)
    )
    level = f'<line x1="0" x2="{wide}" y1="{high / 2}" y2="{high / 2}" stroke="#888" stroke-dasharray="3"/>'
    picture = f'<svg width="{wide}" height="{high}" role="img">{bars}{level}</svg>'
    return f"<figure>{picture}<figcaption>{escape(printable(method))}</figcaption></figure>"


def _html_table(title: str, rows: Sequence[Sequence[str]]) -> str:
    cells = ["".join(f"<th>{_html_text(cell)}</th>" for cell in rows[0])]
    cells += ["".join(f"<td>{_html_text(cell)}</td>" for cell in row) for row in rows[1:]]
    body = "\n".join(f"<tr>{row}</tr>" for row in cells)
    return f'<div class="wide"><table><caption>{escape(title)}</caption>\n{body}\n</table></div>'


def _html_list(lines: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{_html_text(line)}</li>" for line in lines) + "</ul>"


def _html_text(text: str) -> str:
    return re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", escape(text))
