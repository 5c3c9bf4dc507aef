"""The pictures of the experiments: what theory says as lines, what Monte Carlo finds as points."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .check import SIGMAS, Outcome
from .figure import PALETTE, require_matplotlib

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Errors below are float64 rounding.
_FLOOR = 1e-16
_RED, _, _PINK, _BLUE, _, _GREEN = PALETTE


def draw(name: str, outcome: Outcome, path: Path) -> None:
    """Write the figure of an experiment of ``EXPERIMENTS`` as a PNG file.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    figure = require_matplotlib()(figsize=(13, 4.8), layout="constrained")
    PANELS[name](figure, outcome.curves)
    figure.suptitle(outcome.title, fontsize=11)
    figure.savefig(path, dpi=110)


def _noisy(figure: Figure, curves: Mapping[str, Any]) -> None:
    left, right = figure.subplots(1, 2)
    sizes = curves["sizes"]
    for one, colour in zip(sizes, PALETTE, strict=False):
        label = f"{one['training']:,} samples, $\\lambda$ = {one['lambda']:.3f}"
        left.plot(one["measured"], color=colour, lw=1.6, label=label)
        if one["bound"][0] is not None:
            left.plot(one["bound"], color=colour, lw=1.0, ls="--")
    left.plot([], [], color="black", lw=1.0, ls="--", label="bound of Theorem 6")
    _finish(left, "rounds of resampling", "mean error of an image", "theta learned by SGD")
    left.set_ylim(bottom=0.2 * min(one["measured"][-1] for one in sizes))
    left.legend(fontsize=8.5, framealpha=0.95, loc="lower right")
    numbers = [one["training"] for one in sizes]
    bounds = [(one["training"], one["bound"][-1]) for one in sizes if one["bound"][-1] is not None]
    right.plot(*zip(*bounds, strict=True), color="black", lw=1.0, ls="--", marker="_", label="bound of Theorem 6")
    right.plot(numbers, [one["measured"][-1] for one in sizes], color=_BLUE, marker="o", label="Monte Carlo")
    slope = [sizes[-1]["measured"][-1] * math.sqrt(numbers[-1] / number) for number in numbers]
    right.plot(numbers, slope, color="0.6", lw=1.0, ls=":", label="slope -1/2")
    right.set_xscale("log")
    _finish(right, "training samples", "mean error after the last round", "The error of the generator is inherited")


def _masks(figure: Figure, curves: Mapping[str, Any]) -> None:
    left, right = figure.subplots(1, 2)
    order = sorted(range(len(curves["rho"])), key=lambda i: curves["rho"][i])
    rho = [curves["rho"][i] for i in order]
    for axes, name, title in ((left, "exact", "theta* (Theorem 4)"), (right, "learned", "learned theta (Theorem 6)")):
        bounds = [curves[f"{name}_bound"][i] for i in order]
        visible = [math.nan if bound is None or bound < _FLOOR else bound for bound in bounds]
        axes.plot(rho, visible, color="black", lw=1.0, ls="--", label="bound")
        shown = axes.scatter(rho, [max(curves[name][i], _FLOOR) for i in order], s=16,
                             c=[curves["known"][i] for i in order], cmap="viridis",
                             label="Monte Carlo, one mask")  # fmt: skip
        _finish(axes, "$\\rho$ of the mask", "mean error of an image", f"One {title}, {len(rho)} masks")
    figure.colorbar(shown, ax=right, label="known coordinates")


def _states(figure: Figure, curves: Mapping[str, Any]) -> None:
    left, right = figure.subplots(1, 2)
    for (name, points), colour in zip(curves["error"].items(), (_RED, _PINK, _BLUE, _GREEN), strict=True):
        _compared(left, points, colour, name)
    left.set_xscale("log")
    _finish(left, "states T", "rms error of the hidden part", f"{curves['calls']} network calls as T states")
    labels = {"aligned": "realigned (Theorem 11)", "ancestral": "DDPM's own chain"}
    for (name, points), colour in zip(curves["latent variance"].items(), (_BLUE, _RED), strict=True):
        _compared(right, points, colour, labels[name])
    right.set_xscale("log")
    _finish(right, "states T", "latent variance of what is generated", "Generation; the data have 1", log=False)


def _marginals(figure: Figure, curves: Mapping[str, Any]) -> None:
    figure.set_size_inches(13, 10)
    (first, second), (third, fourth) = figure.subplots(2, 2)
    points, line = curves["points"], curves["line"]
    along = ("first coordinate", "second coordinate") if curves["in_coordinates"] else (
        "known part of the slowest mode", "hidden part of the slowest mode")  # fmt: skip
    shown = ((first, ("x_0",), "(3a) The data lie on a line" if curves["in_coordinates"] else "(3a) The data"),
             (third, ("x_1", "x_0"), "(4a) Forward: noise takes them off it"),
             (fourth, ("x_T", "reverse"), "(4b) Reverse: N(0, I) is brought back to it"))  # fmt: skip
    labels = {"x_0": "$x_0$", "x_1": "$x_1$", "x_T": "$x_T \\sim N(0, I)$", "reverse": "$\\theta^* x_T / \\alpha$"}
    colours = {"x_0": _BLUE, "x_1": _RED, "x_T": "0.6", "reverse": _GREEN}
    for axes, names, title in shown:
        if curves["in_coordinates"]:
            axes.axline((0, 0), line, color="0.7", lw=1.0, zorder=1)
        for name in names:
            axes.scatter(*zip(*points[name], strict=True), s=9, color=colours[name], label=labels[name], zorder=2)
        axes.set_aspect("equal", adjustable="datalim")
        _finish(axes, *along, title, log=False)
    grid = [i / 50 for i in range(-200, 201)]
    for number, (values, variance) in enumerate(zip(curves["coordinates"], curves["variances"], strict=True)):
        colour = PALETTE[(3, 1, 5, 0)[number]]
        second.hist(values, bins=40, density=True, histtype="step", color=colour, label=f"coordinate {number + 1}")
        if variance > 0:
            scale = math.sqrt(2 * math.pi * variance)
            second.plot(grid, [math.exp(-x * x / (2 * variance)) / scale for x in grid], color=colour, lw=1.0, ls="--")
    second.plot([], [], color="black", lw=1.0, ls="--", label="$N(0, P_{ii})$")
    _finish(second, "value", "density", "(3b) Marginals of the data", log=False)


def _lecture(figure: Figure, curves: Mapping[str, Any]) -> None:
    left, right = figure.subplots(1, 2)
    chain = curves["forward"]
    t = [point["t"] for point in chain]
    for law, measured, colour, label in (
        ("alpha", "mean", _BLUE, "mean"),
        ("sigma", "std", _RED, "standard deviation"),
    ):
        left.plot(t, [point[law] for point in chain], color=colour, lw=1.2, label=f"{label}, one jump")
        left.plot(
            t, [point[measured] for point in chain], color=colour, ls="", marker="o", ms=4, label=f"{label}, chain"
        )
    _finish(left, "t", "$x_t$ from $x_0 = 1$", "Forward: the chain has the law of one jump", log=False)
    for i, ((name, points), colour) in enumerate(zip(curves["reverse"].items(), PALETTE, strict=False)):
        relative = [{"states": point["states"], **{key: point[key] / point["right"]
                     for key in ("theory", "measured", "error")}} for point in points]  # fmt: skip
        _compared(right, relative, colour, name, 1.08 ** (i - 2))
    right.axhline(1, color="0.6", lw=1.0, ls=":")
    right.set_xscale("log")
    _finish(
        right, "states T", "variance over the right one", "Reverse: which variance is right for which data", log=False
    )


PANELS: Mapping[str, Callable[[Figure, Mapping[str, Any]], None]] = {
    "noisy": _noisy, "masks": _masks, "states": _states, "marginals": _marginals, "lecture": _lecture,
}  # fmt: skip


def _compared(axes: Axes, points: Sequence[Mapping[str, float]], colour: str, label: str, shift: float = 1.0) -> None:
    """Theory as a line, Monte Carlo as points with bars of 4 standard errors; ``shift`` keeps bars apart."""
    x = [shift * point["states"] for point in points]
    law = [math.nan if 0 < point["theory"] < _FLOOR else point["theory"] for point in points]
    axes.plot(x, law, color=colour, lw=1.2, label=label)
    measured = [max(point["measured"], _FLOOR) for point in points]
    axes.errorbar(x, measured, [SIGMAS * point["error"] for point in points], color=colour, ls="", marker="o", ms=4)


def _finish(axes: Axes, x: str, y: str, title: str, *, log: bool = True) -> None:
    if log:
        axes.set_yscale("log")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_title(title, fontsize=11)
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
    axes.legend(fontsize=8.5, framealpha=0.95)
