"""What a certification finds: cells, and the certificate that holds them. Plain data that goes to JSON and back."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...errors import UsageError
from .calibration import Calibration
from .measures import Measures
from .problems import PROBLEMS

DONE, NOT_APPLICABLE, FAILED = "done", "not applicable", "failed"
_VERSION = 1


@dataclass(frozen=True)
class Cell:
    """One method on one problem at one budget.

    Attributes:
        method, problem, budget: which cell; budget None is the method as it was given.
        status: ``done``, ``not applicable`` or ``failed``.
        note: one sentence where it is not done.
        settings: of the method.
        num_samples: samples of each draw.
        measures, floors, priors: one a draw: of the method, of as many exact samples, of as many samples of the prior.
        floor_spread: standard deviation of what one set of as many exact samples scores, over the floor, one a draw.
        calibration: the rank test, where it was made.
        forward, backward: network evaluations a sample without and with a gradient, as the prior counted them.
        seconds: CPU seconds a draw (of the sampling alone).
    """

    method: str
    problem: str
    budget: int | None
    status: str = DONE
    note: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    num_samples: int = 0
    measures: tuple[Measures, ...] = ()
    floors: tuple[Measures, ...] = ()
    priors: tuple[Measures, ...] = ()
    calibration: Calibration | None = None
    forward: float = 0.0
    backward: float = 0.0
    seconds: float = 0.0
    floor_spread: tuple[float, ...] = ()

    @property
    def ratios(self) -> list[float]:
        """Sliced Wasserstein distance over its floor, one a draw."""
        return [own.sliced / floor.sliced for own, floor in zip(self.measures, self.floors, strict=True)]

    @property
    def ratio(self) -> float:
        """Their mean: 1 is as good as exact samples."""
        return sum(self.ratios) / len(self.ratios)

    @property
    def median(self) -> float:
        """Their median."""
        return statistics.median(self.ratios)

    @property
    def worst(self) -> float:
        """The largest of them."""
        return max(self.ratios)

    @property
    def prior_ratio(self) -> float:
        """The same for samples of the prior, which ignore y."""
        pairs = zip(self.priors, self.floors, strict=True)
        return sum(prior.sliced / floor.sliced for prior, floor in pairs) / len(self.priors)

    def mean(self, name: str) -> float | None:
        """A measure, averaged over the draws; None where it does not exist."""
        return _mean([getattr(part, name) for part in self.measures])

    def floor(self, name: str) -> float | None:
        """What exact samples score."""
        return _mean([getattr(part, name) for part in self.floors])


def _mean(values: Sequence[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return sum(numbers) / len(numbers) if numbers else None


@dataclass(frozen=True)
class Certificate:
    """All cells of a run.

    Attributes:
        cells: in the order of the run's methods, problems and budgets.
        about: problem name -> one sentence.
        setup: versions, machine, draws, command: what reproduces the run.
    """

    cells: tuple[Cell, ...]
    about: dict[str, str]
    setup: dict[str, Any]

    def cell(self, method: str, problem: str, budget: int | None) -> Cell | None:
        """A cell, or None where it was not run."""
        wanted = (method, problem, budget)
        return next((cell for cell in self.cells if (cell.method, cell.problem, cell.budget) == wanted), None)

    @property
    def methods(self) -> list[str]:
        return list(dict.fromkeys(cell.method for cell in self.cells))

    @property
    def problems(self) -> list[str]:
        """Standard problems in their order, then others."""
        names = dict.fromkeys(cell.problem for cell in self.cells)
        return [name for name in PROBLEMS if name in names] + [name for name in names if name not in PROBLEMS]

    @property
    def budgets(self) -> list[int | None]:
        return sorted(dict.fromkeys(cell.budget for cell in self.cells), key=lambda budget: budget or 0)

    def merged(self, other: Certificate) -> Certificate:
        """These cells with those of ``other`` in their place or behind them; the setup is that of ``other``."""
        cells = {(cell.method, cell.problem, cell.budget): cell for cell in (*self.cells, *other.cells)}
        return Certificate(tuple(cells.values()), {**self.about, **other.about}, other.setup)

    def to_json(self) -> str:
        """Everything, as text; numbers that are not finite become null."""
        data = {"version": _VERSION, "setup": self.setup, "about": self.about, "cells": [asdict(c) for c in self.cells]}
        return json.dumps(finite(data), indent=1) + "\n"

    @staticmethod
    def from_json(text: str) -> Certificate:
        """The certificate that `to_json` wrote.

        Raises:
            UsageError: the text is something else.
        """
        try:
            data = json.loads(text)
            if data["version"] != _VERSION:
                raise UsageError(f"this certificate has version {data['version']}, not {_VERSION}; run certify again")
            return Certificate(tuple(_cell(cell) for cell in data["cells"]), data["about"], data["setup"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            if isinstance(error, UsageError):
                raise
            raise UsageError(f"this is not a certificate ({error}); run certify again") from None

    @staticmethod
    def read(path: str | Path) -> Certificate:
        """The certificate in a file.

        Raises:
            UsageError: it cannot be read.
        """
        try:
            return Certificate.from_json(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise UsageError(f"{path} cannot be read ({error.strerror}); check the name") from None


def _cell(data: dict[str, Any]) -> Cell:
    for name in ("measures", "floors", "priors"):
        data[name] = tuple(Measures(**_numbers(part)) for part in data[name])
    data["floor_spread"] = tuple(data.get("floor_spread", ()))
    test = data["calibration"]
    if test is not None:
        data["calibration"] = Calibration(test["p"], tuple(tuple(counts) for counts in test["counts"]))
    return Cell(**data)


def _numbers(part: dict[str, Any]) -> dict[str, Any]:
    """null stands for a number that was not finite, but for ``modes``, where it means that there is none."""
    return {name: math.inf if value is None and name != "modes" else value for name, value in part.items()}


def finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value
