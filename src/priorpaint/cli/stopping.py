"""Ctrl-C and SIGTERM as a wish to stop soon, keeping what is finished."""

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
        received: number of the first signal; 0 without one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.received = 0

    def handle(self, signum: int, frame: FrameType | None) -> None:
        """A signal handler."""
        if self.received and signum == signal.SIGINT:
            raise KeyboardInterrupt
        if not self.received:
            self.received = signum
            self.cancel()
            print("\nStopping after this step; press Ctrl-C again to stop at once.", file=sys.stderr, flush=True)

    @property
    def exit_code(self) -> int:
        """Of a run that was stopped: 130 by Ctrl-C, 143 by SIGTERM or by another process of the same run."""
        return 128 + (self.received or signal.SIGTERM)


@contextmanager
def signals() -> Iterator[Signals]:
    """Signals are taken inside; the handlers that were there before come back afterwards."""
    token = Signals()
    before = {signum: signal.signal(signum, token.handle) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield token
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
