"""What a benchmark found, as data: from the files of its folder to means, differences and distances between sets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..batch.store import Record, Store
from .features import SetDistances, feature_file, set_distances
from .measure import finished, measured
from .metrics import Column
from .plan import Plan
from .sheets import write_sheets
from .summary import COLUMNS, Estimate, Line, Summary, case_of

_OF_SETS = ("frechet", "kid")


@dataclass(frozen=True)
class Entry:
    """A method under one mask or operator.

    Attributes:
        method: its label.
        cells: how many are finished.
        estimates: by column.
        differences: by column, the mean difference from the column's best method on the same pictures.
        paper: by column, what a paper printed.
        ranks: the rank histogram, a share each; None where it was not measured.
        cost: seconds and network evaluations of a fit and of a sample, and the peak of memory in bytes.
    """

    method: str
    cells: int
    estimates: dict[str, Estimate]
    differences: dict[str, Estimate]
    paper: dict[str, float]
    ranks: list[float] | None
    cost: dict[str, float]


@dataclass(frozen=True)
class Case:
    """A mask or an operator: its methods in the order of the plan, the best of each column, and its sheets."""

    name: str
    entries: list[Entry]
    columns: list[Column]
    best: dict[str, str]
    sheets: list[str]


@dataclass(frozen=True)
class Results:
    """All that a report says.

    Attributes:
        plan: of the benchmark.
        cases: masks first, then operators.
        failed: lines of failed.jsonl of cells that did not succeed since.
        missing: cells of the plan that are neither finished nor failed.
        made_with: weights or feature network of the metrics that have them, by metric; several where cells differ.
    """

    plan: Plan
    cases: list[Case]
    failed: list[Record]
    missing: int
    made_with: dict[str, list[str]]


def read_results(folder: Path) -> Results:
    """Everything from the files of a benchmark; draws the sheets.

    Raises:
        UsageError: there is no benchmark in the folder, or the sheets cannot be written.
    """
    plan = Plan.read(folder)
    cells, known = finished(folder, plan), measured(folder)
    summary = Summary((picture.name for picture in plan.pictures), cells, known)
    methods = [method.label for method in plan.methods]
    sheets = write_sheets(folder, cells, methods)
    order = [name for name in map(str, (*plan.masks, *(one.label for one in plan.operators))) if name in summary.cases]
    made_with = _tools(cells, known)
    sets = _sets(folder, cells, made_with)
    cases = [_case(plan, summary, name, methods, sheets.get(name, []), sets) for name in order]
    keys = {case.key for case in plan.cells()}
    failed = [record for key, record in Store(folder).failed().items() if key in keys]
    return Results(plan, cases, failed, len(keys) - len(cells) - len(failed), made_with)


def _case(
    plan: Plan, summary: Summary, name: str, methods: list[str], sheets: list[str],
    sets: dict[tuple[str, str], dict[str, Estimate]],
) -> Case:  # fmt: skip
    lines = {method: summary.cases[name][method] for method in methods if method in summary.cases[name]}
    found = {method: _estimates(line) | sets.get((name, method), {}) for method, line in lines.items()}
    best = {key: winner for key, column in COLUMNS.items() if (winner := _best(column, found)) is not None}
    entries = [
        Entry(
            method,
            line.cells,
            found[method],
            _differences(summary, name, method, best),
            _paper(plan, name, method),
            line.ranks,
            line.cost | {"peak_bytes": line.peak_bytes},
        )
        for method, line in lines.items()
    ]
    shown = [column for key, column in COLUMNS.items() if any(key in e.estimates or key in e.paper for e in entries)]
    return Case(name, entries, shown, best, sheets)


def _best(column: Column, found: dict[str, dict[str, Estimate]]) -> str | None:
    """The method with the best mean; None where no value is better than another, or only one right."""
    there = {method: estimates[column.key].mean for method, estimates in found.items() if column.key in estimates}
    if not there or column.best not in ("low", "high"):
        return None
    sign = 1 if column.best == "low" else -1
    return min(there, key=lambda method: sign * there[method])


def _differences(summary: Summary, case: str, method: str, best: dict[str, str]) -> dict[str, Estimate]:
    pairs = {key: summary.difference(case, key, method, other) for key, other in best.items() if other != method}
    return {key: found for key, found in pairs.items() if found is not None}


def _estimates(line: Line) -> dict[str, Estimate]:
    return {key: found for key in COLUMNS if (found := line.estimate(key)) is not None}


def _tools(cells: list[Record], known: dict[str, Record]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for cell in cells:
        for name, tool in known.get(cell["key"], {"made_with": {}})["made_with"].items():
            if tool and tool not in found.setdefault(name, []):
                found[name].append(tool)
    return {name: tools for name, tools in found.items() if tools}


def _sets(
    folder: Path, cells: list[Record], made_with: dict[str, list[str]]
) -> dict[tuple[str, str], dict[str, Estimate]]:
    """Distances between sets, by mask or operator and method, in the features of one network."""
    asked = [name for name in _OF_SETS if name in made_with]
    if not asked:
        return {}
    digest = made_with[asked[-1]][-1].rpartition(" ")[2]
    pictures: dict[tuple[str, str], dict[str, list[tuple[Path, Path]]]] = {}
    for cell in cells:
        files = (feature_file(folder, digest, cell["key"]), feature_file(folder, digest, cell["problem"]))
        if all(file.is_file() for file in files):
            where = pictures.setdefault((case_of(cell), cell["method"]), {})
            where.setdefault(cell["picture"], []).append(files)
    found = {where: set_distances(list(of.values())) for where, of in pictures.items()}
    return {where: _estimates_of(one, asked) for where, one in found.items() if one is not None}


def _estimates_of(found: SetDistances, asked: list[str]) -> dict[str, Estimate]:
    frechet, kid = Estimate(found.frechet, None, found.pictures), Estimate(found.kid, found.kid_error, found.pictures)
    return {name: estimate for name, estimate in (("frechet", frechet), ("kid", kid)) if name in asked}


def _paper(plan: Plan, case: str, method: str) -> dict[str, float]:
    if plan.paper is None:
        return {}
    return {
        value.metric: value.value
        for value in plan.paper.values
        if value.method == method and case in (value.mask, value.operator)
    }
