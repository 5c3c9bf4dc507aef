"""The picture of Appendix B: the manifold in two dimensions, and the error against the rounds of resampling."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import MissingExtra
from .appendix_b import CG, CHEBYSHEV, LEAST_SQUARES, REPAINT, REPAINT_PLUS, REVERSE_SDE, Outcome
from .model import LinearModel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind people can tell apart.
PALETTE = ("#D55E00", "#E69F00", "#CC79A7", "#0072B2", "#56B4E9", "#009E73")
_COLOURS = dict(zip((REPAINT, REVERSE_SDE, LEAST_SQUARES, REPAINT_PLUS, CHEBYSHEV, CG), PALETTE, strict=True))
_MARKERS = {REPAINT: "s", REVERSE_SDE: "^", LEAST_SQUARES: "v", REPAINT_PLUS: "o"}
_SHOWN = 30
# Errors below are float64 rounding.
_FLOOR = 1e-17


def require_matplotlib() -> type[Figure]:
    """The class of figures; raises MissingExtra where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra(
            "The figure needs matplotlib; install it with: pip install 'priorpaint[plot]', or leave out --out"
        ) from None
    return Figure


def draw(model: LinearModel, outcome: Outcome, path: Path) -> None:
    """Write the figure as a PNG file.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    figure = require_matplotlib()(figsize=(13, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.25])
    _manifold(left, model, outcome)
    _errors(right, model, outcome)
    figure.savefig(path, dpi=150)


def _manifold(axes: Axes, model: LinearModel, outcome: Outcome) -> None:
    basis, line = model.plane()
    shown = {name: (images[:_SHOWN] @ basis.mT).mT.numpy() for name, images in outcome.images.items()}
    axes.axline((0, 0), (float(line[0]), float(line[1])), color="0.7", lw=1.2, zorder=1)
    # What RePaint does to each image, and the reverse SDE and least squares to that.
    for before, after in (("x_0", REPAINT), (REPAINT, REVERSE_SDE), (REPAINT, LEAST_SQUARES)):
        for start, end in zip(shown[before].T, shown[after].T, strict=True):
            axes.plot([start[0], end[0]], [start[1], end[1]], color=_COLOURS[after], lw=0.6, alpha=0.5, zorder=2)
    x, y = shown["x_0"]
    axes.scatter(x, y, s=70, facecolors="none", edgecolors="0.25", linewidths=1.0, label="true image", zorder=3)
    for method, marker in _MARKERS.items():
        x, y = shown[method]
        axes.scatter(x, y, s=22, color=_COLOURS[method], marker=marker, linewidths=0, label=method, zorder=4)
    whole = model.d == 2
    axes.set_xlabel("known coordinate" if whole else "known part of the slowest mode")
    axes.set_ylabel("hidden coordinate" if whole else "hidden part of the slowest mode")
    axes.set_title(f"The manifold, {len(x)} images and what is made of them", fontsize=11)
    axes.set_aspect("equal", adjustable="datalim")
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
    axes.legend(fontsize=8.5, framealpha=0.95)


def _errors(axes: Axes, model: LinearModel, outcome: Outcome) -> None:
    rounds = len(outcome.predicted) - 1
    for method, curve in outcome.curves.items():
        first = rounds + 1 - len(curve)
        visible = [max(value, _FLOOR) for value in curve]
        axes.plot(range(first, rounds + 1), visible, label=method, **_line(method, len(curve)))
    rate = f"predicted for RePaint+,\nrate $\\rho$ = {model.rho:.4g}"
    visible = [max(value, _FLOOR) for value in outcome.predicted]
    axes.plot(range(rounds + 1), visible, color="black", lw=1.0, ls="--", zorder=5, label=rate)
    for row, label in zip(outcome.rows[:3], ("predicted for the others", None, None), strict=True):
        if row.check.theory is not None:
            axes.axhline(row.check.theory, color="black", lw=1.0, ls=":", zorder=5, label=label)
    axes.set_yscale("log")
    axes.set_ylim(bottom=max(_FLOOR, 0.3 * min(min(curve) for curve in outcome.curves.values())))
    axes.set_xlim(0, rounds)
    axes.set_xlabel("rounds of resampling")
    axes.set_ylabel("rms error of an image")
    axes.set_title(f"d = {model.d}, k = {model.k}, {int(model.known.sum())} known", fontsize=11)
    axes.grid(color="0.92")
    axes.legend(fontsize=8.5, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _line(method: str, length: int) -> dict[str, Any]:
    style: dict[str, Any] = {"color": _COLOURS[method], "lw": 1.6, "zorder": 3}
    if method in _MARKERS:
        style |= {"marker": _MARKERS[method], "ms": 4, "markevery": max(1, length // 25)}
    return style
