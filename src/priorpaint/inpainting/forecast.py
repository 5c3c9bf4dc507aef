"""How long a run still takes, by how long its steps have taken."""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping


class Forecast:
    """The time that is left of work of several kinds, each of which may have a speed of its own.

    The first step of a kind says nothing about its speed: it has costs that do not come again, such as the choice of
    kernels and memory that is taken.

    Args:
        work: of each kind, in a unit of which all of them take about as many a second.
    """

    def __init__(self, work: Mapping[Hashable, float]) -> None:
        self.total = sum(work.values())
        self._left = dict(work)
        self._measured: dict[Hashable, tuple[float, float]] = {}
        self._last = time.monotonic()

    @property
    def share(self) -> float:
        """Of the work that is done, from 0 to 1; never falls."""
        left = sum(self._left.values())
        return 1 - left / self.total if self.total and left > 1e-9 * self.total else 1.0

    def step(self, kind: Hashable, work: float) -> None:
        """So much more work of a kind is done."""
        now = time.monotonic()
        if kind in self._measured:
            done, seconds = self._measured[kind]
            self._measured[kind] = done + work, seconds + now - self._last
        else:
            self._measured[kind] = 0.0, 0.0
        self._left[kind] = max(self._left[kind] - work, 0.0)
        self._last = now

    def seconds_left(self) -> float | None:
        """At the speed of each kind where it is known, else at that of all; None before there is one."""
        done, seconds = (
            (sum(column) for column in zip(*self._measured.values(), strict=True)) if self._measured else (0, 0)
        )
        if not done:
            return None

        def of(kind: Hashable, left: float) -> float:
            own, taken = self._measured.get(kind, (0.0, 0.0))
            return left * (taken / own if own else seconds / done)

        return sum(of(kind, left) for kind, left in self._left.items())
