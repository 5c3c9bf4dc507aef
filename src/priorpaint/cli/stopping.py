"""Ctrl-C and SIGTERM as a wish to stop soon, with what is finished kept."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from priorpaint.errors import Cancelled, CancelToken


class Signals:
    """The first signal ends the run at the next step; a second one ends it at once."""

    def __init__(self) -> None:
        self.received, self.token = 0, CancelToken()

    def take(self, number: int, frame: FrameType | None) -> None:
        """The handler."""
        if self.received:
            raise KeyboardInterrupt
        self.received = number
        self.token.cancel()
        print("\nStopping after this step; press Ctrl-C again to stop at once.", file=sys.stderr, flush=True)

    def check(self) -> None:
        """Raise Cancelled where a signal came."""
        if self.received:
            raise Cancelled("stopped by a signal")


@contextmanager
def signals() -> Iterator[Signals]:
    """Signals are taken inside; the handlers that were there before come back afterwards."""
    taken = Signals()
    before = {number: signal.signal(number, taken.take) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield taken
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
