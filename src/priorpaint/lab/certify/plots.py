"""Figures of a certificate. matplotlib is used without its global state, so no window and no backend is needed."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import MissingExtra
from ...imaging.writing import write_bytes_atomic
from .report import EXACT, PRIOR, asked_at, main_budget, methods_by_error, short_number
from .results import DONE, Certificate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OVERVIEW, BUDGETS, COPIES = "certification.png", "certification-budgets.png", "certification-copies.png"
_WORST = 30.0  # ratios beyond it share one colour
_DPI = 130
_INK, _PALE = "#222222", "#ececec"
_BEST = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b")  # told apart without red and green
_FADED = "#aaaaaa"
_SIZES = (16, 34, 62)


def draw(certificate: Certificate, folder: Path) -> list[Path]:
    """Write the figures that the certificate has data for; the overview comes first.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    figures = {OVERVIEW: overview(certificate)}
    if len(certificate.budgets) > 1:
        figures[BUDGETS] = budgets(certificate)
    if len(_copies(certificate)) > 1:
        figures[COPIES] = copies(certificate)
    for name, figure in figures.items():
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=_DPI, facecolor="white")
        write_bytes_atomic(folder / name, buffer.getvalue())
    return [folder / name for name in figures]


def require() -> None:
    """Check that figures can be drawn.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    _figure(1, 1)


def _figure(width: float, height: float) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("figures need matplotlib; run: pip install 'priorpaint[plot]'") from None
    return Figure(figsize=(width, height), layout="constrained")


def overview(certificate: Certificate) -> Figure:
    """Methods x problems as coloured numbers: the error over the floor at the main budget."""
    budget = main_budget(certificate)
    certificate = asked_at(certificate, budget)
    ratios: dict[str, list[float | None]] = {EXACT: [1.0] * len(certificate.problems)}
    for method in methods_by_error(certificate, budget):
        ratios[method] = [_ratio(certificate, method, problem, budget) for problem in certificate.problems]
    ratios[PRIOR] = [_prior(certificate, problem) for problem in certificate.problems]
    figure = _figure(max(5.5, 2.2 + 0.72 * len(certificate.problems)), 1.5 + 0.27 * len(ratios))
    axes = figure.add_subplot()
    _heat(figure, axes, ratios)
    axes.set_xticks(
        range(len(certificate.problems)), certificate.problems, rotation=35, ha="left", rotation_mode="anchor"
    )
    axes.xaxis.tick_top()
    spent = "" if budget is None else f" with {budget} network evaluations a sample"
    figure.suptitle(f"Distance from the exact posterior{spent}\n1 = as good as exact samples", fontsize=10)
    return figure


def _heat(figure: Figure, axes: Axes, ratios: dict[str, list[float | None]]) -> None:
    import numpy as np
    from matplotlib import colormaps
    from matplotlib.colors import LogNorm

    norm, colours = LogNorm(1, _WORST, clip=True), colormaps["magma_r"]
    values = np.array([[np.nan if v is None else v for v in row] for row in ratios.values()])
    painted = np.array([[_colour(colours, norm, v) for v in row] for row in values])
    axes.imshow(painted, aspect="auto")
    for row, line in enumerate(values):
        for column, value in enumerate(line):
            missing = not np.isfinite(value)
            dark = not missing and sum(painted[row, column][:3]) < 1.5
            text = "–" if missing else short_number(value)
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color="white" if dark else _INK)
    axes.set_yticks(range(len(ratios)), ratios)
    axes.tick_params(length=0, labelsize=9)
    axes.set_xticks(np.arange(values.shape[1] + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(values.shape[0] + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="minor", length=0)
    for edge in (0.5, len(ratios) - 1.5):  # the two rows that are no methods stand apart
        axes.axhline(edge, color=_INK, linewidth=1)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _colour(colours: Any, norm: Any, value: float) -> tuple[float, ...]:
    from matplotlib.colors import to_rgba

    if value != value:
        return to_rgba(_PALE)
    return tuple(colours(0.85 * float(norm(value))))  # the darkest end swallows the number


def budgets(certificate: Certificate) -> Figure:
    """One panel a problem: each method's error over the floor, one dot a budget, larger dots for larger budgets."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    order = methods_by_error(certificate, main_budget(certificate))[::-1]
    columns = min(4, len(certificate.problems))
    rows = -(-len(certificate.problems) // columns)
    figure = _figure(1.2 + 2.5 * columns, 0.9 + rows * (0.7 + 0.19 * len(order)))
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).flatten()
    for axes, problem in zip(panels, certificate.problems, strict=False):
        _dots(axes, certificate, problem, order)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_title(problem, fontsize=10)
        axes.tick_params(labelsize=8, length=2)
        axes.axvline(1, color=_INK, linewidth=0.8)
        if (prior := _prior(certificate, problem)) is not None:
            axes.axvline(prior, color=_INK, linewidth=0.8, linestyle=":")
    for axes in panels[len(certificate.problems) :]:
        axes.set_visible(False)
    panels[0].set_yticks(range(len(order)), order)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower right", ncols=3, fontsize=8, frameon=False)
    figure.suptitle(
        "Error over the floor (left line: exact samples; dotted: the prior, ignoring y)", fontsize=10, ha="center"
    )
    return figure


def _dots(axes: Axes, certificate: Certificate, problem: str, order: list[str]) -> None:
    shown = certificate.budgets[-3:]
    for row, method in enumerate(order):
        ratios = [ratio for budget in shown if (ratio := _ratio(certificate, method, problem, budget)) is not None]
        if len(ratios) > 1:
            axes.plot([min(ratios), max(ratios)], [row, row], color="#bbbbbb", linewidth=1.2, zorder=1)
    for budget, size, colour in zip(shown, _SIZES, ("#9ecae1", "#4292c6", "#08306b"), strict=False):
        points = [(_ratio(certificate, method, problem, budget), row) for row, method in enumerate(order)]
        known = [(ratio, row) for ratio, row in points if ratio is not None]
        label = "as given" if budget is None else f"{budget} evaluations a sample"
        axes.scatter([r for r, _ in known], [row for _, row in known], s=size, color=colour, label=label, zorder=2)
    axes.grid(axis="y", color=_PALE, linewidth=0.8, zorder=0)
    axes.set_axisbelow(True)


def copies(certificate: Certificate) -> Figure:
    """Error over the floor against the number of independent copies: where particles collapse. Best five in colour."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

    counts, budget = _copies(certificate), _widest(certificate)
    figure = _figure(7.5, 4.8)
    axes = figure.add_subplot()
    lines: list[tuple[str, list[tuple[int, float]]]] = []
    for method in certificate.methods:
        points = [(count, _ratio(certificate, method, f"B16-{count}", budget)) for count in counts]
        known = [(count, ratio) for count, ratio in points if ratio is not None]
        if len(known) > 1:
            lines.append((method, known))
    lines.sort(key=lambda line: line[1][-1][1])
    ends: list[tuple[float, str, str]] = []
    for i, (method, known) in enumerate(lines):
        colour = _BEST[i] if i < len(_BEST) else _FADED
        width = 1.8 if i < len(_BEST) else 1.0
        axes.plot(*zip(*known, strict=True), marker="o", markersize=3.5, linewidth=width, color=colour, zorder=-i)
        ends.append((known[-1][1], method, colour))
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(FixedLocator(counts))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.axhline(1, color=_INK, linewidth=0.8)
    _label_ends(axes, counts[-1], ends)
    spent = "" if budget is None else f", {budget} evaluations a sample"
    axes.set_xlabel(f"independent copies of M16 in one image{spent}")
    axes.set_ylabel("error over the floor, one copy")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _label_ends(axes: Axes, last: int, ends: list[tuple[float, str, str]]) -> None:
    """Names at the right ends of the lines, pushed apart where they would overlap."""
    low, high = (value for value in axes.get_ylim())
    gap = (high / low) ** (1 / 30)
    height = 0.0
    for value, method, colour in sorted(ends):
        height = max(value, height * gap)
        axes.annotate(
            method, (last, height), xytext=(8, 0), textcoords="offset points", fontsize=8, color=colour, va="center"
        )


def _copies(certificate: Certificate) -> list[int]:
    return sorted(int(name.split("-")[1]) for name in certificate.problems if name.startswith("B16-"))


def _widest(certificate: Certificate) -> int | None:
    """The budget at which most of the copies ran."""
    ran = {(c.budget, c.problem) for c in certificate.cells if c.problem.startswith("B16-") and c.status == DONE}
    counts = Counter(budget for budget, _ in ran)
    main = main_budget(certificate)
    return max(counts, key=lambda budget: (counts[budget], budget == main), default=main)


def _ratio(certificate: Certificate, method: str, problem: str, budget: int | None) -> float | None:
    cell = certificate.cell(method, problem, budget)
    return cell.ratio if cell is not None and cell.status == DONE else None


def _prior(certificate: Certificate, problem: str) -> float | None:
    cell = next((cell for cell in certificate.cells if cell.problem == problem and cell.priors), None)
    return None if cell is None else cell.prior_ratio
