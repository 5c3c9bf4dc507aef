"""Means and standard errors over pictures, and differences between methods on the same pictures.

A picture counts once: the values of its seeds are averaged first. Only numbers are kept, a few for each picture, method
and mask, never samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..batch.store import Record
from .metrics import METRICS, Column

RATIO = "variance_over_error"
_OF_RATIO = ("variance", "squared_error")
COLUMNS: dict[str, Column] = {column.key: column for metric in METRICS.values() for column in metric.columns}
_KEYS = [*COLUMNS, *_OF_RATIO]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A mean over pictures.

    Attributes:
        mean: of ``pictures`` pictures.
        error: its standard error; None for a single picture.
    """

    mean: float
    error: float | None
    pictures: int

    @staticmethod
    def of(values: Floats) -> Estimate | None:
        """Of values, one a picture, of which nan is none; None where all are."""
        there = values[~np.isnan(values)]
        if not there.size:
            return None
        error = float(there.std(ddof=1)) / math.sqrt(there.size) if there.size > 1 else None
        return Estimate(float(there.mean()), error, there.size)

    @staticmethod
    def of_ratio(above: Floats, below: Floats) -> Estimate | None:
        """Mean of ``above`` over mean of ``below``, whose error is that of above - ratio * below (delta method)."""
        scale = Estimate.of(below)
        if scale is None or scale.mean == 0:
            return None
        ratio = float(np.nanmean(above)) / scale.mean
        rest = Estimate.of(above - ratio * below)
        assert rest is not None
        return Estimate(ratio, None if rest.error is None else rest.error / scale.mean, scale.pictures)


class Line:
    """The numbers of one method under one mask or operator.

    Args:
        pictures: how many pictures there may be.
    """

    def __init__(self, pictures: int) -> None:
        self._sums, self._counts = np.zeros((2, len(_KEYS), pictures))
        self._ranks: Floats = np.zeros(1)
        self._costs = np.zeros(7)
        self.cells = 0
        self.peak_bytes = 0

    def add(self, picture: int, cell: Record, values: Mapping[str, Any]) -> None:
        """A cell, a line of done.jsonl, and what was measured of it."""
        for i, key in enumerate(_KEYS):
            if values.get(key) is not None:
                self._sums[i, picture] += values[key]
                self._counts[i, picture] += 1
        if values.get("ranks"):
            self._ranks = self._ranks + np.array(values["ranks"])
        fit, sampling = (
            [cell[part][key] for key in ("seconds", "nfe_forward", "nfe_backward")] for part in ("fit", "sampling")
        )
        self._costs += [*fit, *sampling, cell["num_samples"]]
        self.cells += 1
        self.peak_bytes = max(self.peak_bytes, cell.get("peak_bytes") or 0)

    def values(self, key: str) -> Floats:
        """One a picture, nan where it was not measured."""
        i = _KEYS.index(key)
        counts = self._counts[i]
        means: Floats = np.where(counts > 0, self._sums[i] / np.maximum(counts, 1), np.nan)
        return means

    def estimate(self, key: str) -> Estimate | None:
        """Of a column, over pictures; None where it was not measured."""
        if key == RATIO:
            return Estimate.of_ratio(*(self.values(part) for part in _OF_RATIO))
        return Estimate.of(self.values(key))

    @property
    def ranks(self) -> list[float] | None:
        """How often 0..n samples are below the truth, a share each; None where it was not measured."""
        total = self._ranks.sum()
        return (self._ranks / total).tolist() if total > 0 else None

    @property
    def cost(self) -> dict[str, float]:
        """Seconds and network evaluations of a fit (once a cell), and of a sample."""
        fit, sampling = self._costs[:3] / self.cells, self._costs[3:6] / self._costs[6]
        names = ("seconds", "nfe_forward", "nfe_backward")
        parts = {"fit": fit.tolist(), "sample": sampling.tolist()}
        return {f"{part}_{name}": value for part, row in parts.items() for name, value in zip(names, row, strict=True)}


class Summary:
    """All methods under all masks and operators.

    Args:
        pictures: their names.
        cells: lines of done.jsonl.
        measured: what was measured of each, by its key (`measure.measured`).
    """

    def __init__(self, pictures: Iterable[str], cells: Iterable[Record], measured: Mapping[str, Record]) -> None:
        index = {name: i for i, name in enumerate(pictures)}
        self.cases: dict[str, dict[str, Line]] = {}
        for cell in cells:
            line = self.cases.setdefault(case_of(cell), {}).setdefault(cell["method"], Line(len(index)))
            line.add(index[cell["picture"]], cell, measured.get(cell["key"], {"values": {}})["values"])

    def difference(self, case: str, key: str, method: str, other: str) -> Estimate | None:
        """Of a column, a method minus another on the pictures that both have; None where there is none."""
        lines = self.cases[case]
        return Estimate.of(lines[method].values(key) - lines[other].values(key))


def case_of(cell: Record) -> str:
    """The mask of a cell, or its operator where it has none."""
    return str(cell["operator"] if cell.get("mask") is None else cell["mask"])
