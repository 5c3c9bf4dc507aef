"""A statement beside its measurement: what theory says of a number, what Monte Carlo finds, and whether both agree."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

# Standard errors that a measurement may be off by chance: one of 16,000 is, where it is normal.
SIGMAS = 4.0
# Float64 rounding of sums over some thousand numbers.
_ROUNDING = 1e-9

Relation = Literal["=", "<="]


@dataclass(frozen=True)
class Check:
    """A number that theory knows or bounds.

    Attributes:
        statement: whose it is, such as "Theorem 6".
        case: what was measured, in words.
        theory: the number or the bound; None where an assumption of the statement does not hold.
        relation: what the statement says of the measurement: equal to ``theory``, or at most that.
        measured: the mean of Monte Carlo.
        error: its standard error; 0 of something that is computed and not sampled.
    """

    statement: str
    case: str
    theory: float | None
    relation: Relation
    measured: float
    error: float = 0.0

    @property
    def holds(self) -> bool | None:
        """Whether both agree within 4 standard errors and rounding; None where the statement does not apply."""
        if self.theory is None:
            return None
        excess = self.measured - self.theory
        slack = SIGMAS * self.error + _ROUNDING * max(1.0, abs(self.theory))
        return excess <= slack if self.relation == "<=" else abs(excess) <= slack

    @property
    def share(self) -> float:
        """The measurement as a share of the bound; 0 where the statement does not apply."""
        return 0.0 if self.theory is None else self.measured / max(self.theory, _ROUNDING)


@dataclass(frozen=True)
class Outcome:
    """An experiment.

    Attributes:
        title: the setting, in words.
        checks: the table.
        curves: what the figure shows, by name: lists and numbers.
        notes: sentences for under the table.
    """

    title: str
    checks: list[Check]
    curves: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def mean_of(values: Tensor) -> tuple[float, float]:
    """Mean and standard error of independent values (N,)."""
    return float(values.mean()), float(values.std()) / math.sqrt(len(values))


def rms_of(errors: Tensor) -> tuple[float, float]:
    """Root mean square of the Euclidean norms of independent rows (N, d), and its standard error (delta method)."""
    mean, error = mean_of(errors.square().sum(1))
    return math.sqrt(mean), error / (2 * math.sqrt(mean)) if mean > 0 else 0.0


def tightest(checks: Iterable[Check]) -> Check:
    """The one that comes nearest to its bound, or goes beyond it."""
    return max(checks, key=lambda check: check.share)
