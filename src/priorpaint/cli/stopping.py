"""Ctrl-C and SIGTERM as a wish to stop soon, with what is finished kept."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from priorpaint.errors import CancelToken


class Signals(CancelToken):
    """The token that signals cancel: the first one stops the run at its next step, a second Ctrl-C at once.

    Attributes:
        received: number of the first signal; 0 where none came.
    """

    def __init__(self) -> None:
        super().__init__()
        self.received = 0

    def take(self, number: int, frame: FrameType | None) -> None:
        """The handler."""
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self.received:
            self.received = number
            self.cancel()
            print("\nStopping after this step; press Ctrl-C again to stop at once.", file=sys.stderr, flush=True)

    @property
    def exit_code(self) -> int:
        """Of a run that was stopped: 130 by Ctrl-C, 143 by SIGTERM or by another process of the same run."""
        return 128 + (self.received or signal.SIGTERM)


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
