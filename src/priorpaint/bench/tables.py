"""The tables of a report as text, for Markdown and HTML alike; ``**`` around a text is bold.

Names and errors in it may come from strangers' files: each line is one that a terminal can show (`printable`).
"""

from __future__ import annotations

from ..errors import printable
from .metrics import Column
from .results import Case, Results
from .summary import COLUMNS, Estimate, case_of

_NONE = "–"


def introduction(results: Results) -> list[str]:
    """What was run, a paragraph each."""
    plan = results.plan
    counts = f"{len(plan.pictures)} pictures, {len(plan.seeds)} seed{'s' * (len(plan.seeds) > 1)}, "
    counts += f"{plan.samples} samples each; prior {plan.prior.spec}, settings {plan.settings}"
    lines = [plan.title] if plan.title else []
    versions = ", ".join(f"{name} {version}" for name, version in plan.versions.items())
    lines.append(f"{counts}; {versions}.")
    if tools := sorted({tool for several in results.made_with.values() for tool in several}):
        lines.append(f"Measured with {', '.join(tools)}.")
    if mixed := [name for name, several in results.made_with.items() if len(several) > 1]:
        lines.append(f"Not all cells have {', '.join(mixed)} of the same weights; measure them again with one file.")
    if plan.paper is not None:
        lines.append(f"Paper: {plan.paper.source}. {plan.paper.setting}".strip())
    lines.append("± is the standard error over pictures; differences are on the same pictures.")
    return list(map(printable, lines))


def tables(case: Case) -> list[tuple[str, list[list[str]]]]:
    """Titles, and rows of text whose first is the header."""
    found = [("Mean over pictures; the best in bold.", _measures(case)), ("What it took.", _costs(case))]
    if any(entry.differences for entry in case.entries):
        found.append(("Difference from the best method.", _differences(case)))
    return [(title, [list(map(printable, row)) for row in rows]) for title, rows in found]


def _measures(case: Case) -> list[list[str]]:
    header = ["method"]
    for column in case.columns:
        header += [column.title, *[f"{column.title} (paper)"] * _in_paper(case, column)]
    rows = [header]
    for entry in case.entries:
        row = [entry.method]
        for column in case.columns:
            text = _estimate(entry.estimates.get(column.key), column)
            row.append(f"**{text}**" if case.best.get(column.key) == entry.method else text)
            if _in_paper(case, column):
                value = entry.paper.get(column.key)
                row.append(_NONE if value is None else column.text(value))
        rows.append(row)
    return rows


def _in_paper(case: Case, column: Column) -> bool:
    return any(column.key in entry.paper for entry in case.entries)


def _differences(case: Case) -> list[list[str]]:
    columns = [column for column in case.columns if any(column.key in entry.differences for entry in case.entries)]
    rows = [["method", *(column.title for column in columns)]]
    for entry in case.entries:
        row = [entry.method]
        for column in columns:
            is_best = case.best[column.key] == entry.method
            row.append("**best**" if is_best else _estimate(entry.differences.get(column.key), column, sign="+"))
        rows.append(row)
    return rows


def _costs(case: Case) -> list[list[str]]:
    header = ["method", "cells", "fit, s", "NFE of a fit", "sample, s", "NFE of a sample", "peak memory, MB"]
    rows = [header]
    for entry in case.entries:
        row = [entry.method, str(entry.cells)]
        for part in ("fit", "sample"):
            seconds, *calls = (entry.cost[f"{part}_{name}"] for name in ("seconds", "nfe_forward", "nfe_backward"))
            row += [f"{seconds:.2f}", f"{calls[0]:.0f} + {calls[1]:.0f}"] if any(calls) else [_NONE, _NONE]
        rows.append([*row, f"{entry.cost['peak_bytes'] / 1e6:.0f}"])
    return rows


def _estimate(estimate: Estimate | None, column: Column, sign: str = "") -> str:
    if estimate is None:
        return _NONE
    text = column.text(estimate.mean, sign)
    return text if estimate.error is None else f"{text} ± {column.text(estimate.error)}"


def legend_of(results: Results) -> list[tuple[str, str]]:
    """Title and meaning of every column that is shown."""
    shown = {column.key: column for case in results.cases for column in case.columns}
    lines = []
    for column in (column for key, column in COLUMNS.items() if key in shown):
        right = {"low": "; lower is better", "high": "; higher is better", None: ""}
        ending = right[column.best] if column.best in ("low", "high", None) else f"; {column.best:g} is right"
        lines.append((column.title, f"{column.about}{ending}."))
    lines.append(("NFE", "network evaluations, without + with a gradient."))
    return lines if shown else []


def troubles(results: Results) -> list[tuple[str, list[str]]]:
    """What did not run, and why, under a title each."""
    plan = results.plan
    failed = [
        f"{one['method']}, {case_of(one)}, {one['picture']}, seed {one['seed']}: {one['error']}"
        for one in results.failed
    ]
    skipped = [f"{', '.join(filter(None, (one.name, one.operator)))}: {one.error}" for one in plan.skipped]
    unread = [one.error for one in (*plan.left_out, *plan.repeated)]
    cells = f"{results.missing} cell{'s' * (results.missing > 1)}"
    missing = [f"{cells} of the plan; run the benchmark on with --resume."] if results.missing else []
    found = {"Failed": failed, "Not finished": missing, "Methods left out": skipped, "Pictures left out": unread}
    return [(title, list(map(printable, lines))) for title, lines in found.items() if lines]
