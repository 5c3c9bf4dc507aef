"""A certificate as tables: on a terminal and as the page docs/results/certification.md."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from rich.console import Console
from rich.table import Table
from rich.text import Text

from priorpaint.errors import printable

from .calibration import FUNCTIONS, SAMPLES, TRUTHS
from .measures import REPLICATES
from .results import DONE, FAILED, Cell, Certificate

MAIN_BUDGET = 200
MANY_DRAWS = 5  # from so many draws on, tables show the median and the worst of them
JSON_FILE, PAGE_FILE = "certification.json", "certification.md"
EXACT, PRIOR = "exact samples", "prior, ignoring y"
_NONE = "–"

_INTRO = f"""# Certification

Every method against posteriors that are known exactly. The problems are small mixtures of Gaussians whose denoiser is
exact too, so what is measured is the error of the method alone: no network stands between it and the truth.

**The number in the tables** is the sliced Wasserstein-2 distance between the method's samples and the exact posterior,
divided by the same distance of as many exact samples (the *floor*, a mean over {REPLICATES} sets of them): 1 is
perfect, and what ignores y altogether stands below the methods. One set of exact samples scores 1, give or take the
spread that is shown where it was measured. A method gets a budget of network evaluations a sample; one with a gradient
counts once (it takes two to three times as long), and so does every further product with the network's Jacobian that a
solver reports.

{{command}}
"""

_COLUMNS = f"""The other columns, all at the budget of the heading, averaged over the draws of the problem:

| column | meaning | exact samples |
|---|---|---|
| SW | sliced Wasserstein-2 distance, 256 directions, in image values | the floor |
| modes | total variation between the weights of the components among the samples and in the posterior | noise only |
| mean | distance of the means over the posterior's standard deviation (root of the traces) | noise only |
| std | ratio of the standard deviations (root of the traces); below 1 is over-confident | 1 |
| residual | root mean square of y - A x over what was measured | as in the row "{EXACT}" |
| 50 %, 90 % | share of samples in the smallest region that holds 50 % (90 %) of the posterior (blurred by 1 % of its \
width where it fills only a subspace) | .50, .90 |
| p | rank test over {TRUTHS} truths drawn from the prior, {SAMPLES} samples each, {FUNCTIONS} projections; a small \
p says that the method is not calibrated | uniform on 0 to 1 |
| NFE | network evaluations a sample, without + with a gradient, as counted | |
| CPU s | seconds for all samples of one draw | |
"""


def methods_by_error(certificate: Certificate, budget: int | None) -> list[str]:
    """Methods from the smallest to the largest median of log ratios over the problems that they can do."""

    def error(method: str) -> float:
        cells = (certificate.cell(method, problem, budget) for problem in certificate.problems)
        ratios = [math.log(cell.ratio) for cell in cells if cell is not None and cell.status == DONE]
        return statistics.median(ratios) if ratios else math.inf

    return sorted(certificate.methods, key=error)


def main_budget(certificate: Certificate) -> int | None:
    """The budget that single tables and figures show: 200 if it was run, else the largest."""
    budgets = certificate.budgets
    return MAIN_BUDGET if MAIN_BUDGET in budgets else budgets[-1]


def asked_at(certificate: Certificate, budget: int | None) -> Certificate:
    """The methods and problems that were asked for at this budget."""
    asked = [cell for cell in certificate.cells if cell.budget == budget]
    methods, problems = {cell.method for cell in asked}, {cell.problem for cell in asked}
    cells = (cell for cell in certificate.cells if cell.method in methods and cell.problem in problems)
    return replace(certificate, cells=tuple(cells))


@dataclass(frozen=True)
class Grid:
    """A table: title, header and rows of text."""

    title: str
    header: list[str]
    rows: list[list[str]]


def overview(certificate: Certificate, budget: int | None) -> Grid:
    """Methods x problems: the ratio to the floor; without those not asked for at this budget."""
    certificate, rows = asked_at(certificate, budget), []
    for method in methods_by_error(certificate, budget):
        cells = [certificate.cell(method, problem, budget) for problem in certificate.problems]
        rows.append([method, *(_ratio(cell) for cell in cells)])
    rows.append([PRIOR, *(_prior_ratio(certificate, problem) for problem in certificate.problems)])
    if any(cell.floor_spread for cell in certificate.cells):
        rows.append([EXACT, *(_floor_spread(certificate, problem) for problem in certificate.problems)])
    many = max((len(cell.measures) for cell in certificate.cells if cell.budget == budget), default=0)
    worst = f", median (worst) of {many} draws" if many >= MANY_DRAWS else ""
    return Grid(f"error over the floor, {_budget(budget)}{worst}", ["method", *certificate.problems], rows)


def details(certificate: Certificate, problem: str, budget: int | None) -> Grid:
    """Everything about one problem: the ratio at each budget, the other measures at one."""
    budgets = certificate.budgets
    order = methods_by_error(certificate, budget)
    cells = {method: certificate.cell(method, problem, budget) for method in order}
    done = sorted((cell for cell in cells.values() if cell and cell.status == DONE), key=lambda cell: cell.ratio)
    rows = [
        [cell.method, *(_ratio(certificate.cell(cell.method, problem, other)) for other in budgets), *_measures(cell)]
        for cell in done
    ]
    if done:
        rows.append(_exact_row(done[0], len(budgets)))
    header = ["method", *(_short(other) for other in budgets), "SW", "modes", "mean", "std", "residual"]
    return Grid(f"{problem}: {certificate.about[problem]}", [*header, "50 %", "90 %", "p", "NFE", "CPU s"], rows)


def show(certificate: Certificate, console: Console) -> None:
    """Print the overview of each budget, and of a single problem everything."""
    for budget in certificate.budgets:
        print_grid(overview(certificate, budget), console)
    if len(certificate.problems) == 1:
        print_grid(details(certificate, certificate.problems[0], main_budget(certificate)), console)
    for line in notes(certificate, failures_only=True):
        console.print(printable(line), markup=False, highlight=False)


def notes(certificate: Certificate, *, failures_only: bool = False) -> list[str]:
    """One sentence for each (method, reason) of cells that are not done, with their problems and budgets."""
    reasons: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in certificate.cells:
        if cell.status != DONE and (cell.status == FAILED or not failures_only):
            reasons.setdefault((cell.method, cell.status, cell.note), []).append(cell)
    return [f"{method}: {status} on {_where(cells)}: {note}" for (method, status, note), cells in reasons.items()]


def _where(cells: Sequence[Cell]) -> str:
    budgets: dict[str, list[str]] = {}
    for cell in cells:
        budgets.setdefault(cell.problem, []).append(_short(cell.budget))
    return ", ".join(f"{problem} ({', '.join(listed)})" for problem, listed in budgets.items())


def markdown(certificate: Certificate, *, figure: str | None = None, command: str | None = None) -> str:
    """The page.

    Args:
        certificate: the run.
        figure: address of the overview figure, from the page.
        command: what was typed.
    """
    budget = main_budget(certificate)
    parts = [_INTRO.format(command=_setup(certificate, command))]
    if figure:
        parts.append(f"![Error over the floor of each method on each problem]({figure})\n")
    for other in certificate.budgets:
        grid = overview(certificate, other)
        parts += [f"## {grid.title[0].upper()}{grid.title[1:]}\n", markdown_table(grid)]
    parts += [
        "## Problem by problem\n",
        _COLUMNS,
        f"Columns of budgets are ratios; the rest is at {_budget(budget)}.\n",
    ]
    for problem in certificate.problems:
        grid = details(certificate, problem, budget)
        parts += [f"### {printable(grid.title)}\n", markdown_table(grid)]
    if listed := notes(certificate):
        parts += ["## Not applicable\n", "\n".join(f"- {printable(line)}" for line in listed) + "\n"]
    return "\n".join(parts)


def _setup(certificate: Certificate, command: str | None) -> str:
    setup, most = certificate.setup, max((cell.num_samples for cell in certificate.cells), default=0)
    draws = f"{setup['draws']} draws each" if setup["draws"] else "draws as in docs/certify.md"
    if setup.get("draw_seed") is not None:
        draws += f", fresh ones of seed {setup['draw_seed']}"
    line = (
        f"at most {most} samples of each (256 in 64 dimensions, 128 for B16), {draws}; "
        f"priorpaint {setup['priorpaint']}, torch {setup['torch']}; processes: {setup['workers']}."
    )
    return printable(f"Made by `{command}`: {line}" if command else f"Setup: {line}")


def _measures(cell: Cell) -> list[str]:
    test = cell.calibration
    return [
        *_row_of(cell.mean),
        _NONE if test is None else f"{test.p:.2g}" if test.p >= 0.001 else "<.001",
        f"{cell.forward:.0f}+{cell.backward:.0f}",
        f"{cell.seconds:.1f}",
    ]


def _exact_row(cell: Cell, budgets: int) -> list[str]:
    return [EXACT, *["1.00"] * budgets, *_row_of(cell.floor), _NONE, _NONE, _NONE]


def _row_of(measure: Callable[[str], float | None]) -> list[str]:
    names = ("sliced", "modes", "mean", "std", "residual", "cover50", "cover90")
    return [_number(measure(name), 2 if name.startswith("cover") else 3) for name in names]


def _number(value: float | None, digits: int) -> str:
    return _NONE if value is None else f"{value:.{digits}f}" if abs(value) < 1000 else f"{value:.2g}"


def _ratio(cell: Cell | None) -> str:
    if cell is None or cell.status != DONE:
        return "failed" if cell is not None and cell.status == FAILED else _NONE
    if len(cell.ratios) < MANY_DRAWS:
        return short_number(cell.ratio)
    return f"{short_number(cell.median)} ({short_number(cell.worst)})"


def short_number(value: float) -> str:
    """Two or three digits: 1.05, 13.2, 240."""
    if value < 100:
        return f"{value:.2f}" if value < 10 else f"{value:.1f}"
    return f"{value:.0f}" if value < 1e5 else f"{value:.0e}"


def _prior_ratio(certificate: Certificate, problem: str) -> str:
    cell = next((cell for cell in certificate.cells if cell.problem == problem and cell.priors), None)
    return _NONE if cell is None else short_number(cell.prior_ratio)


def _floor_spread(certificate: Certificate, problem: str) -> str:
    """What one set of exact samples scores, and its standard deviation, mean over the draws."""
    cell = next((cell for cell in certificate.cells if cell.problem == problem and cell.floor_spread), None)
    return _NONE if cell is None else f"1.00 ± {statistics.mean(cell.floor_spread):.2f}"


def _short(budget: int | None) -> str:
    return "as given" if budget is None else str(budget)


def _budget(budget: int | None) -> str:
    return "settings as given" if budget is None else f"{budget} evaluations a sample"


def print_grid(grid: Grid, console: Console) -> None:
    """As a table on a terminal."""
    table = Table(title=_plain(grid.title), title_justify="left")
    for i, column in enumerate(grid.header):
        table.add_column(_plain(column), justify="left" if i == 0 else "right", no_wrap=i == 0)
    for row in grid.rows:
        table.add_row(*map(_plain, row))
    console.print(table)


def _plain(text: str) -> Text:
    """For a terminal: names may hold markup, or what steers one."""
    return Text(printable(text))


def markdown_table(grid: Grid) -> str:
    """As a table of a page."""
    lines = [grid.header, ["---", *["--:"] * (len(grid.header) - 1)], *grid.rows]
    return "\n".join("| " + " | ".join(map(printable, line)) + " |" for line in lines) + "\n"
