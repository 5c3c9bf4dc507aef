"""What a figure is: a name, what it shows, and a function that draws it from a request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from ...errors import UsageError
from ...imaging import hole_overlay
from ...imaging.grids import to_pixels
from ...imaging.sheets import thumbnail
from ...metrics import LPIPS
from ...priors.base import Prior
from ...solvers import solver
from ...solvers.vipaint import VIPaint
from .examples import Examples

CELL = 128
# Okabe and Ito's colours, which colour-blind people can tell apart.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")

Cell = tuple[str, Image.Image]


@dataclass(frozen=True)
class Settings:
    """What can be chosen, whatever the prior; None leaves it to the method or the figure.

    Attributes:
        samples: of each picture.
        seed: of fits and samples.
        iterations: of VIPaint's fit.
        steps: of VIPaint's phase 2, and of RED-diff.
        levels: K of VIPaint; figures of one fit take the first.
        every: iterations between two drawings of one fit.
        labels: classes.
        guidance: scale of classifier-free guidance to them.
        method: further settings of VIPaint, by name.
    """

    samples: int | None = None
    seed: int = 0
    iterations: int | None = None
    steps: int | None = None
    levels: tuple[int, ...] = ()
    every: int | None = None
    labels: tuple[int, ...] = ()
    guidance: float = 1.0
    method: dict[str, Any] = field(default_factory=dict)

    def vipaint(self, levels: int | None = None) -> VIPaint:
        """VIPaint as it was asked for, on ``levels`` levels or the first of `levels`.

        Its preset is `exact` unless another is named: the levels are the paper's, and the bound is one.

        Raises:
            UsageError: a setting that it has not, or out of range.
        """
        asked = {
            "iterations": self.iterations,
            "refine_steps": self.steps,
            "levels": levels or next(iter(self.levels), None),
        }
        chosen = {name: value for name, value in asked.items() if value is not None}
        for name in chosen.keys() & self.method.keys():
            raise UsageError(f"the setting {name} has an option of its own; give it once.")
        made = solver("vipaint", **{"preset": "exact", **self.method}, **chosen)
        assert isinstance(made, VIPaint)
        return made

    def stops(self, iterations: int) -> list[int]:
        """The iterations of a fit at which it is drawn, from 0 to its end."""
        every = self.every or max(1, iterations // 5)
        return sorted({*range(0, iterations, every), iterations})


@dataclass(frozen=True)
class Request:
    """All that a figure is drawn from.

    Attributes:
        prior: the prior.
        examples: pictures and masks.
        settings: as chosen.
        lpips: the distance to the truth beside the error; None without.
        report: called as report(parts done, parts in all, sentence).
    """

    prior: Prior
    examples: Examples
    settings: Settings
    lpips: LPIPS | None = None
    report: Callable[[int, int, str], None] = lambda done, total, sentence: None

    def vipaint(self, levels: int | None = None) -> VIPaint:
        """VIPaint as in `Settings.vipaint`, with what its settings leave to the problem decided."""
        shape = self.prior.latent_shape(self.examples.x.shape[-2], self.examples.x.shape[-1])
        return self.settings.vipaint(levels).settled(self.prior, shape, mask=True)


@dataclass(frozen=True)
class Drawn:
    """A figure, and its numbers as JSON values."""

    image: Image.Image
    numbers: dict[str, Any]


@dataclass(frozen=True)
class Figure:
    """A figure of a paper.

    Attributes:
        name: on the command line.
        about: what it shows.
        source: the figure that it repeats.
        takes: names of `Settings` that it reads, beside ``samples`` and ``seed``.
        draw: draws it.
        plots: whether it is a diagram, which takes matplotlib and may show LPIPS.
    """

    name: str
    about: str
    source: str
    takes: frozenset[str]
    draw: Callable[[Request], Drawn]
    plots: bool = False

    def check(self, settings: Settings) -> None:
        """Say before any work what cannot be meant.

        Raises:
            UsageError: a setting that the figure does not read, that the method has not, or out of range.
        """
        blank = Settings()
        for name in ("iterations", "steps", "levels", "every", "labels", "guidance", "method"):
            if name not in self.takes and getattr(settings, name) != getattr(blank, name):
                raise UsageError(f"the figure {self.name} has no choice of {name}; leave it out.")
        for levels in settings.levels or (None,):
            made = settings.vipaint(levels)
        if len(settings.levels) > 1 and not self.plots:
            raise UsageError(f"the figure {self.name} shows one number of levels, not {len(settings.levels)}.")
        if settings.every is not None and settings.every > made.rules.iterations:
            raise UsageError(f"a fit of {made.rules.iterations} iterations cannot be drawn every {settings.every}.")


FIGURES: dict[str, Figure] = {}


def figure(
    name: str, source: str, *takes: str, plots: bool = False
) -> Callable[[Callable[[Request], Drawn]], Callable[[Request], Drawn]]:
    """Register the function that follows as a figure; its docstring's first line says what it shows."""

    def register(draw: Callable[[Request], Drawn]) -> Callable[[Request], Drawn]:
        about = (draw.__doc__ or "").strip().split("\n")[0].rstrip(".")
        FIGURES[name] = Figure(name, about, source, frozenset(takes), draw, plots)
        return draw

    return register


def cells(names: list[str], pictures: Tensor) -> list[Cell]:
    """Labelled pictures (n, C, H, W) for a row."""
    images = [Image.fromarray(pixels) for pixels in to_pixels(pictures)]
    return [(name, thumbnail(image, CELL)) for name, image in zip(names, images, strict=True)]


def given(examples: Examples, row: int) -> list[Cell]:
    """The picture and what is known of it, with its hole tinted."""
    image = Image.fromarray(to_pixels(examples.x[row]))
    masked = hole_overlay(image, examples.known[row, 0].cpu().numpy() > 0.5)
    return [(examples.names[row], thumbnail(image, CELL)), (Path(examples.masks[row]).stem, thumbnail(masked, CELL))]


def rounded(values: Tensor) -> Any:
    """Nested lists of numbers with six digits."""
    return [rounded(each) for each in values] if values.ndim else float(f"{float(values):.6g}")
